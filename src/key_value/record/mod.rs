//! Records of operations that are carried out once.

mod claim;
mod port;
mod rule;
mod transaction;

pub use claim::{AfterLease, Claim, Owner, RecordAbout, RecordKey};
pub use port::{Answer, Begun, Completion, Ownership, RecordStore, UnknownPage, UnknownRecord};
pub(super) use rule::{ClaimTimes, Record, RecordEdit, RecordState};
pub use transaction::{Committed, OpenTransaction, RecordTransactions};
