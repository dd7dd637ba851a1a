//! Modes of a fallback, and the effect of each reply on them.

use crate::ledger::writer::Reply;

/// Whether the ledger is asked, or requests pass without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Asking,
    /// No caller waits for the ledger; only the merging task retries it.
    Fallback,
}

/// Whether a command without a reply may have been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    No,
    Perhaps,
}

/// Number of records that fit one transaction. With no more left, the ledger is asked again while they are merged.
const FEW: usize = 512;

/// Returns the uncertainty that a reply leaves; `None` if the ledger has decided.
pub(crate) fn after(reply: &Reply) -> Option<Sent> {
    match reply {
        Reply::Unavailable(_) => Some(Sent::No),
        Reply::Indeterminate => Some(Sent::Perhaps),
        _ => None,
    }
}

impl Mode {
    /// Registers that the ledger has not decided; returns whether that is new.
    pub(crate) fn lost(&mut self) -> bool {
        std::mem::replace(self, Self::Fallback) == Self::Asking
    }

    /// Registers that the ledger has accepted records and `left` remain; returns whether the ledger is back.
    pub(crate) fn reached(&mut self, left: usize) -> bool {
        let back = *self == Self::Fallback && left <= FEW;
        if back {
            *self = Self::Asking;
        }
        back
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::Amounts;

    #[test]
    fn only_what_the_ledger_has_not_decided_passes_without_it() {
        assert_eq!(after(&Reply::Unavailable("down".into())), Some(Sent::No));
        assert_eq!(after(&Reply::Indeterminate), Some(Sent::Perhaps));
        let decided = [
            Reply::Refused(Vec::new()),
            Reply::Conflict,
            Reply::Replay { amounts: Amounts::new(), running: true },
            Reply::Done,
        ];
        assert!(decided.iter().all(|reply| after(reply).is_none()));
    }

    proptest! {
        #[test]
        fn it_is_told_once_when_it_goes_and_once_when_it_is_back(steps in proptest::collection::vec((any::<bool>(), 0..2_000_usize), 0..50)) {
            let (mut mode, mut told) = (Mode::default(), 0_i32);
            for (lost, left) in steps {
                told += if lost { i32::from(mode.lost()) } else { -i32::from(mode.reached(left)) };
                prop_assert_eq!(told, i32::from(mode == Mode::Fallback));
                prop_assert!(!lost || mode == Mode::Fallback);
                prop_assert!(lost || left > FEW || mode == Mode::Asking);
            }
        }
    }
}
