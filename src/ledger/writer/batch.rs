//! A batch of orders, decided in the order of their arrival over accounts that are locked.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    AdmitCommand, AdmitReply, AdmittedAt, Command, CommandKind, Detail, EntryKind, JobRows, JobStatus, Key, LATE,
    Loaded, Posting, Reads, Reply, ReservationRow, ReservationTerms, Row, SettleCommand, SettleKind, SpooledCharge,
    Writes, account_state::AccountState, job_time::forgotten,
};
use crate::{
    kind::Kind,
    quota::{Amounts, GrantId, Plan, account::Warning},
};

/// An order whose turn it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn<'a> {
    pub(super) command: &'a Command,
    /// It may have been written before.
    pub(super) sent: bool,
    /// Whoever asked has gone.
    pub(super) left: bool,
}

/// What a batch has to lock and read. Of orders that may have been written before, all rows.
pub(super) fn reads<'a>(commands: impl Iterator<Item = Turn<'a>>) -> Reads {
    let mut reads = Reads::default();
    for Turn { command, sent, .. } in commands {
        reads.tenants.push(Arc::clone(&command.key.tenant));
        if sent || command.reads_job() {
            reads.jobs.push(command.key.clone());
        }
        if let Some(since) = command.since() {
            reads.since = Some(reads.since.map_or(since, |earliest| earliest.min(since)));
        }
    }
    reads.tenants.sort_unstable();
    reads.tenants.dedup();
    reads.jobs.sort_unstable();
    reads.jobs.dedup();
    reads
}

impl Command {
    /// Whether it depends on rows of its job: not where its id is new, or it only adds to what is there.
    fn reads_job(&self) -> bool {
        match &self.kind {
            CommandKind::Admit(_) => !self.own,
            CommandKind::Settle(settle) => settle.end != SettleKind::Add,
            CommandKind::Spooled(_) | CommandKind::SettleOf { .. } => true,
            CommandKind::Expire { .. } | CommandKind::Renew { .. } => true,
            CommandKind::Record { .. }
            | CommandKind::Reset { .. }
            | CommandKind::Grant { .. }
            | CommandKind::Revoke { .. } => false,
        }
    }

    /// When what it settles was admitted.
    fn since(&self) -> Option<u64> {
        match &self.kind {
            CommandKind::Settle(settle) | CommandKind::SettleOf { settle, .. } => Some(settle.since.at),
            CommandKind::Spooled(pass) => Some(pass.at),
            CommandKind::Expire { since, .. } | CommandKind::Renew { since, .. } => Some(*since),
            _ => None,
        }
    }
}

/// An amount returned in full, although a reset may have emptied its count before.
///
/// A reset gives room and returns no money, so the row that takes the amount off the bill carries all of it. The part that
/// the count no longer had is added back by a reset row, and the count stays the sum of its rows.
struct Returned {
    line: Posting,
    /// The part that a reset had removed from the count.
    by_reset: i64,
}

impl Returned {
    /// Completes `line`, which returns as much of `amount` as the count still had.
    fn of(mut line: Posting, amount: u64) -> Self {
        let by_reset = i64::try_from(amount).unwrap_or(i64::MAX) + line.amount;
        line.amount -= by_reset;
        Self { line, by_reset }
    }
}

/// A batch under way.
struct Batch {
    now: u64,
    sealed: u64,
    books: BTreeMap<Arc<str>, AccountState>,
    rows: HashMap<Key, Vec<Row>>,
    /// Jobs that passed, or whose end did: the rows that this batch writes for them are looked for in it.
    passed: HashSet<Key>,
    writes: Writes,
}

/// Decides all orders; says what to write, and what to answer once that is durable.
pub(super) fn decide<'a>(commands: impl Iterator<Item = Turn<'a>> + Clone, loaded: Loaded) -> (Writes, Vec<Reply>) {
    let Loaded { now, accounts, rows, sealed } = loaded;
    let books = accounts.into_iter().map(|(tenant, stored)| (tenant, AccountState::new(stored))).collect();
    let passed = commands
        .clone()
        .filter(|epoch| matches!(epoch.command.kind, CommandKind::Spooled(_) | CommandKind::SettleOf { .. }));
    let passed = passed.map(|epoch| epoch.command.key.clone()).collect();
    let mut batch = Batch { now, sealed, books, rows: HashMap::new(), passed, writes: Writes::default() };
    for row in rows {
        batch.rows.entry(row.key.clone()).or_default().push(row);
    }
    let replies = commands.map(|turn| batch.decide(turn)).collect();
    for (tenant, book) in std::mem::take(&mut batch.books) {
        book.write(&tenant, &mut batch.writes);
    }
    (batch.writes, replies)
}

