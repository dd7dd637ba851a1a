//! More reservations fall due at once than one lock is held for.

use super::*;
use crate::quota::{
    account::{CloseResult, Denial},
    store::{PlanLookup, ReservationKey},
};

const TTL: u64 = 300_000_000_000;

/// Accounts with a plan of 500 requests an hour.
fn scene(most: usize) -> Scene {
    let plan = Plan::new("plan").limit(Quota::requests(500).per(Period::hour()));
    Scene { plan: Arc::new(plan), ..Scene::new(most) }
}

impl Scene {
    /// Reserves and detaches one request.
    fn lose(&self, number: u8) -> Result<ReservationKey, AdmitError> {
        let (client, amounts) = (client(number), Amounts::from(("requests", 1)));
        let charge =
            ChargeRequest { amounts: &amounts, each: &[], reserve: true, lasting: false, open: true, job: None };
        let request = AdmitRequest { account: self.context(&client), charge, wants_nearest: false, wants_usage: false };
        let receipt = at_once(self.accounts.admit(&request))?.receipt;
        let key = self.accounts.reservation_key(&receipt);
        self.accounts.settle(&receipt, &Settlement::Detached, self.now);
        Ok(key)
    }

    /// Loses 500 reservations, and returns the scene at the time at which all have expired.
    fn after_a_burst(most: usize, number: u8) -> (Self, ReservationKey) {
        let scene = scene(most);
        let keys: Vec<_> = (0..500).map(|_| scene.lose(number).unwrap()).collect();
        assert!(scene.admit(number, ("requests", 1)).is_err());
        (scene.at(TTL), keys.into_iter().next_back().unwrap())
    }

    fn lookup(&self) -> PlanLookup {
        let plan = Arc::clone(&self.plan);
        Arc::new(move |_| Arc::clone(&plan))
    }
}

#[test]
fn admission_has_the_room_of_all_that_expired() {
    for most in [10, 0] {
        let (later, _) = Scene::after_a_burst(most, 1);
        let admission = later.admit(1, ("requests", 500)).unwrap();
        assert_eq!(admission.receipt.shared, most == 0);
        assert!(later.admit(1, ("requests", 1)).is_err());
    }
}

#[test]
fn reads_see_all_that_expired() {
    let (later, _) = Scene::after_a_burst(10, 1);
    let usage = later.usage(1);
    assert_eq!((usage.limits[0].reserved, usage.limits[0].remaining), (0, 500));
    let (later, _) = Scene::after_a_burst(10, 1);
    at_once(later.accounts.check(&later.context(&client(1)), &("requests", 500).into())).unwrap();
    let (later, _) = Scene::after_a_burst(10, 1);
    let (clients, next) = at_once(later.accounts.page(None, 10, later.lookup(), later.now)).unwrap();
    assert_eq!((clients.len(), clients[0].1.limits[0].reserved, next.is_none()), (1, 0, true));
}

#[test]
fn close_in_a_burst_finds_its_reservation_expired() {
    let (later, key) = Scene::after_a_burst(10, 1);
    let actual = Amounts::from(("requests", 2));
    let (result, _) = at_once(later.accounts.close(&key, Some(&actual), later.lookup(), later.now)).unwrap();
    assert_eq!((result, later.used(1)), (CloseResult::Expired, vec![2]));
}

#[test]
fn client_with_expired_reservations_is_forgotten_in_turn() {
    let (later, _) = Scene::after_a_burst(10, 1);
    later.sweep();
    assert_eq!(later.population(), 1, "some are still to expire, and all are remembered");
    let later = later.at(HOUR);
    (0..20).for_each(|_| later.sweep());
    assert_eq!(later.population(), 0);
}

#[test]
fn too_many_reservations_are_refused_and_charges_are_not() {
    let scene = Scene { plan: Arc::new(Plan::new("free").limit(Quota::concurrent(9))), ..scene(10) };
    (0..1_000).for_each(|_| drop(scene.lose(1).unwrap()));
    let refused = scene.lose(1).unwrap_err();
    let AdmitError::Denied { denial: Denial::Reservations(wait), .. } = refused else { panic!("{refused:?}") };
    assert_eq!(wait, Duration::from_nanos(TTL));
    scene.admit(1, ("requests", 1)).unwrap();
    scene.lose(2).unwrap();
    scene.at(TTL).lose(1).unwrap();
}
