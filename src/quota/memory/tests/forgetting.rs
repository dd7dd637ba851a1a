//! Blank accounts are forgotten, and no others.

use super::*;
use crate::quota::{account::Denial, store::Bookmark};

const MINUTE: u64 = HOUR / 60;

#[test]
fn clients_without_usage_in_live_periods_are_evicted() {
    let scene = Scene::new(100);
    for number in 0..50 {
        let admission = scene.admit(number, ("requests", 1)).unwrap();
        scene.served(&admission);
    }
    scene.admit(50, ("tokens", 1)).map(|admission| scene.served(&admission)).unwrap();
    let later = scene.at(HOUR);
    scene.at(HOUR - 1).sweep();
    assert_eq!(scene.population(), 51, "their hour is not over");
    later.sweep();
    assert_eq!((later.population(), later.used(50)[1]), (1, 1), "a day is longer than an hour");
}

#[test]
fn requests_of_one_client_forget_all_idle_ones() {
    let scene = Scene::wide();
    (0..2_000).for_each(|number| scene.once(number));
    assert_eq!(scene.population(), 2_000);
    let later = scene.at(HOUR);
    // A sixteenth of them visits an account, and the shards are not equally full.
    (0..16 * 2_000 * 3).for_each(|_| later.once(7));
    assert_eq!(later.population(), 1);
}

#[test]
fn newcomers_keep_the_number_of_idle_clients_small() {
    let (mut scene, mut most) = (Scene::wide(), 0);
    // A hundred new clients a minute, each with an hour of its own.
    for minute in 0..600 {
        scene = scene.at(minute * MINUTE);
        (0..100).for_each(|number| scene.once(u16::try_from(minute * 100 + number).unwrap()));
        most = most.max(scene.population());
    }
    assert!(most <= 6_000 * 4 / 3 + 600, "{most} clients, of which 6,000 are not idle");
}

impl Scene {
    /// Room for many clients, in many shards.
    fn wide() -> Self {
        Self {
            plan: Arc::new(
                Plan::new("wide").limit(Quota::requests(1 << 40).per(Period::rolling(Duration::from_nanos(HOUR)))),
            ),
            ..Self::new(100_000)
        }
    }

    /// Charges one request of one of many clients.
    fn once(&self, number: u16) {
        let client = Client::named(format!("client {number}"));
        let amounts = Amounts::from(("requests", 1));
        let charge =
            ChargeRequest { amounts: &amounts, each: &[], reserve: false, lasting: false, open: false, job: None };
        let account = self.context(&client);
        at_once(self.accounts.admit(&AdmitRequest { account, charge, wants_nearest: false, wants_usage: false }))
            .unwrap();
    }
}

#[test]
fn whoever_holds_a_slot_has_reserved_or_is_served_stays() {
    let scene = Scene::new(100);
    let slot = scene.admit(1, ("concurrent_requests", 1)).unwrap();
    let served = scene.admit(2, ("requests", 1)).unwrap();
    let later = scene.at(HOUR);
    later.sweep();
    assert_eq!(later.population(), 2);
    later.served(&slot);
    later.served(&served);
    later.sweep();
    assert_eq!(later.population(), 0);
}

#[test]
fn late_settlement_of_an_evicted_client_changes_no_other() {
    let scene = Scene::new(1);
    let (first, amounts) = (client(1), Amounts::from(("requests", 4)));
    let ask = ChargeRequest { amounts: &amounts, each: &[], reserve: false, lasting: false, open: false, job: None };
    let order = AdmitRequest { account: scene.context(&first), charge: ask, wants_nearest: false, wants_usage: false };
    let old = at_once(scene.accounts.admit(&order)).unwrap();
    let later = scene.at(HOUR);
    let new = later.admit(2, ("requests", 7)).unwrap();
    assert!(!new.receipt.shared, "the first has left its place to the second");
    later.void(&old, ("requests", 4));
    assert_eq!(later.used(2)[0], 7);
}