impl Batch {
    fn decide(&mut self, Turn { command, sent, left }: Turn<'_>) -> Reply {
        let looked_for = match command.kind {
            CommandKind::Spooled(_) => false, // knows its rows itself
            // What was kept in a file may have been brought here before, by a process that has died since.
            CommandKind::SettleOf { .. } => true,
            _ => sent,
        };
        if looked_for && self.rows.get(&command.key).is_some_and(|rows| JobRows(rows).written_by(command.id)) {
            return self.written_before(command);
        }
        match &command.kind {
            // It was looked for, in case that it had been written; nobody wants it any more.
            CommandKind::Admit(_) if left => Reply::Unavailable("whoever asked has gone".into()),
            CommandKind::Admit(admit) => self.admit(command, admit),
            CommandKind::Settle(settle) => self.settle(command, settle),
            CommandKind::Spooled(pass) => self.pass(command, pass),
            CommandKind::SettleOf { of, settle } => self.end(command, *of, settle),
            CommandKind::Record { plan, amounts } => {
                let (book, now) = self.book(command);
                let since = AdmittedAt { at: book.here(plan, now), epoch: u32::MAX };
                let (lines, near) = book.record(plan, amounts, since, now);
                self.write(command, 0, 0, EntryKind::Record, lines);
                Reply::Recorded(near)
            }
            CommandKind::Expire { attempt, charge, .. } => self.expire(command, *attempt, *charge),
            CommandKind::Renew { attempt, since, ttl } => {
                if JobRows(self.rows_of(&command.key)).standing(*attempt) == JobStatus::Open {
                    let until = self.now.saturating_add(*ttl);
                    self.writes.renewed.push(ReservationRow {
                        key: command.key.clone(),
                        attempt: *attempt,
                        until,
                        since: *since,
                        charge: false, // stays as it was said
                    });
                }
                Reply::Done
            }
            CommandKind::Reset { plan, limit } => {
                let (book, now) = self.book(command);
                match book.reset(plan, limit.as_deref(), now) {
                    Ok(lines) if lines.is_empty() => {
                        self.write_marked(command, 0, 0, EntryKind::Reset, lines, None);
                        Reply::Done
                    }
                    Ok(mut lines) => {
                        // One limit may have a count in each epoch that is under way: a part of its own tells them apart.
                        lines.sort_unstable();
                        for (part, line) in (0..).zip(lines) {
                            self.write(command, 0, part, EntryKind::Reset, vec![line]);
                        }
                        Reply::Done
                    }
                    Err(invalid) => Reply::Invalid(invalid),
                }
            }
            CommandKind::Grant { plan, grant } => {
                let (book, now) = self.book(command);
                match book.grant(plan, (**grant).clone(), now) {
                    Ok(line) => {
                        let detail = Detail {
                            granted: grant.amount,
                            until: grant.until,
                            approver: grant.approver.clone(),
                            reason: grant.reason.clone(),
                        };
                        self.write_detailed(command, line, detail);
                        Reply::Granted(GrantId(grant.id))
                    }
                    Err(invalid) => Reply::Invalid(invalid),
                }
            }
            CommandKind::Revoke { grant } => self.revoke(command, *grant),
        }
    }

