//! One row of the ledger, as the public API shows it.

use std::{
    fmt::{self, Write},
    time::SystemTime,
};

use crate::{
    ledger::writer::{Detail, EntryKind, Row},
    time::{Instant, from_1970},
};

/// One row of a [`Ledger`](crate::Ledger). Rows are never changed; a later row corrects an error.
///
/// ```no_run
/// # async fn example(ledger: tollgate::Ledger) -> Result<(), tollgate::QuotaError> {
/// use std::time::SystemTime;
/// let mut entries = ledger.entries("acme", SystemTime::UNIX_EPOCH, SystemTime::now());
/// while let Some(entry) = entries.next().await? {
///     println!("{entry}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerEntry {
    /// Number of the row; later rows of an account have higher ones.
    pub id: i64,
    /// Tenant of the account.
    pub tenant: String,
    /// Id of the job as it was sent; an id made by the ledger if the request had none.
    pub job: String,
    /// Number of earlier attempts of the job that were voided. Other work that passed under the same id while the ledger
    /// was away is no attempt of the job: it has a number of its own, from 4,294,967,295 down.
    pub attempt: u32,
    /// Event that the row records.
    pub entry: EntryKind,
    /// Kind that is counted; empty in the row of a job whose kinds no limit counts.
    pub kind: String,
    /// Name of the limit; empty like `kind`.
    pub limit: String,
    /// Period in which the limit counts, such as `month`; empty if an earlier version wrote it.
    pub period: String,
    /// Start of the period to which the row belongs.
    pub window_start: SystemTime,
    /// Change of the limit's used amount; negative for a refund. Each limit of a kind has a row of its own, so a sum
    /// over limits is not a bill: use [`Ledger::invoice`](crate::Ledger::invoice).
    pub amount: i64,
    /// Time at which the row was written.
    pub at: SystemTime,
    /// Terms of a grant.
    pub grant: Option<GrantEntry>,
    /// Id and reason of a credit, which is an entry `adjust`. Entries `adjust` without it are sums of archived rows.
    pub credit: Option<CreditEntry>,
    /// Time at which the request passed without the ledger, by the clock of its process; see
    /// [`OnFailure`](crate::OnFailure).
    pub passed_at: Option<SystemTime>,
}

/// Terms of a grant in its row.
///
/// ```no_run
/// # fn example(entry: tollgate::LedgerEntry) {
/// if let Some(grant) = entry.grant {
///     println!("{} more, approved by {}", grant.amount, grant.approver);
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrantEntry {
    /// Amount by which the limit is raised; 0 if the grant was revoked.
    pub amount: u64,
    /// End of the grant.
    pub until: SystemTime,
    /// Name of the approver.
    pub approver: String,
    /// Reason for the grant.
    pub reason: String,
}

/// A credit in its row.
///
/// ```no_run
/// # fn example(entry: tollgate::LedgerEntry) {
/// if let Some(credit) = entry.credit {
///     println!("{} {} back for {}: {}", -entry.amount, entry.kind, credit.id, credit.reason);
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreditEntry {
    /// Id under which it was given.
    pub id: String,
    /// Reason for the credit.
    pub reason: String,
}

impl LedgerEntry {
    pub(crate) fn of(id: i64, at: u64, row: Row) -> Self {
        let credit = row.credit_id().map(|id| {
            let reason = row.detail.as_ref().map(|detail| detail.reason.clone()).unwrap_or_default();
            CreditEntry { id: id.to_owned(), reason }
        });
        let passed = row.detail.as_ref().filter(|_| row.entry != EntryKind::Grant && credit.is_none());
        let passed_at = passed.map(|detail| from_1970(detail.until));
        let grant = row.detail.filter(|_| row.entry == EntryKind::Grant).map(|detail| {
            let Detail { granted, until, approver, reason } = *detail;
            GrantEntry { amount: granted, until: from_1970(until), approver, reason }
        });
        Self {
            id,
            tenant: row.key.tenant.to_string(),
            job: row.key.job.to_string(),
            attempt: row.attempt,
            entry: row.entry,
            kind: row.kind.to_string(),
            limit: row.limit.to_string(),
            period: row.period.to_string(),
            window_start: from_1970(row.window),
            amount: row.amount,
            at: from_1970(at),
            grant,
            credit,
            passed_at,
        }
    }
}

