//! Reads change no account.

use super::*;
use crate::quota::store::PlanLookup;

fn pro() -> Arc<Plan> {
    Arc::new(Plan::new("pro").limit(Quota::requests(1_000).per(Period::month())))
}

/// Returns the name of the plan that the list of all clients shows, and the used amount of its first limit.
fn listed(scene: &Scene) -> Vec<(String, u64)> {
    let free = Arc::clone(&scene.plan);
    let plan_of: PlanLookup = Arc::new(move |client| if client.tier().is_some() { pro() } else { Arc::clone(&free) });
    let (clients, _) = at_once(scene.accounts.page(None, 10, plan_of, scene.now)).unwrap();
    clients.iter().map(|(_, usage)| (usage.plan.to_string(), usage.limits[0].used)).collect()
}

#[test]
fn read_under_another_tier_moves_no_account() {
    let free = Scene::new(10);
    let by_tier = client(1).with_tier("pro");
    let plan = pro();
    let context = AccountContext { client: &by_tier, plan: &plan, now: free.now };
    at_once(free.accounts.record(&context, &Amounts::from(("requests", 700)))).unwrap();
    for _ in 0..2 {
        // As free: its usage, a check, and its grants.
        assert_eq!(free.used(1), [0, 0, 0]);
        assert!(at_once(free.accounts.check(&free.context(&client(1)), &("requests", 11).into())).is_err());
        assert!(at_once(free.accounts.grants(&free.context(&client(1)))).unwrap().is_empty());
        assert_eq!(listed(&free), [("pro".to_owned(), 700)]);
        let usage = at_once(free.accounts.usage(&context)).unwrap();
        assert_eq!((usage.plan.as_str(), usage.limits[0].used), ("pro", 700));
    }
    free.admit(1, ("requests", 3)).unwrap();
    assert_eq!(listed(&free), [("plan".to_owned(), 3)], "the tier that it had last");
    at_once(free.accounts.record(&context, &Amounts::from(("requests", 1)))).unwrap();
    assert_eq!(listed(&free), [("pro".to_owned(), 701)]);
}

#[test]
fn read_in_a_later_window_ends_none() {
    let scene = Scene::new(10);
    scene.admit(1, ("requests", 4)).unwrap();
    assert_eq!(scene.at(HOUR).used(1)[0], 0);
    assert_eq!(scene.used(1)[0], 4, "the clock was ahead for a moment");
}

#[test]
fn read_under_another_plan_keeps_the_number_of_slots() {
    let scene = Scene::new(10);
    let held = scene.admit(1, ("concurrent_requests", 1)).unwrap();
    let five = Arc::new(Plan::new("five").limit(Quota::concurrent(5)));
    let more = Scene { plan: Arc::clone(&five), ..scene.clone() };
    assert_eq!((more.used(1), more.usage(1).limits[0].remaining), (vec![1], 4));
    assert!(at_once(more.accounts.check(&more.context(&client(1)), &("concurrent_requests", 1).into())).is_ok());
    assert!(scene.admit(1, ("concurrent_requests", 1)).is_err());
    scene.served(&held);
    scene.admit(1, ("concurrent_requests", 1)).unwrap();
    assert!(scene.admit(1, ("concurrent_requests", 1)).is_err());
}