    /// What an order has come to that was committed without anybody hearing of it.
    fn written_before(&mut self, command: &Command) -> Reply {
        match &command.kind {
            CommandKind::Admit(_) => {
                let own = || self.rows_of(&command.key).iter().filter(|row| row.command == command.id);
                let attempt = own().next().map_or(0, |row| row.attempt);
                // Not now, but when it was written: in all of its periods lies the beginning of the one that began last.
                let counted = || own().filter(|row| !row.limit.is_empty());
                let (at, epoch) = (counted().map(|row| row.window).max(), counted().map(|row| row.epoch).max());
                let (book, now) = self.book(command);
                let since = AdmittedAt { at: at.unwrap_or(now), epoch: epoch.unwrap_or_else(|| book.epoch()) };
                Reply::Admitted(Box::new(AdmitReply {
                    attempt,
                    since,
                    nearest: None,
                    near: Vec::new(),
                    untold: Vec::new(),
                    usage: None,
                }))
            }
            CommandKind::Settle(settle) => self.settled_before(command, settle.attempt, &settle.end),
            CommandKind::Spooled(_) => Reply::Done,
            CommandKind::SettleOf { of, settle } => match JobRows(self.rows_of(&command.key)).attempt_of(*of) {
                Some(attempt) => self.settled_before(command, attempt, &settle.end),
                None => Reply::Settled(JobStatus::Unknown, Vec::new()),
            },
            CommandKind::Record { .. } => Reply::Recorded(Vec::new()),
            CommandKind::Grant { grant, .. } => Reply::Granted(GrantId(grant.id)),
            CommandKind::Revoke { .. } => Reply::Revoked(true),
            CommandKind::Expire { .. } | CommandKind::Renew { .. } | CommandKind::Reset { .. } => Reply::Done,
        }
    }

    /// How an attempt stood before this order settled it.
    fn settled_before(&self, command: &Command, attempt: u32, end: &SettleKind) -> Reply {
        let others = self.rows_of(&command.key).iter().filter(|row| row.command != command.id);
        let before = match end {
            SettleKind::Add => JobStatus::Charged,
            _ => JobRows(&others.cloned().collect::<Vec<_>>()).standing(attempt),
        };
        Reply::Settled(before, Vec::new())
    }

    fn admit(&mut self, command: &Command, admit: &AdmitCommand) -> Reply {
        let rows = JobRows(self.rows_of(&command.key));
        let attempt = match rows.latest() {
            Some(attempt) if rows.standing(attempt) != JobStatus::Voided => {
                let known = rows.of(attempt).find_map(|row| row.fingerprint);
                return match (known, admit.fingerprint) {
                    (Some(known), Some(asked)) if known != asked => Reply::Conflict,
                    _ => Reply::Replay { amounts: rows.amounts(attempt), running: false },
                };
            }
            Some(attempt) => attempt + 1,
            None => 0,
        };
        if !command.own && forgotten(&command.key.job, self.sealed, self.now) {
            return Reply::Stale;
        }
        let (book, now) = self.book(command);
        let taken = match book.take(&admit.plan, &admit.amounts, admit.reserve.is_some(), now) {
            Ok(taken) => taken,
            Err(violations) => return Reply::Refused(violations),
        };
        let admitted = AdmitReply {
            attempt,
            since: AdmittedAt { at: book.here(&admit.plan, now), epoch: book.epoch() },
            nearest: if admit.told { taken.view.nearest(now) } else { None },
            near: taken.near,
            untold: taken.untold,
            usage: admit.usage.then(|| taken.view.usage(now)),
        };
        let entry = if admit.reserve.is_some() { EntryKind::Reserve } else { EntryKind::Charge };
        self.write_marked(command, attempt, 0, entry, taken.lines, admit.fingerprint);
        if let Some(ReservationTerms { ttl, charge }) = admit.reserve {
            let (until, since) = (now.saturating_add(ttl), admitted.since.at);
            // Whatever was to be closed of this attempt was no part of it.
            self.writes.closed.retain(|(key, closed)| *key != command.key || *closed != attempt);
            self.writes.opened.push(ReservationRow { key: command.key.clone(), attempt, until, since, charge });
        }
        Reply::Admitted(Box::new(admitted))
    }

