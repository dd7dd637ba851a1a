//! Each cohort has a part of the accounts, and gives it back.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::{
    identity::{Cohort, Digester},
    quota::{Grant, account::Denial, memory::Padded},
};

/// Returns the client of an address in the network of this number, a /44.
fn peer(network: u16, host: u16) -> Client {
    let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, network << 4, host, 0, 0, 0, 7);
    Digester::process().peer(address.into())
}

fn requests(amount: u64) -> Amounts {
    Amounts::from(("requests", amount))
}

impl Scene {
    /// Counts the accounts of each cohort one by one.
    fn placed(&self) -> HashMap<Cohort, usize> {
        let mut placed = HashMap::new();
        for Padded(shard) in &self.accounts.shards {
            for cohort in shard.lock().places().filter_map(|place| place.cohort()) {
                *placed.entry(cohort).or_default() += 1;
            }
        }
        placed
    }

    /// Charges one request; returns whether the account is shared.
    fn charge(&self, client: &Client) -> Result<bool, AdmitError> {
        let admission = self.admit_client(client, requests(1))?;
        self.served(&admission);
        Ok(admission.receipt.shared)
    }
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Admit { network: u16, host: u16, holds: bool },
    Settle { nth: usize, served: bool },
    Record { network: u16, host: u16 },
    Check { network: u16, host: u16 },
    Reset { network: u16, host: u16 },
    Grant { network: u16, host: u16 },
    Sweep,
    Advance { minutes: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let who = || (0..6_u16, 0..9_u16);
    prop_oneof![
        8 => (who(), any::<bool>()).prop_map(|((network, host), holds)| Step::Admit { network, host, holds }),
        4 => (0..9_usize, any::<bool>()).prop_map(|(nth, served)| Step::Settle { nth, served }),
        2 => who().prop_map(|(network, host)| Step::Record { network, host }),
        1 => who().prop_map(|(network, host)| Step::Check { network, host }),
        1 => who().prop_map(|(network, host)| Step::Reset { network, host }),
        1 => who().prop_map(|(network, host)| Step::Grant { network, host }),
        1 => Just(Step::Sweep),
        1 => (0..90_u64).prop_map(|minutes| Step::Advance { minutes }),
    ]
}

proptest! {
    #[test]
    fn counts_of_cohorts_are_those_of_their_accounts(steps in prop::collection::vec(step(), 1..150)) {
        let mut scene = Scene::with_room(20, 5);
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Admit { network, host, holds } => match scene.admit_client(&peer(network, host), requests(1)) {
                    Ok(admission) if holds => held.push(admission),
                    Ok(admission) => scene.served(&admission),
                    Err(_) => {}
                },
                Step::Settle { nth, served } if nth < held.len() => {
                    let admission = held.swap_remove(nth);
                    if served { scene.served(&admission) } else { scene.void(&admission, requests(1)) }
                }
                Step::Settle { .. } => {}
                Step::Record { network, host } => {
                    let client = peer(network, host);
                    at_once(scene.accounts.record(&scene.context(&client), &requests(1))).unwrap();
                }
                Step::Check { network, host } => {
                    let _ = at_once(scene.accounts.check(&scene.context(&peer(network, host)), &requests(1)));
                }
                Step::Reset { network, host } => {
                    // Without an account there is nothing to reset.
                    let _ = at_once(scene.accounts.reset(&scene.context(&peer(network, host)), None));
                }
                Step::Grant { network, host } => {
                    let until = std::time::UNIX_EPOCH + Duration::from_nanos(scene.now.wall + HOUR);
                    let grant = Grant::new("requests_per_hour", 1, until);
                    let _ = at_once(scene.accounts.grant(&scene.context(&peer(network, host)), grant));
                }
                Step::Sweep => scene.sweep(),
                Step::Advance { minutes } => {
                    let Now { moment, wall } = scene.now;
                    let span = Duration::from_secs(60 * minutes);
                    scene.now = Now { moment: moment + span, wall: wall + crate::time::nanos(span) };
                }
            }
            let placed = scene.placed();
            prop_assert_eq!(&scene.accounts.room.cohorts(), &placed);
            prop_assert_eq!(scene.population(), placed.values().sum::<usize>());
            prop_assert!(placed.values().all(|&live| live <= 5) && scene.population() <= 20);
        }
        for admission in held {
            scene.served(&admission);
        }
        let Now { moment, wall } = scene.now;
        scene.now = Now { moment: moment + Duration::from_nanos(48 * HOUR), wall: wall + 48 * HOUR };
        scene.sweep();
        prop_assert!(scene.accounts.room.cohorts().is_empty() && scene.population() == 0);
    }
}