/// Returns the wait that a refused charge of one request names.
fn wait(scene: &Scene, number: u8) -> u64 {
    match scene.admit(number, ("requests", 1)).unwrap_err() {
        AdmitError::Denied { denial: Denial::Limits(violations), .. } => {
            crate::time::nanos(violations[0].wait.unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn clock_set_back_gives_a_client_no_second_hour() {
    let scene = Scene::new(100);
    scene.admit(1, ("requests", 10)).map(|admission| scene.served(&admission)).unwrap();
    let ahead = scene.at_wall(MINUTE, 11 * HOUR);
    ahead.sweep();
    assert_eq!(ahead.population(), 1, "its hour has not passed by the other clock");
    let right = scene.at(2 * MINUTE);
    assert_eq!(wait(&right, 1), HOUR - 2 * MINUTE);
    let later = scene.at(HOUR + 2 * MINUTE);
    later.sweep();
    assert_eq!(later.population(), 0);
    later.admit(1, ("requests", 10)).unwrap();
}

#[test]
fn window_of_a_late_record_is_given_no_second_time() {
    let scene = Scene::new(100);
    let admission = scene.admit(1, ("requests", 0)).unwrap();
    let (used, none) = (Amounts::from(("requests", 10)), Amounts::new());
    let late = scene.at(2 * HOUR - MINUTE);
    late.accounts.settle(&admission.receipt, &Settlement::Served { used: &used, actual: &none }, late.now);
    scene.at(2 * HOUR).sweep();
    assert_eq!(scene.population(), 1, "a minute has passed since the record");
    assert!(scene.at_wall(2 * HOUR + MINUTE, HOUR + 30 * MINUTE).admit(1, ("requests", 1)).is_err());
    let later = scene.at(3 * HOUR + MINUTE); // an hour after the last call
    later.sweep();
    assert_eq!(later.population(), 0);
}

#[test]
fn only_a_client_seen_ahead_waits_and_as_told() {
    let scene = Scene::new(100);
    let ahead = scene.at_wall(0, 11 * HOUR);
    for (number, amount) in [(1, 10), (2, 0)] {
        ahead.admit(number, ("requests", amount)).map(|admission| ahead.served(&admission)).unwrap();
    }
    let right = scene.at(MINUTE);
    right.sweep();
    assert_eq!(right.population(), 2);
    right.admit(2, ("requests", 10)).unwrap();
    right.admit(3, ("requests", 10)).unwrap();
    for (number, told) in [(1, 12 * HOUR - MINUTE), (2, 12 * HOUR - MINUTE), (3, HOUR - MINUTE)] {
        assert_eq!(wait(&right, number), told, "client {number}");
        assert!(scene.at(MINUTE + told - 1).admit(number, ("requests", 1)).is_err(), "client {number}");
    }
    for number in [3, 1, 2] {
        scene.at(if number == 3 { HOUR } else { 12 * HOUR }).admit(number, ("requests", 1)).unwrap();
    }
}

#[test]
fn room_that_is_needed_is_taken_from_ended_windows_at_once() {
    let scene = Scene::new(1);
    let late = scene.at(HOUR - MINUTE);
    late.admit(1, ("requests", 10)).map(|admission| late.served(&admission)).unwrap();
    let later = scene.at(HOUR);
    later.sweep();
    assert_eq!(later.population(), 1);
    assert!(!later.admit(2, ("requests", 1)).unwrap().receipt.shared);
}

#[test]
fn newcomers_beyond_the_cap_share_one_account() {
    let scene = Scene::new(2);
    for number in [1, 2] {
        scene.admit(number, ("requests", 3)).map(|admission| scene.served(&admission)).unwrap();
    }
    let shared = (3..=4).map(|number| scene.admit(number, ("requests", 5)).unwrap().receipt.shared);
    assert_eq!(shared.collect::<Vec<_>>(), [true, true]);
    let refused = scene.admit(5, ("requests", 1)).unwrap_err();
    assert!(matches!(refused, AdmitError::Denied { shared: true, .. }), "ten were for all of them together");
    assert_eq!((scene.used(1)[0], scene.used(2)[0], scene.population()), (3, 3, 2));
    scene.admit(1, ("requests", 7)).unwrap();
}

#[test]
fn shared_accounts_are_kept_per_plan() {
    let scene = Scene::new(1);
    scene.admit(1, ("requests", 1)).unwrap();
    scene.admit(2, ("requests", 10)).unwrap();
    let pro = Plan::new("pro").limit(Quota::requests(10).per(Period::hour()));
    let pro = Scene { plan: Arc::new(pro), ..scene.clone() };
    pro.admit(3, ("requests", 10)).unwrap();
    assert!(pro.admit(4, ("requests", 1)).is_err());
    assert!(scene.admit(4, ("requests", 1)).is_err());
}

#[test]
fn bookmark_of_another_store_lists_no_client() {
    let scene = Scene::new(10);
    scene.admit(1, ("requests", 1)).unwrap();
    let plan = Arc::clone(&scene.plan);
    let page = |from: Option<&Bookmark>| {
        let plan = Arc::clone(&plan);
        at_once(scene.accounts.page(from, 10, Arc::new(move |_| Arc::clone(&plan)), scene.now)).unwrap()
    };
    assert_eq!(page(None).0.len(), 1);
    let (clients, next) = page(Some(&Bookmark::After("alice".into())));
    assert!(clients.is_empty() && next.is_none());
}