    /// What was let pass while nobody could be asked, once: also where the same order was written as an admission, whose
    /// answer never came.
    fn pass(&mut self, command: &Command, pass: &SpooledCharge) -> Reply {
        let rows = JobRows(self.rows_of(&command.key));
        if let Some(attempt) = rows.attempt_of(command.id)
            && !rows.was_taken_back(attempt, command.id)
        {
            return Reply::Done;
        }
        let since = AdmittedAt { at: pass.at, epoch: u32::MAX };
        let attempt = match rows.latest() {
            Some(attempt) if rows.standing(attempt) != JobStatus::Voided => {
                let known = rows.of(attempt).find_map(|row| row.fingerprint);
                if !matches!((known, pass.fingerprint), (Some(known), Some(asked)) if known != asked) {
                    return Reply::Replay { amounts: rows.amounts(attempt), running: false };
                }
                // Other work under the same id: nobody could refuse it, and it was done.
                let part = rows.free_part(attempt);
                let (book, now) = self.book(command);
                let (lines, _) = book.note(&pass.plan, &pass.amounts, false, since, now);
                self.write_passed(command, attempt, part, EntryKind::Record, lines, pass);
                return Reply::Done;
            }
            Some(attempt) => attempt + 1,
            None => 0,
        };
        let (book, now) = self.book(command);
        let (lines, _) = book.note(&pass.plan, &pass.amounts, pass.reserve.is_some(), since, now);
        let entry = if pass.reserve.is_some() { EntryKind::Reserve } else { EntryKind::Charge };
        self.write_passed(command, attempt, 0, entry, lines, pass);
        if let Some(ReservationTerms { ttl, charge }) = pass.reserve {
            let until = now.saturating_add(ttl);
            self.writes.opened.push(ReservationRow {
                key: command.key.clone(),
                attempt,
                until,
                since: pass.at.min(now),
                charge,
            });
        }
        Reply::Done
    }

    /// Settles what an order admitted or let pass; nothing where it charged nothing.
    fn end(&mut self, command: &Command, of: u128, settle: &SettleCommand) -> Reply {
        let rows = JobRows(self.rows_of(&command.key));
        match rows.attempt_of(of) {
            Some(attempt) if rows.is_made_by(attempt, of) => {
                self.settle(command, &SettleCommand { attempt, ..settle.clone() })
            }
            Some(attempt) => self.amend(command, of, &SettleCommand { attempt, ..settle.clone() }),
            None => Reply::Settled(JobStatus::Unknown, Vec::new()),
        }
    }

    /// Settles other work that passed under the id of a job: the job stays as it is, and so do the parts of its records.
    fn amend(&mut self, command: &Command, of: u128, settle: &SettleCommand) -> Reply {
        let noted = JobRows(self.rows_of(&command.key)).of(settle.attempt).filter(|row| row.command == of);
        let noted: Vec<_> = noted.filter(|row| !row.limit.is_empty()).cloned().collect();
        let (mut lines, mut near) = (Vec::new(), Vec::new());
        for row in &noted {
            let amount = u64::try_from(row.amount).unwrap_or(0);
            let used = match &settle.end {
                SettleKind::Add => amount,
                SettleKind::Commit(actual) => actual_of(actual, &row.kind).unwrap_or(amount),
                SettleKind::Void => 0,
            };
            if used != amount
                && let Some((corrected, warning)) = self.correct(command, settle, row, amount, used)
            {
                lines.push(corrected);
                near.extend(warning);
            }
        }
        let part = JobRows(self.rows_of(&command.key)).free_part(settle.attempt);
        self.write_corrected(command, settle.attempt, part, lines, false);
        if settle.end != SettleKind::Void {
            let mut more = settle.used.clone();
            if let SettleKind::Commit(actual) = &settle.end {
                let unforeseen = |kind: &Kind| !noted.iter().any(|row| *row.kind == *kind.as_str());
                let unforeseen = actual.iter().filter(|(kind, _)| unforeseen(kind));
                unforeseen.for_each(|(kind, amount)| more.add(kind, amount));
            }
            let (book, now) = self.book(command);
            let (lines, warnings) = book.record(&settle.plan, &more, settle.since, now);
            near.extend(warnings);
            self.write_apart(command, settle.attempt, lines);
        }
        Reply::Settled(JobStatus::Charged, near)
    }