#[test]
fn newcomers_of_a_full_cohort_share_one_account() {
    let scene = Scene::with_room(100, 3);
    for host in 0..3 {
        assert!(!scene.charge(&peer(1, host)).unwrap());
    }
    for host in 3..13 {
        assert!(scene.charge(&peer(1, host)).unwrap());
    }
    let refused = scene.charge(&peer(1, 99)).unwrap_err();
    assert!(matches!(refused, AdmitError::Denied { shared: true, denial: Denial::Limits(_) }), "{refused:?}");
    assert!(!scene.charge(&peer(1, 0)).unwrap(), "an account that exists is not merged");
    assert!(!scene.charge(&peer(2, 0)).unwrap(), "another network has room");
    assert_eq!(scene.population(), 4);
}

#[test]
fn full_cohorts_do_not_share_with_each_other() {
    let scene = Scene::with_room(100, 1);
    for network in 0..8 {
        assert!(!scene.charge(&peer(network, 0)).unwrap());
        for host in 1..11 {
            assert!(scene.charge(&peer(network, host)).unwrap(), "the accounts of other networks are used up");
        }
        assert!(scene.charge(&peer(network, 99)).is_err());
    }
}

#[test]
fn ended_window_gives_a_full_cohort_room_again() {
    let scene = Scene::with_room(100, 3);
    for host in 0..5 {
        scene.charge(&peer(1, host)).unwrap();
    }
    let later = scene.at(HOUR);
    for host in 5..8 {
        assert!(!later.charge(&peer(1, host)).unwrap(), "an account of the network leaves its place");
    }
    assert!(later.charge(&peer(1, 8)).unwrap());
}

#[test]
fn networks_beyond_the_shared_accounts_share_that_of_all() {
    let scene = Scene::with_room(10_000, 1);
    for network in 0..300 {
        scene.charge(&peer(network, 0)).unwrap();
    }
    for network in 0..256 {
        scene.admit_client(&peer(network, 1), requests(10)).map(|admission| scene.served(&admission)).unwrap();
    }
    let beyond = scene.admit_client(&peer(256, 1), requests(10)).unwrap();
    scene.served(&beyond);
    assert!(scene.charge(&peer(257, 1)).is_err(), "the account of all is used up");
    // The windows have ended: shared accounts are blank, and are replaced.
    let later = scene.at(2 * HOUR);
    for network in 256..266 {
        later.charge(&peer(network, 0)).unwrap();
        later.admit_client(&peer(network, 1), requests(10)).map(|admission| later.served(&admission)).unwrap();
    }
    later.void(&beyond, requests(10));
    assert!(later.charge(&peer(256, 2)).is_err(), "a late settlement changes no account of another cohort");
}

#[test]
fn clients_that_are_vouched_for_take_no_part() {
    let scene = Scene::with_room(100, 3);
    for number in 0..50 {
        let principal = crate::identity::Principal::named(format!("tenant {number}"));
        assert!(!scene.charge(&Digester::process().principal(principal).unwrap()).unwrap());
    }
    assert!(scene.accounts.room.cohorts().is_empty());
    for number in 0..5 {
        assert_eq!(scene.charge(&client(number)).unwrap(), number >= 3, "nothing vouches for these");
    }
}
