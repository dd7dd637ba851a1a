//! Random writes, beside a model that keeps them in maps.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::*;

/// Numbers of histories and of their transactions; few, because databases are slow.
const HISTORIES: usize = 12;
const TRANSACTIONS: usize = 6;

/// Tenant, limit, kind, period, start and epoch of a counter.
type Counted = (Arc<str>, Arc<str>, Arc<str>, Arc<str>, u64, u64);

#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    counts: BTreeMap<Counted, StoredCounter>,
    grants: BTreeMap<(Arc<str>, u64), GrantState>,
    holds: BTreeMap<(Key, u32), ReservationRow>,
    unfinished: BTreeMap<(Key, u32), UnfinishedJob>,
}

pub(super) async fn come_back<D: Database, F: Future<Output = D>>(fresh: &impl Fn() -> F) {
    let mut runner = TestRunner::deterministic();
    for _ in 0..HISTORIES {
        let (database, mut model) = (fresh().await, Model::default());
        for _ in 0..TRANSACTIONS {
            let (writes, commits) = (writes(), any::<bool>()).new_tree(&mut runner).unwrap().current();
            model.agrees_after(&database, writes, commits).await;
        }
    }
}

impl Model {
    async fn agrees_after<D: Database>(&mut self, database: &D, mut writes: Writes, commits: bool) {
        // Values that a database must reject are tested elsewhere.
        let mut seen: Vec<_> = self.rows.iter().map(unique).collect();
        writes.rows.retain(|row| {
            !seen.contains(&unique(row)) && {
                seen.push(unique(row));
                true
            }
        });
        let mut seen = Vec::new();
        writes.counts.retain(|(tenant, count)| {
            let key = (
                tenant.clone(),
                count.limit.clone(),
                count.kind.clone(),
                count.period.clone(),
                count.counter.starts,
                count.counter.epoch,
            );
            !seen.contains(&key) && {
                seen.push(key);
                true
            }
        });
        let mut seen = Vec::new();
        writes.grants.retain(|(tenant, grant)| {
            let key = (tenant.clone(), grant.id);
            !seen.contains(&key) && {
                seen.push(key);
                true
            }
        });
        for holds in [&mut writes.opened, &mut writes.renewed] {
            let mut seen = Vec::new();
            holds.retain(|hold| {
                let key = (hold.key.clone(), hold.attempt);
                !seen.contains(&key) && {
                    seen.push(key);
                    true
                }
            });
        }

        for jobs in [&mut writes.begun, &mut writes.interrupted] {
            let mut seen = Vec::new();
            jobs.retain(|job| {
                let key = (job.key.clone(), job.attempt);
                !seen.contains(&key) && {
                    seen.push(key);
                    true
                }
            });
        }

        let mut session = database.connect().await.unwrap();
        let jobs: Vec<_> = TENANTS.iter().flat_map(|tenant| JOBS.map(|job| key(tenant, job))).collect();
        let asked = Reads { since: TENANTS.map(|tenant| (tenant.into(), 0)).into(), ..reads(&TENANTS, &jobs) };
        let loaded = session.begin(&asked).await.unwrap();
        self.agrees(&loaded);
        session.write(&writes, loaded.now).await.unwrap();
        if commits {
            session.commit().await.unwrap();
            self.write(writes);
        } else {
            session.roll_back().await.unwrap();
        }
        let loaded = session.begin(&asked).await.unwrap();
        self.agrees(&loaded);
        session.roll_back().await.unwrap();
        let mut due: Vec<_> = self.holds.values().cloned().collect();
        due.sort_by_key(|hold: &ReservationRow| (hold.until, hold.key.clone(), hold.attempt));
        assert_eq!(database.due(1_000, 0).await.unwrap(), due);
    }

    fn write(&mut self, writes: Writes) {
        self.rows.extend(writes.rows);
        for (tenant, count) in writes.counts {
            let key = (
                tenant,
                count.limit.clone(),
                count.kind.clone(),
                count.period.clone(),
                count.counter.starts,
                count.counter.epoch,
            );
            self.counts.insert(key, count);
        }
        for (tenant, grant) in writes.grants {
            self.grants.insert((tenant, grant.id), grant);
        }
        for hold in writes.opened {
            self.holds.insert((hold.key.clone(), hold.attempt), hold);
        }
        for hold in writes.renewed {
            if let Some(kept) = self.holds.get_mut(&(hold.key, hold.attempt)) {
                kept.until = hold.until;
            }
        }
        for closed in writes.closed {
            self.holds.remove(&closed);
        }
        for job in writes.begun {
            self.unfinished.insert((job.key.clone(), job.attempt), job);
        }
        for job in writes.interrupted {
            if let Some(known) = self.unfinished.get_mut(&(job.key, job.attempt)) {
                known.until = job.until;
            }
        }
        for finished in writes.finished {
            self.unfinished.remove(&finished);
        }
    }

    fn agrees(&self, loaded: &Loaded) {
        assert_eq!(loaded.rows, self.rows);
        let mut unfinished = loaded.unfinished.clone();
        unfinished.sort_by_key(|job| (job.key.clone(), job.attempt));
        assert_eq!(unfinished, self.unfinished.values().cloned().collect::<Vec<_>>());
        for tenant in TENANTS {
            let stored = &loaded.accounts[tenant];
            let sorted = |mut counts: Vec<StoredCounter>| {
                counts.sort_by_key(|it| {
                    (it.limit.clone(), it.kind.clone(), it.period.clone(), it.counter.starts, it.counter.epoch)
                });
                counts
            };
            let counts = self.counts.iter().filter(|(key, count)| &*key.0 == tenant && count.counter.ends > 0);
            assert_eq!(sorted(stored.counts.clone()), sorted(counts.map(|(_, count)| count.clone()).collect()));
            let mut grants = stored.grants.clone();
            grants.sort_by_key(|grant| grant.id);
            let kept =
                self.grants.iter().filter(|(key, grant)| &*key.0 == tenant && (!grant.ended || grant.current > 0));
            assert_eq!(grants, kept.map(|(_, grant)| grant.clone()).collect::<Vec<_>>());
        }
    }
}

