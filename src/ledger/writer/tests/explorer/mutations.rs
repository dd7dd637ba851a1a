//! What is taken away is missed: each test prints the shortest way to the harm.

use super::{
    settings::{NONE, duplicates, reservations, rivals, show, twins},
    *,
};
use crate::ledger::writer::tests::model::Without;

/// The harm that is done, with the shortest way to it.
fn harm(name: &'static str, setting: Setting) -> String {
    let found = explore(Setting { name, ..setting }, Search::Nearest, 500_000);
    println!("{name}: {} states", found.states);
    show(&found);
    found.violation.unwrap_or_else(|| panic!("{name}: nobody has noticed in {} states", found.states)).what
}

const LOST: Faults = Faults { lost: 1, ..NONE };

#[test]
fn without_the_lock_of_the_account_two_jobs_pass_the_check_together() {
    let without = Without { account_lock: true, ..Without::default() };
    let harm = harm("without the account lock", Setting { without, ..rivals(NONE) });
    assert!(harm.starts_with("D4") || harm.starts_with("R1"), "{harm}");
}

#[test]
fn without_reading_the_rows_again_a_charge_is_denied_that_was_made() {
    let without = Without { rows: true, ..Without::default() };
    let harm = harm("without reading the rows", Setting { without, ..twins(LOST) });
    assert!(harm.starts_with("D5"), "{harm}");
}

#[test]
fn without_looking_for_a_lost_commit_a_job_is_charged_that_nobody_works_on() {
    let harm = harm("without looking again", Setting { trusts_silence: true, ..twins(LOST) });
    assert!(harm.contains("nobody has worked on it"), "{harm}");
}

/// Taken away alone the unique index is not missed, because the lock of the account keeps duplicates apart: it is a second
/// defence. So it is shown where the first one has fallen too: with it a duplicate is kept out, without it the job is
/// charged twice.
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
