//! Settings: callers that meet, and the faults around them.

use super::*;

pub(super) fn show(found: &Found) {
    if let Some(violation) = &found.violation {
        println!("{}", violation.what);
        for (at, action) in violation.trace.iter().enumerate() {
            println!("  {at:2}  {action:?}");
        }
    }
}

fn holds(setting: Setting, search: Search, most: usize) -> usize {
    let name = setting.name;
    let found = explore(setting, search, most);
    println!("{name}: {} states, {} ends", found.states, found.ends);
    show(&found);
    assert!(found.violation.is_none(), "{name}: {:?}", found.violation);
    assert!(found.ends > 0 || found.states >= most, "{name} never ends");
    found.states
}

/// The same job through both processes, and another of the same id; a caller without a reply asks again.
pub(super) fn duplicates(faults: Faults) -> Setting {
    let first = Want { tries: 2, may_void: true, ..want("a", 60) };
    let twin = Want { process: 1, ..want("a", 60) };
    let other = Want { fingerprint: 8, ..want("a", 30) };
    Setting { faults, ..Setting::new("duplicates", vec![first, twin, other]) }
}

/// The same job twice in one process.
pub(super) fn twins(faults: Faults) -> Setting {
    let first = Want { tries: 2, may_void: true, ..want("a", 60) };
    let twin = Want { tries: 2, ..want("a", 60) };
    Setting { faults, processes: 1, ..Setting::new("twins", vec![first, twin]) }
}

/// Jobs of which one at a time fits, and one of another tenant.
pub(super) fn rivals(faults: Faults) -> Setting {
    let rival = Want { process: 1, may_void: true, ..want("b", 60) };
    let small = Want { process: 1, ..want("c", 40) };
    let stranger = Want { key: super::super::key("zenith", "a"), ..want("a", 100) };
    let first = Want { tries: 2, ..want("a", 60) };
    Setting { faults, ..Setting::new("rivals", vec![first, rival, small, stranger]) }
}

/// Reservations that are settled, voided or forgotten while the other process sweeps expired ones.
pub(super) fn reservations(faults: Faults, charge_expired: bool) -> Setting {
    let first = Want { reserves: true, tries: 2, may_void: true, may_forget: true, actual: 20, ..want("a", 60) };
    let rival = Want { process: 1, ..want("b", 60) };
    Setting { faults, charge_expired, ..Setting::new("reservations", vec![first, rival]) }
}

pub(super) const NONE: Faults =
    Faults { lost: 0, again: 0, rejected: 0, crashes: 0, leaves: 0, hours: 0, holds: 0, refusals: 0 };

#[test]
fn duplicates_are_charged_once() {
    holds(duplicates(Faults { lost: 1, ..NONE }), Search::Nearest, 50_000);
    holds(duplicates(Faults { crashes: 1, ..NONE }), Search::Nearest, 50_000);
    holds(duplicates(Faults { leaves: 1, ..NONE }), Search::Nearest, 50_000);
    holds(duplicates(Faults { again: 1, ..NONE }), Search::Nearest, 50_000);
}

#[test]
fn cancelled_caller_is_not_charged_and_no_duplicate_is_done() {
    holds(twins(Faults { leaves: 1, ..NONE }), Search::Nearest, 50_000);
    holds(twins(Faults { leaves: 1, lost: 1, ..NONE }), Search::Nearest, 50_000);
    holds(twins(Faults { leaves: 1, again: 1, lost: 1, ..NONE }), Search::Nearest, 50_000);
    holds(twins(Faults { leaves: 1, hours: 1, lost: 1, ..NONE }), Search::Nearest, 50_000);
    holds(twins(Faults { lost: 3, ..NONE }), Search::Nearest, 50_000);
}

#[test]
fn rivals_do_not_pass_the_limit_together() {
    holds(rivals(NONE), Search::Nearest, 50_000);
    holds(rivals(Faults { lost: 1, ..NONE }), Search::Nearest, 50_000);
}

#[test]
fn rejected_orders_fail_alone() {
    for lost in [0, 1] {
        holds(duplicates(Faults { rejected: 1, lost, ..NONE }), Search::Nearest, 50_000);
        holds(twins(Faults { rejected: 1, lost, leaves: 1, ..NONE }), Search::Nearest, 50_000);
        holds(rivals(Faults { rejected: 1, lost, ..NONE }), Search::Nearest, 50_000);
        holds(reservations(Faults { rejected: 1, lost, ..NONE }, lost > 0), Search::Nearest, 50_000);
    }
    holds(twins(Faults { rejected: 2, again: 1, ..NONE }), Search::Nearest, 50_000);
}