    fn settle(&mut self, command: &Command, settle: &SettleCommand) -> Reply {
        let standing = match settle.end {
            SettleKind::Add => JobStatus::Charged, // never queried
            _ => JobRows(self.rows_of(&command.key)).standing(settle.attempt),
        };
        let mut near = Vec::new();
        match (&settle.end, standing) {
            (SettleKind::Commit(actual), JobStatus::Open) => {
                near = self.commit(command, settle, actual);
                self.writes.closed.push((command.key.clone(), settle.attempt));
            }
            (SettleKind::Commit(actual), JobStatus::Expired) => near = self.commit_late(command, settle, actual),
            (SettleKind::Void, JobStatus::Open | JobStatus::Charged) => {
                self.void(command, settle.attempt, Some(&settle.plan));
                self.writes.closed.push((command.key.clone(), settle.attempt));
            }
            _ => {}
        }
        let voided = settle.end == SettleKind::Void || standing == JobStatus::Voided;
        if !settle.used.is_empty() && !voided {
            let (book, now) = self.book(command);
            let (lines, more) = book.record(&settle.plan, &settle.used, settle.since, now);
            near.extend(more);
            self.write(command, settle.attempt, settle.part, EntryKind::Record, lines);
        }
        Reply::Settled(standing, near)
    }

    /// What was set aside is used, so much of it.
    fn commit(&mut self, command: &Command, settle: &SettleCommand, actual: &Amounts) -> Vec<Warning> {
        let (mut lines, mut near) = (Vec::new(), Vec::new());
        for row in self.reserved(&command.key, settle.attempt) {
            let estimate = u64::try_from(row.amount).unwrap_or(0);
            let used = actual_of(actual, &row.kind).unwrap_or(estimate);
            let (book, now) = self.book(command);
            if let Some((line, warning)) = book.settle(Some(&settle.plan), &row, estimate, used, now) {
                lines.push(line);
                near.extend(warning);
            }
        }
        self.write_marked(command, settle.attempt, 0, EntryKind::Commit, lines, None);
        near.extend(self.unforeseen(command, settle, actual));
        near
    }

    /// What was used of kinds that nothing was set aside of, as a part that what was reported before does not have.
    fn unforeseen(&mut self, command: &Command, settle: &SettleCommand, actual: &Amounts) -> Vec<Warning> {
        let foreseen = self.reserved(&command.key, settle.attempt);
        let mut more = actual.clone();
        actual.iter().filter(|(kind, _)| foreseen.iter().any(|row| *row.kind == *kind.as_str())).for_each(
            |(kind, _)| {
                more.leave_out(kind);
            },
        );
        let (book, now) = self.book(command);
        let (lines, near) = book.record(&settle.plan, &more, settle.since, now);
        self.write_apart(command, settle.attempt, lines);
        near
    }

    /// What was used of a reservation whose time had run out: what was charged of it then counts.
    fn commit_late(&mut self, command: &Command, settle: &SettleCommand, actual: &Amounts) -> Vec<Warning> {
        let (mut lines, mut near) = (Vec::new(), Vec::new());
        for row in self.reserved(&command.key, settle.attempt) {
            let estimate = u64::try_from(row.amount).unwrap_or(0);
            let used = actual_of(actual, &row.kind).unwrap_or(estimate);
            let charged = self.charged(&command.key, settle.attempt, &row);
            if let Some((corrected, warning)) = self.correct(command, settle, &row, charged, used) {
                lines.push(corrected);
                near.extend(warning);
            }
        }
        self.write_corrected(command, settle.attempt, LATE, lines, true);
        near.extend(self.unforeseen(command, settle, actual));
        near
    }

    /// Corrects what a row's count has used from `charged` to `used`.
    fn correct(
        &mut self,
        command: &Command,
        settle: &SettleCommand,
        row: &Row,
        charged: u64,
        used: u64,
    ) -> Option<(Returned, Option<Warning>)> {
        let (book, now) = self.book(command);
        if used >= charged {
            let (line, warning) = book.settle(Some(&settle.plan), row, 0, used - charged, now)?;
            return Some((Returned { line, by_reset: 0 }, warning));
        }
        let line = book.give_back(Some(&settle.plan), row, charged - used, now)?;
        Some((Returned::of(line, charged - used), None))
    }

