//! Billing rule: how the rows of an attempt become amounts of an invoice.
//!
//! Several limits may count one kind, and each of them writes a row for the same order. The unit that is billed is
//! therefore not the row but the item: the rows of one attempt with the same entry, part and kind.
//!
//! - An item bills once, whichever limits counted it. Its rows differ only where a counter was full, so the amount
//!   farthest from 0 stands for all.
//! - A void takes back every item that its attempt had billed before it. It is not read from its own rows: those differ
//!   from limit to limit as soon as the limits of a kind have changed since the charge, and where no count of it was there to
//!   give back to, its one row names no limit.
//! - A reset makes room and returns no money, a grant is no usage: neither bills.
//!
//! An item belongs to the time at which it was written, so consecutive periods bill everything once. The ledger states the
//! same rule in SQL (`store/ledger/billed.rs`); both are compared with a book that knows neither.

use std::sync::Arc;

use super::{EntryKind, Row};

/// Item: an amount that is billed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Billed<T> {
    /// When it was written.
    pub(crate) at: T,
    pub(crate) kind: Arc<str>,
    /// Signed: a void bills less than nothing.
    pub(crate) amount: i64,
}

/// Returns the items of one attempt. `rows` are in the order in which they were written, each with its time.
pub(crate) fn billed<'a, T: Copy>(rows: impl IntoIterator<Item = (T, &'a Row)>) -> Vec<Billed<T>> {
    let (mut items, mut keys): (Vec<Billed<T>>, Vec<(EntryKind, u32)>) = (Vec::new(), Vec::new());
    let mut voided = 0; // number of leading items that a void has taken back
    for (at, row) in rows.into_iter().filter(|(_, row)| !row.limit.is_empty() || row.entry == EntryKind::Void) {
        match row.entry {
            EntryKind::Reset | EntryKind::Grant => {}
            EntryKind::Void => {
                let taken_back = items[voided..].iter().map(|item| Billed { at, amount: -item.amount, ..item.clone() });
                let taken_back: Vec<_> = taken_back.collect();
                keys.resize(items.len() + taken_back.len(), (EntryKind::Void, 0));
                items.extend(taken_back);
                voided = items.len();
            }
            EntryKind::Charge
            | EntryKind::Reserve
            | EntryKind::Commit
            | EntryKind::Expire
            | EntryKind::Record
            | EntryKind::Adjust => {
                let key = (row.entry, row.part);
                match items.iter_mut().zip(&keys).find(|(item, known)| **known == key && item.kind == row.kind) {
                    Some((item, _)) => item.amount = farthest_from_zero(item.amount, row.amount),
                    None => {
                        items.push(Billed { at, kind: Arc::clone(&row.kind), amount: row.amount });
                        keys.push(key);
                    }
                }
            }
        }
    }
    items
}

fn farthest_from_zero(one: i64, other: i64) -> i64 {
    std::cmp::max_by_key(one, other, |amount| (amount.unsigned_abs(), *amount))
}