type Unique = (Key, Arc<str>, Arc<str>, u32, EntryKind, u32);

fn unique(row: &Row) -> Unique {
    (row.key.clone(), row.limit.clone(), row.kind.clone(), row.attempt, row.entry, row.part)
}

const TENANTS: [&str; 3] = ["a", "o'\"b", "\0\u{1}\u{e4}"];
const JOBS: [&str; 4] = ["1", "", "\\x\0", "\u{1F980}"];
const LIMITS: [&str; 3] = ["", "daily", "d'a"];

fn one_of<const N: usize>(words: [&'static str; N]) -> impl Strategy<Value = Arc<str>> {
    (0..N).prop_map(move |at| words[at].into())
}

/// Returns whole microseconds, in the past and in the future.
fn instant() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), Just(1_000), (0..u64::MAX / 1_000).prop_map(|micros| micros * 1_000)]
}

fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(i64::MAX as u64), 0..1_000_u64]
}

fn keys() -> impl Strategy<Value = Key> {
    (one_of(TENANTS), one_of(JOBS)).prop_map(|(tenant, job)| Key { tenant, job })
}

fn rows() -> impl Strategy<Value = Row> {
    let detail = (amount(), instant(), ".{0,9}", ".{0,9}")
        .prop_map(|(granted, until, approver, reason)| Box::new(Detail { granted, until, approver, reason }));
    (
        (keys(), 0..3_u32, any::<u32>(), 0..EntryKind::ALL.len(), one_of(LIMITS), one_of(LIMITS), one_of(LIMITS)),
        (
            instant(),
            any::<u32>().prop_map(u64::from),
            any::<i64>(),
            any::<u128>(),
            any::<Option<u128>>(),
            proptest::option::of(detail),
        ),
    )
        .prop_map(
            |(
                (key, attempt, part, entry, kind, limit, period),
                (window, epoch, amount, command, fingerprint, detail),
            )| {
                let entry = EntryKind::ALL[entry];
                Row {
                    key,
                    attempt,
                    part,
                    entry,
                    kind,
                    limit,
                    period,
                    window,
                    epoch,
                    amount,
                    command,
                    fingerprint,
                    detail,
                }
            },
        )
}

fn counts() -> impl Strategy<Value = (Arc<str>, StoredCounter)> {
    (
        one_of(TENANTS),
        one_of(LIMITS),
        one_of(LIMITS),
        one_of(LIMITS),
        0..3_u64,
        instant(),
        0..2_u64,
        amount(),
        amount(),
        any::<[bool; 2]>(),
    )
        .prop_map(
            |(tenant, limit, kind, period, starts, ends, epoch, used, reserved, [warned, warning_pending])| {
                (
                    tenant,
                    StoredCounter {
                        limit,
                        kind,
                        period,
                        counter: Counter {
                            starts: starts * 1_000,
                            ends,
                            epoch,
                            used,
                            reserved,
                            warned,
                            warning_pending,
                        },
                    },
                )
            },
        )
}

fn grants() -> impl Strategy<Value = (Arc<str>, GrantState)> {
    (
        (one_of(TENANTS), 0..4_u64, one_of(LIMITS), one_of(LIMITS), one_of(LIMITS), amount(), instant(), ".{0,9}"),
        (amount(), amount(), instant(), any::<u32>().prop_map(u64::from), any::<bool>()),
    )
        .prop_map(
            |((tenant, id, limit, kind, period, amount, until, approver), (before, current, window, epoch, ended))| {
                let reason = approver.clone();
                (
                    tenant,
                    GrantState {
                        id,
                        limit,
                        kind,
                        period,
                        amount,
                        until,
                        approver,
                        reason,
                        before,
                        current,
                        window,
                        epoch,
                        ended,
                    },
                )
            },
        )
}

fn holds() -> impl Strategy<Value = ReservationRow> {
    (keys(), 0..2_u32, 0..2_000_000_u64, 0..2_000_u64, any::<bool>()).prop_map(
        |(key, attempt, until, since, charge)| ReservationRow {
            key,
            attempt,
            until: until * 1_000,
            since: since * 1_000,
            charge,
        },
    )
}

fn unfinished() -> impl Strategy<Value = UnfinishedJob> {
    (keys(), 0..2_u32, instant()).prop_map(|(key, attempt, until)| UnfinishedJob { key, attempt, until })
}

fn writes() -> impl Strategy<Value = Writes> {
    (
        vec(rows(), 0..30),
        vec(counts(), 0..12),
        vec(grants(), 0..5),
        vec(holds(), 0..6),
        vec(holds(), 0..4),
        vec((keys(), 0..2_u32), 0..4),
        (vec(unfinished(), 0..6), vec(unfinished(), 0..4), vec((keys(), 0..2_u32), 0..4)),
    )
        .prop_map(|(rows, counts, grants, opened, renewed, closed, (begun, interrupted, finished))| Writes {
            rows,
            counts,
            grants,
            opened,
            renewed,
            closed,
            begun,
            interrupted,
            finished,
            ..Writes::default()
        })
}