    /// Writes corrections as records, with the reset rows that belong to them.
    fn write_corrected(&mut self, command: &Command, attempt: u32, part: u32, all: Vec<Returned>, marked: bool) {
        let resets = all.iter().filter(|returned| returned.by_reset > 0);
        let resets: Vec<_> =
            resets.map(|Returned { line, by_reset }| Posting { amount: *by_reset, ..line.clone() }).collect();
        self.write(command, attempt, part, EntryKind::Reset, resets);
        let lines: Vec<_> = all.into_iter().map(|returned| returned.line).collect();
        match marked {
            true => self.write_marked(command, attempt, part, EntryKind::Record, lines, None),
            false => self.write(command, attempt, part, EntryKind::Record, lines),
        }
    }

    /// Everything goes back.
    fn void(&mut self, command: &Command, attempt: u32, plan: Option<&Plan>) {
        let mut sums = BTreeMap::new();
        for row in JobRows(self.rows_of(&command.key)).of(attempt).filter(|row| !row.limit.is_empty()) {
            if row.entry == EntryKind::Reset {
                continue; // undoes a part of a reset, and is no part of the attempt
            }
            let count = (Arc::clone(&row.limit), Arc::clone(&row.kind), row.window, row.epoch);
            let (reserved, used, _) = sums.entry(count).or_insert_with(|| (0_i64, 0_i64, row.clone()));
            *if row.entry == EntryKind::Reserve { reserved } else { used } += row.amount;
        }
        let mut lines = Vec::new();
        for (reserved, used, row) in sums.into_values() {
            let (book, now) = self.book(command);
            let (reserved, used) = (u64::try_from(reserved).unwrap_or(0), u64::try_from(used).unwrap_or(0));
            let set_aside = book.settle(plan, &row, reserved, 0, now);
            let back = book.give_back(plan, &row, used, now);
            if let (Some((set_aside, _)), Some(back)) = (set_aside, back) {
                let mut returned = Returned::of(back, used);
                returned.line.amount += set_aside.amount;
                lines.push(returned);
            }
        }
        if lines.is_empty() {
            self.write_marked(command, attempt, 0, EntryKind::Void, Vec::new(), None);
        }
        for (part, Returned { line, by_reset }) in (0..).zip(lines) {
            if by_reset > 0 {
                self.write(
                    command,
                    attempt,
                    part,
                    EntryKind::Reset,
                    vec![Posting { amount: by_reset, ..line.clone() }],
                );
            }
            self.write(command, attempt, part, EntryKind::Void, vec![line]);
        }
    }

    fn expire(&mut self, command: &Command, attempt: u32, charge: bool) -> Reply {
        let standing = JobRows(self.rows_of(&command.key)).standing(attempt);
        if standing == JobStatus::Open {
            let mut lines = Vec::new();
            for row in self.reserved(&command.key, attempt) {
                let estimate = u64::try_from(row.amount).unwrap_or(0);
                let (book, now) = self.book(command);
                lines.extend(
                    book.settle(None, &row, estimate, if charge { estimate } else { 0 }, now).map(|(line, _)| line),
                );
            }
            self.write_marked(command, attempt, 0, EntryKind::Expire, lines, None);
        }
        self.writes.closed.push((command.key.clone(), attempt));
        Reply::Done
    }

    fn revoke(&mut self, command: &Command, grant: u64) -> Reply {
        let (book, now) = self.book(command);
        let Some(state) = book.revoke(grant, now) else { return Reply::Revoked(false) };
        let line = Posting {
            limit: Arc::clone(&state.limit),
            kind: Arc::clone(&state.kind),
            window: state.window,
            epoch: state.epoch,
            amount: 0,
        };
        let detail =
            Detail { granted: 0, until: now, approver: state.approver.clone(), reason: format!("grant {grant} ends") };
        self.write_detailed(command, line, detail);
        Reply::Revoked(true)
    }

    fn book(&mut self, command: &Command) -> (&mut AccountState, u64) {
        (self.books.entry(Arc::clone(&command.key.tenant)).or_default(), self.now)
    }

    fn rows_of(&self, key: &Key) -> &[Row] {
        self.rows.get(key).map_or(&[], Vec::as_slice)
    }

