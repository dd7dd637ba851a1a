//! Mutations: a defence is removed, and the explorer finds the harm. Each test prints the shortest way to it.

use super::{
    settings::{NONE, duplicates, reservations, rivals, show, twins},
    *,
};
use crate::ledger::writer::{PlantedFault, tests::model::Without};

/// The harm, with the shortest way to it.
fn harm(name: &'static str, setting: Setting) -> String {
    let found = explore(Setting { name, ..setting }, Search::Nearest, 500_000);
    println!("{name}: {} states", found.states);
    show(&found);
    found.violation.unwrap_or_else(|| panic!("{name}: not noticed in {} states", found.states)).what
}

const LOST: Faults = Faults { lost: 1, ..NONE };

#[test]
fn without_the_account_lock_two_jobs_pass_the_check() {
    let without = Without { account_lock: true, ..Without::default() };
    let harm = harm("without the account lock", Setting { without, ..rivals(NONE) });
    assert!(harm.starts_with("D4") || harm.starts_with("R1"), "{harm}");
}

#[test]
fn without_reading_rows_again_a_stored_charge_is_denied() {
    let without = Without { rows: true, ..Without::default() };
    let harm = harm("without reading the rows", Setting { without, ..twins(LOST) });
    assert!(harm.starts_with("D5"), "{harm}");
}

#[test]
fn without_reading_lost_commits_a_job_is_charged_without_work() {
    let harm = harm("without looking again", Setting { trusts_silence: true, ..twins(LOST) });
    assert!(harm.contains("its work was not begun"), "{harm}");
}

#[test]
fn without_reading_unfinished_jobs_a_cut_job_is_told_done() {
    let without = Without { unfinished: true, ..Without::default() };
    let crash = Faults { crashes: 1, ..NONE };
    let harm = harm("without unfinished jobs", Setting { without, ..duplicates(crash) });
    assert!(harm.starts_with("J1"), "{harm}");
}

#[test]
fn commands_of_one_account_in_two_lanes_are_noticed() {
    let held = Faults { holds: 1, ..NONE };
    let harm =
        harm("forgetting the lane", Setting { lanes: true, planted: Some(PlantedFault::ForgetsLanes), ..twins(held) });
    assert!(harm.starts_with("L1"), "{harm}");
}

#[test]
fn accounts_that_stay_in_a_lane_without_connection_are_noticed() {
    let (held, planted) = (Faults { holds: 1, ..NONE }, Some(PlantedFault::StrandsAccounts));
    let harm = harm("stranding accounts", Setting { lanes: true, no_second: true, planted, ..twins(held) });
    assert!(harm.starts_with("L2"), "{harm}");
}

/// Removing the unique index alone does no harm, because the account lock keeps duplicates apart: it is a second
/// defence. The test removes the lock as well: with the index a duplicate is rejected, without it the job is charged
/// twice.
#[test]
fn the_unique_index_is_a_second_defence() {
    let pair = || {
        let first = want("a", 60);
        let twin = Want { process: 1, ..want("a", 60) };
        Setting::new("pair", vec![first, twin])
    };
    let no_index = Without { unique_index: true, ..Without::default() };
    let no_lock = Without { account_lock: true, ..Without::default() };
    let neither = Without { unique_index: true, account_lock: true, ..Without::default() };
    for setting in [duplicates(LOST), rivals(NONE), reservations(LOST, true)] {
        let found = explore(Setting { without: no_index, ..setting }, Search::Farthest, 100_000);
        assert!(found.violation.is_none(), "{found:?}");
    }
    let found = explore(Setting { without: no_lock, ..pair() }, Search::Nearest, 100_000);
    assert!(found.violation.is_none() && found.ends > 0, "{found:?}");
    let harm = harm("without the account lock and the unique index", Setting { without: neither, ..pair() });
    assert!(harm.starts_with("D1") || harm.starts_with("D4"), "{harm}");
}
