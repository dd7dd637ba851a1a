//! Blank accounts are forgotten, and no others.

use super::*;
use crate::quota::store::Bookmark;

#[test]
fn clients_without_usage_in_live_periods_are_evicted() {
    let scene = Scene::new(100);
    for number in 0..50 {
        let admission = scene.admit(number, ("requests", 1)).unwrap();
        scene.served(&admission);
    }
    scene.admit(50, ("tokens", 1)).map(|admission| scene.served(&admission)).unwrap();
    let later = scene.at(HOUR);
    scene.accounts.sweep(scene.at(HOUR - 1).now);
    assert_eq!(scene.population(), 51, "their hour is not over");
    later.accounts.sweep(later.now);
    assert_eq!((later.population(), later.used(50)[1]), (1, 1), "a day is longer than an hour");
}

#[test]
fn whoever_holds_a_slot_has_reserved_or_is_served_stays() {
    let scene = Scene::new(100);
    let slot = scene.admit(1, ("concurrent_requests", 1)).unwrap();
    let served = scene.admit(2, ("requests", 1)).unwrap();
    let later = scene.at(HOUR);
    later.accounts.sweep(later.now);
    assert_eq!(later.population(), 2);
    later.served(&slot);
    later.served(&served);
    later.accounts.sweep(later.now);
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

#[test]
fn a_clock_that_steps_back_gives_the_forgotten_no_second_hour() {
    let scene = Scene::new(100);
    scene.admit(1, ("requests", 10)).map(|admission| scene.served(&admission)).unwrap();
    let later = scene.at(HOUR);
    later.accounts.sweep(later.now);
    assert_eq!(later.population(), 0);
    scene.admit(1, ("requests", 10)).map(|admission| scene.served(&admission)).unwrap(); // the clock is back
    assert!(later.admit(1, ("requests", 1)).is_err(), "what was used then is used of the later hour");
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