/// One line of JSON, for exports. Times are RFC 3339 with microseconds.
impl fmt::Display for LedgerEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"{{"id":{},"at":"{}","tenant":"{}""#, self.id, Instant(self.at), Json(&self.tenant))?;
        write!(f, r#","job":"{}","attempt":{},"entry":"{}""#, Json(&self.job), self.attempt, self.entry)?;
        write!(f, r#","kind":"{}","limit":"{}""#, Json(&self.kind), Json(&self.limit))?;
        write!(f, r#","period":"{}""#, Json(&self.period))?;
        write!(f, r#","window_start":"{}","amount":{}"#, Instant(self.window_start), self.amount)?;
        if let Some(grant) = &self.grant {
            write!(f, r#","granted":{},"until":"{}""#, grant.amount, Instant(grant.until))?;
            write!(f, r#","approver":"{}","reason":"{}""#, Json(&grant.approver), Json(&grant.reason))?;
        }
        if let Some(CreditEntry { id, reason }) = &self.credit {
            write!(f, r#","credit":"{}","reason":"{}""#, Json(id), Json(reason))?;
        }
        if let Some(passed_at) = self.passed_at {
            write!(f, r#","passed_at":"{}""#, Instant(passed_at))?;
        }
        f.write_char('}')
    }
}

/// Content of a JSON string (RFC 8259, section 7).
pub(in crate::ledger) struct Json<'a>(pub(in crate::ledger) &'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                control if (control as u32) < 0x20 => write!(f, "\\u{:04x}", control as u32)?,
                plain => f.write_char(plain)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::ledger::writer::Key;

    fn row(text: &str) -> Row {
        let text: Arc<str> = text.into();
        Row {
            key: Key { tenant: text.clone(), job: text.clone() },
            attempt: 1,
            part: 0,
            entry: EntryKind::Grant,
            kind: text.clone(),
            limit: text.clone(),
            period: text.clone(),
            window: 0,
            epoch: 0,
            amount: -3,
            command: 0,
            fingerprint: None,
            detail: Some(Box::new(Detail {
                granted: 7,
                until: 0,
                approver: text.to_string(),
                reason: text.to_string(),
            })),
        }
    }

    proptest! {
        #[test]
        fn a_line_is_json_whatever_is_in_it(text: String, at in 0..4_102_444_800_000_000_u64) {
            let line = LedgerEntry::of(1, at * 1_000, row(&text)).to_string();
            prop_assert!(!line.contains('\n'));
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&read["tenant"], &text);
            prop_assert_eq!(&read["reason"], &text);
            let time: jiff::Timestamp = read["at"].as_str().unwrap().parse().unwrap();
            prop_assert_eq!(time.as_microsecond(), i64::try_from(at).unwrap());
        }

        #[test]
        fn line_of_a_credit_has_its_id_and_reason(id in "[ -~]{1,255}", reason: String) {
            let job = format!("{}{id}", crate::ledger::writer::CREDIT).into();
            let key = Key { tenant: "acme".into(), job };
            let entry = LedgerEntry::of(1, 0, Row { key, entry: EntryKind::Adjust, ..row(&reason) });
            prop_assert_eq!((entry.grant.is_some(), entry.passed_at), (false, None));
            let read: serde_json::Value = serde_json::from_str(&entry.to_string()).unwrap();
            prop_assert_eq!((&read["credit"], &read["reason"]), (&id.into(), &reason.into()));
        }
    }
}
