//! Setting of an exploration: callers, faults and limits.

use std::sync::Arc;

use crate::ledger::writer::{
    PlantedFault,
    tests::{model::Without, *},
};

/// A caller with a job to be done.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub(super) key: Key,
    pub(super) fingerprint: u128,
    pub(super) amount: u64,
    pub(super) reserves: bool,
    /// Process of the first try; later tries go to any.
    pub(super) process: usize,
    pub(super) tries: u8,
    /// Whether the work may fail, and its actual amount if it succeeds.
    pub(super) may_void: bool,
    pub(super) actual: u64,
    /// Whether the reservation may be left unsettled.
    pub(super) may_forget: bool,
}

pub(super) fn want(job: &str, amount: u64) -> Want {
    Want {
        key: key("acme", job),
        fingerprint: 7,
        amount,
        reserves: false,
        process: 0,
        tries: 1,
        may_void: false,
        actual: amount,
        may_forget: false,
    }
}

/// Number of faults of each sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Faults {
    /// Connections that die, at any point.
    pub(super) lost: u8,
    /// Transactions that conflict with others.
    pub(super) again: u8,
    /// Commands that the database rejects from then on, whenever they are written.
    pub(super) rejected: u8,
    pub(super) crashes: u8,
    /// Callers whose deadline passes.
    pub(super) leaves: u8,
    pub(super) hours: u8,
    /// Times that another program holds the account of the first caller.
    pub(super) holds: u8,
    /// Times that the server begins to refuse connections of second lanes.
    pub(super) refusals: u8,
}

/// Constant part of an exploration.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) wants: Vec<Want>,
    pub(super) limit: u64,
    pub(super) batch: usize,
    pub(super) faults: Faults,
    pub(super) charge_expired: bool,
    pub(super) processes: usize,
    /// Whether each process has two lanes.
    pub(super) lanes: bool,
    /// Whether second lanes never have a connection.
    pub(super) no_second: bool,
    /// Whether callers leave because their time-outs pass, and not before.
    pub(super) times_out: bool,
    pub(super) planted: Option<PlantedFault>,
    pub(super) without: Without,
    /// A commit without a reply is treated as one that did not take place.
    pub(super) trusts_silence: bool,
    pub(super) plan: Arc<Plan>,
}

impl Setting {
    pub(super) fn new(name: &'static str, wants: Vec<Want>) -> Self {
        Self {
            name,
            wants,
            limit: 100,
            batch: 4,
            faults: Faults::default(),
            charge_expired: true,
            processes: 2,
            lanes: false,
            no_second: false,
            times_out: false,
            planted: None,
            without: Without::default(),
            trusts_silence: false,
            plan: hourly(100),
        }
    }
}
