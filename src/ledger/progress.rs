//! How far a connection is with its transaction.

use super::DbError;

/// Where a connection stands; in the middle of a step it counts as broken, so that a step that is dropped leaves it so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Progress {
    #[default]
    Idle,
    Open,
    Broken,
}

impl Progress {
    /// A transaction is about to begin.
    pub(super) fn begin(&mut self) -> Result<(), DbError> {
        match std::mem::replace(self, Self::Broken) {
            Self::Idle => Ok(()),
            _ => Err(DbError::Lost("the connection was left in the middle of a transaction".into())),
        }
    }

    /// The transaction is about to go on, or to end.
    pub(super) fn step(&mut self) -> Result<(), DbError> {
        match std::mem::replace(self, Self::Broken) {
            Self::Open => Ok(()),
            Self::Idle => {
                *self = Self::Idle;
                Err(DbError::Refused("there is no transaction to go on with".into()))
            }
            Self::Broken => Err(DbError::Lost("the connection was left in the middle of a step".into())),
        }
    }

    /// The transaction is about to be rolled back; false where there is none, because a failed step has ended it.
    pub(super) fn undo(&mut self) -> Result<bool, DbError> {
        if *self == Self::Idle {
            return Ok(false);
        }
        self.step().map(|()| true)
    }

    /// The step has succeeded, and the transaction is open.
    pub(super) fn stands(&mut self) {
        *self = Self::Open;
    }

    /// The transaction has ended.
    pub(super) fn ended(&mut self) {
        *self = Self::Idle;
    }
}
