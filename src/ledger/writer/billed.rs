//! Billing rule: how the rows of an attempt become amounts of an invoice.
//!
//! Several limits may count one kind, and each of them writes a row for the same command. The unit that is billed is
//! therefore not the row but the item: the rows of one attempt with the same entry, part and kind.
//!
//! - An item bills once, whichever limits counted it. Its rows differ only where a counter was full, so the amount
//!   farthest from 0 stands for all.
//! - A void takes back every item that its attempt had billed before it. It is not read from its own rows. Those differ
//!   from limit to limit as soon as the limits of a kind have changed since the charge. If no counter was left to
//!   return to, its one row names no limit.
//! - A reset makes room and returns no money, a grant is no usage: neither bills.
//!
//! An item belongs to the time at which it was written, so consecutive periods bill everything once. The SQL of the
//! ledger states the same rule (`BILLED` in `src/ledger/sql/reports.rs`). Tests compare both with a book that shares no
//! code with either.

use std::sync::Arc;

use super::{EntryKind, Row};

/// Item: an amount that is billed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BilledItem<T> {
    /// Time at which it was written.
    pub(crate) at: T,
    pub(crate) kind: Arc<str>,
    /// Signed: a void bills a negative amount.
    pub(crate) amount: i64,
}

/// Returns the items of one attempt. `rows` are in the order in which they were written, each with its time.
pub(crate) fn billed<'a, T: Copy>(rows: impl IntoIterator<Item = (T, &'a Row)>) -> Vec<BilledItem<T>> {
    use EntryKind::{Adjust, Charge, Commit, Expire, Grant, Record, Reserve, Reset, Void};

    // Items with the entry and part of their rows; those that a void has taken back have none.
    let mut items: Vec<(Option<_>, BilledItem<T>)> = Vec::new();
    let mut voided = 0; // number of leading items that a void has taken back
    for (at, row) in rows.into_iter().filter(|(_, row)| !row.limit.is_empty() || row.entry == Void) {
        match row.entry {
            Reset | Grant => {}
            Void => {
                let void =
                    |item: &BilledItem<T>| BilledItem { at, amount: item.amount.saturating_neg(), ..item.clone() };
                let voids: Vec<_> = items[voided..].iter().map(|(_, item)| (None, void(item))).collect();
                items.extend(voids);
                voided = items.len();
            }
            Charge | Reserve | Commit | Expire | Record | Adjust => {
                let key = Some((row.entry, row.part));
                match items.iter_mut().find(|(known, item)| *known == key && item.kind == row.kind) {
                    Some((_, item)) => item.amount = farthest_from_zero(item.amount, row.amount),
                    None => items.push((key, BilledItem { at, kind: Arc::clone(&row.kind), amount: row.amount })),
                }
            }
        }
    }
    items.into_iter().map(|(_, item)| item).collect()
}

fn farthest_from_zero(one: i64, other: i64) -> i64 {
    std::cmp::max_by_key(one, other, |amount| (amount.unsigned_abs(), *amount))
}