#[test]
fn a_reservation_ends_once() {
    holds(reservations(Faults { crashes: 1, ..NONE }, true), Search::Nearest, 50_000);
    holds(reservations(Faults { lost: 1, ..NONE }, false), Search::Nearest, 50_000);
    holds(reservations(Faults { leaves: 1, ..NONE }, false), Search::Nearest, 50_000);
}

/// Two processes with two lanes each contend for an account, and another program holds it for a while.
#[test]
fn an_account_is_in_one_lane_and_charged_once() {
    let lanes = |setting: Setting| Setting { lanes: true, ..setting };
    let held = Faults { holds: 1, ..NONE };
    holds(lanes(rivals(held)), Search::Nearest, 100_000);
    holds(lanes(twins(Faults { leaves: 1, ..held })), Search::Nearest, 100_000);
    holds(lanes(twins(Faults { lost: 1, ..held })), Search::Nearest, 100_000);
    holds(lanes(twins(Faults { again: 1, rejected: 1, ..held })), Search::Nearest, 100_000);
    holds(lanes(duplicates(held)), Search::Nearest, 100_000);
    holds(lanes(reservations(held, true)), Search::Nearest, 100_000);
}

/// Second lanes have no connection for ever, or for a while. Each state is followed up without further faults: an
/// account that no transaction holds is served in few steps.
#[test]
fn account_is_served_while_the_second_lane_is_away() {
    let away = |setting: Setting| Setting { lanes: true, no_second: true, ..setting };
    let held = Faults { holds: 1, ..NONE };
    holds(away(twins(Faults { leaves: 1, ..held })), Search::Nearest, 30_000);
    holds(away(twins(Faults { lost: 1, ..held })), Search::Nearest, 30_000);
    holds(away(reservations(held, true)), Search::Nearest, 30_000);
    let comes_and_goes = |setting: Setting| Setting { lanes: true, times_out: true, ..setting };
    let refused = Faults { refusals: 1, ..held };
    holds(comes_and_goes(twins(Faults { lost: 1, ..refused })), Search::Nearest, 30_000);
    holds(comes_and_goes(twins(Faults { leaves: 1, ..refused })), Search::Nearest, 30_000);
    holds(comes_and_goes(reservations(refused, true)), Search::Nearest, 30_000);
}

/// More than four million states; each setting is searched completely.
#[test]
#[ignore = "minutes: millions of states"]
fn no_violation_in_millions_of_states() {
    let settings = [
        twins(Faults { lost: 2, leaves: 1, again: 1, hours: 1, crashes: 1, ..NONE }),
        twins(Faults { lost: 3, leaves: 2, again: 0, hours: 0, crashes: 0, ..NONE }),
        duplicates(Faults { lost: 1, leaves: 1, again: 1, crashes: 1, ..NONE }),
        duplicates(Faults { lost: 2, crashes: 1, ..NONE }),
        rivals(Faults { lost: 1, leaves: 1, ..NONE }),
        rivals(Faults { lost: 1, rejected: 1, ..NONE }),
        twins(Faults { lost: 1, leaves: 1, rejected: 2, ..NONE }),
        reservations(Faults { lost: 1, leaves: 1, crashes: 1, ..NONE }, true),
        reservations(Faults { lost: 2, leaves: 1, again: 1, hours: 0, crashes: 0, ..NONE }, false),
        Setting { lanes: true, ..twins(Faults { lost: 2, leaves: 1, holds: 1, ..NONE }) },
        Setting { lanes: true, ..rivals(Faults { lost: 1, holds: 1, ..NONE }) },
        Setting { lanes: true, no_second: true, ..twins(Faults { lost: 1, leaves: 1, holds: 2, ..NONE }) },
        Setting { lanes: true, no_second: true, ..rivals(Faults { holds: 1, ..NONE }) },
        Setting { lanes: true, times_out: true, ..twins(Faults { lost: 1, leaves: 1, holds: 1, refusals: 1, ..NONE }) },
    ];
    let states: usize = settings.into_iter().map(|setting| holds(setting, Search::Farthest, 3_000_000)).sum();
    println!("{states} states in all");
    assert!(states >= 4_000_000, "{states}");
}
