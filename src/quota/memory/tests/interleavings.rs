//! Every interleaving of two threads: `RUSTFLAGS="--cfg tollgate_loom" cargo test --release --lib loom_`.

use loom::thread;

use super::*;

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

#[test]
fn loom_last_unit_goes_once_and_all_limits_or_none_are_charged() {
    model(|| {
        let scene = Scene::new(10);
        let other = scene.clone();
        let second = thread::spawn(move || other.admit(1, [("requests", 6), ("tokens", 2)]).is_ok());
        let first = scene.admit(1, [("requests", 6), ("tokens", 2)]).is_ok();
        assert!(first ^ second.join().unwrap());
        assert_eq!(scene.used(1), [6, 2, 0]);
    });
}

#[test]
fn loom_one_limit_refuses_and_no_other_is_charged() {
    model(|| {
        let scene = Scene::new(10);
        let other = scene.clone();
        // Both have room for requests; only one of them for tokens.
        let second = thread::spawn(move || other.admit(1, [("requests", 2), ("tokens", 4)]).is_ok());
        let first = scene.admit(1, [("requests", 2), ("tokens", 3)]).is_ok();
        let second = second.join().unwrap();
        assert!(first ^ second);
        assert_eq!(scene.used(1), [2, if first { 3 } else { 4 }, 0]);
    });
}

#[test]
fn loom_whoever_looks_sees_all_limits_charged_or_none() {
    model(|| {
        let scene = Scene::new(10);
        let other = scene.clone();
        let charges = thread::spawn(move || {
            other.admit(1, [("requests", 1), ("tokens", 1), ("concurrent_requests", 1)]).unwrap()
        });
        let seen = scene.used(1);
        assert!(seen == [0, 0, 0] || seen == [1, 1, 1], "{seen:?}");
        let admission = charges.join().unwrap();
        scene.served(&admission);
        assert_eq!(scene.used(1), [1, 1, 0]);
    });
}

#[test]
fn loom_what_goes_back_is_neither_lost_nor_doubled() {
    model(|| {
        let scene = Scene::new(10);
        let all = || [("requests", 10), ("tokens", 5)];
        let admission = scene.admit(1, all()).unwrap();
        let other = scene.clone();
        let back = thread::spawn(move || other.void(&admission, all()));
        let took = scene.admit(1, all()).is_ok();
        back.join().unwrap();
        assert_eq!(scene.used(1), if took { [10, 5, 0] } else { [0, 0, 0] });
    });
}

#[test]
fn loom_a_slot_has_one_holder() {
    model(|| {
        let scene = Scene::new(10);
        let other = scene.clone();
        let holds =
            |scene: &Scene| scene.admit(1, ("concurrent_requests", 1)).map(|admission| scene.served(&admission));
        let second = thread::spawn(move || holds(&other).is_ok());
        let first = holds(&scene).is_ok();
        assert!(second.join().unwrap() || first);
        assert_eq!(scene.used(1)[2], 0);
        assert!(scene.admit(1, ("concurrent_requests", 1)).is_ok());
    });
}

/// Two newcomers at once, where there is room for one.
fn one_of_two_has_an_account(scene: &Scene) {
    let other = scene.clone();
    let second = thread::spawn(move || other.admit(2, ("requests", 1)).unwrap().receipt.shared);
    let first = scene.admit(1, ("requests", 1)).unwrap().receipt.shared;
    assert!(first ^ second.join().unwrap(), "one has an account of its own");
    assert_eq!(scene.population(), 1);
}

#[test]
fn loom_newcomers_never_pass_the_cap() {
    model(|| one_of_two_has_an_account(&Scene::new(1)));
}

#[test]
fn loom_newcomers_of_a_cohort_never_pass_its_part() {
    model(|| one_of_two_has_an_account(&Scene::with_room(10, 1)));
}

#[test]
fn loom_place_of_a_forgotten_account_is_taken_once() {
    model(|| {
        let scene = Scene::with_room(10, 1);
        scene.admit(1, ("requests", 1)).map(|admission| scene.served(&admission)).unwrap();
        let (later, sweeps) = (scene.at(HOUR), scene.at(HOUR));
        let sweep = thread::spawn(move || sweeps.sweep());
        assert!(!later.admit(2, ("requests", 1)).unwrap().receipt.shared);
        sweep.join().unwrap();
        assert!(later.admit(3, ("requests", 1)).unwrap().receipt.shared);
        assert_eq!(later.population(), 1);
    });
}

#[test]
fn loom_nobody_is_forgotten_who_comes_back_in_time() {
    model(|| {
        let scene = Scene::new(10);
        let admission = scene.admit(1, ("requests", 1)).unwrap();
        scene.served(&admission);
        let (later, sweeps) = (scene.at(HOUR), scene.at(HOUR));
        let sweep = thread::spawn(move || sweeps.sweep());
        later.admit(1, ("requests", 2)).unwrap();
        sweep.join().unwrap();
        assert_eq!((later.used(1)[0], later.population()), (2, 1));
    });
}

/// Whether a job of client 1 begins.
fn begins(scene: &Scene) -> bool {
    scene.begin(&client(1), 7).is_ok()
}

#[test]
fn loom_job_begins_once_while_a_place_becomes_free() {
    model(|| {
        let scene = Scene::new(1);
        scene.admit(2, ("requests", 1)).map(|admission| scene.served(&admission)).unwrap();
        let later = scene.at(HOUR); // when the place of the other client can be taken
        let second = thread::spawn(move || begins(&later));
        let first = begins(&scene);
        assert!(first ^ second.join().unwrap());
    });
}

#[test]
fn loom_job_begins_once_in_the_shared_accounts_of_two_plans() {
    model(|| {
        let scene = Scene::new(0);
        let other = scene.under_pro();
        let second = thread::spawn(move || begins(&other));
        let first = begins(&scene);
        assert!(first ^ second.join().unwrap());
    });
}