    /// What an attempt has set aside, limit by limit.
    fn reserved(&self, key: &Key, attempt: u32) -> Vec<Row> {
        let rows = JobRows(self.rows_of(key)).of(attempt);
        rows.filter(|row| row.entry == EntryKind::Reserve && !row.limit.is_empty()).cloned().collect()
    }

    /// What is charged of a reserved row after its time ran out.
    fn charged(&self, key: &Key, attempt: u32, row: &Row) -> u64 {
        let same = |other: &&Row| other.limit == row.limit && other.kind == row.kind;
        let of = JobRows(self.rows_of(key)).of(attempt).filter(same);
        let sum: i64 =
            of.filter(|row| matches!(row.entry, EntryKind::Reserve | EntryKind::Expire)).map(|row| row.amount).sum();
        u64::try_from(sum).unwrap_or(0)
    }

    /// As a part that no other record of the attempt has.
    fn write_apart(&mut self, command: &Command, attempt: u32, lines: Vec<Posting>) {
        let part = JobRows(self.rows_of(&command.key)).free_part(attempt);
        self.write(command, attempt, part, EntryKind::Record, lines);
    }

    fn write(&mut self, command: &Command, attempt: u32, part: u32, entry: EntryKind, lines: Vec<Posting>) {
        for line in lines {
            self.push(command, attempt, part, entry, line, None, None);
        }
    }

    /// At least one row, so that it is known that it happened.
    fn write_marked(
        &mut self,
        command: &Command,
        attempt: u32,
        part: u32,
        entry: EntryKind,
        mut lines: Vec<Posting>,
        fingerprint: Option<u128>,
    ) {
        if lines.is_empty() {
            lines.push(Posting { limit: "".into(), kind: "".into(), window: 0, epoch: 0, amount: 0 });
        }
        for line in lines {
            self.push(command, attempt, part, entry, line, fingerprint, None);
        }
    }

    /// At least one row, each of which says that nobody was asked.
    fn write_passed(
        &mut self,
        command: &Command,
        attempt: u32,
        part: u32,
        entry: EntryKind,
        mut lines: Vec<Posting>,
        pass: &SpooledCharge,
    ) {
        if lines.is_empty() {
            lines.push(Posting { limit: "".into(), kind: "".into(), window: 0, epoch: 0, amount: 0 });
        }
        for line in lines {
            let detail = Detail { until: pass.at, reason: PASSED.into(), ..Detail::default() };
            self.push(command, attempt, part, entry, line, pass.fingerprint, Some(Box::new(detail)));
        }
    }

    fn write_detailed(&mut self, command: &Command, line: Posting, detail: Detail) {
        self.push(command, 0, 0, EntryKind::Grant, line, None, Some(Box::new(detail)));
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of a row")]
    fn push(
        &mut self,
        command: &Command,
        attempt: u32,
        part: u32,
        entry: EntryKind,
        line: Posting,
        fingerprint: Option<u128>,
        detail: Option<Box<Detail>>,
    ) {
        let Posting { limit, kind, window, epoch, amount } = line;
        // What settles it may come in the same batch only where it passed.
        let own = command.own && !self.passed.contains(&command.key);
        let (key, command) = (command.key.clone(), command.id);
        let row = Row { key, attempt, part, entry, kind, limit, window, epoch, amount, command, fingerprint, detail };
        debug_assert!(
            !self.writes.rows.iter().rev().take_while(|other| other.command == command).any(|other| {
                (&other.key, &other.limit, &other.kind, other.attempt, other.part, other.entry)
                    == (&row.key, &row.limit, &row.kind, row.attempt, row.part, row.entry)
            }),
            "the unique index would reject a command that writes two rows under one key"
        );
        if !own {
            self.rows.entry(row.key.clone()).or_default().push(row.clone());
        }
        self.writes.rows.push(row);
    }
}

/// What the rows say of what was let pass while nobody could be asked; their `until` is when that was.
const PASSED: &str = "let pass while the ledger was away";

/// What was really used of a kind, if that is said.
fn actual_of(actual: &Amounts, kind: &str) -> Option<u64> {
    actual.iter().find(|(known, _)| known.as_str() == kind).map(|(_, amount)| amount.min(crate::quota::MOST))
}
