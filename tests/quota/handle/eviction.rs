//! Eviction of idle clients, and the shared account of newcomers beyond the cap.

use tollgate::JobRun;

use super::*;

/// Quotas with this many clients that will be idle in an hour.
async fn crowd(clients: usize) -> Scene {
    let scene = Scene::new(queries(10));
    for number in 0..clients {
        scene.quotas.charge(&Client::named(format!("client {number}")), ("queries", 1)).await.unwrap();
    }
    assert_eq!(scene.quotas.live_clients(), clients);
    scene
}

#[tokio::test]
async fn forget_idle_evicts_all_idle_clients_without_a_request() {
    let scene = crowd(5_000).await;
    scene.quotas.forget_idle().await;
    assert_eq!(scene.quotas.live_clients(), 5_000, "their hour is not over");
    scene.clock.advance(HOUR);
    scene.quotas.forget_idle().await;
    assert_eq!(scene.quotas.live_clients(), 0);
}

#[tokio::test]
async fn forget_idle_yields_after_a_bounded_number_of_clients() {
    let scene = crowd(10_000).await;
    scene.clock.advance(HOUR);
    let mut forget = Box::pin(scene.quotas.forget_idle());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let (mut polls, mut left) = (0, 10_000);
    while forget.as_mut().poll(&mut cx).is_pending() {
        let now = scene.quotas.live_clients();
        assert!(left - now <= 4_096 + 64, "{left} to {now}");
        (polls, left) = (polls + 1, now);
    }
    assert!(polls > 2 && left == 0, "{polls} polls");
}

#[tokio::test]
async fn dropped_forget_idle_leaves_the_others() {
    let scene = crowd(10_000).await;
    scene.clock.advance(HOUR);
    let mut forget = Box::pin(scene.quotas.forget_idle());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(forget.as_mut().poll(&mut cx).is_pending());
    drop(forget);
    let left = scene.quotas.live_clients();
    assert!((1..10_000).contains(&left), "{left}");
    scene.quotas.forget_idle().await;
    assert_eq!(scene.quotas.live_clients(), 0);
}

#[tokio::test]
async fn page_yields_after_a_bounded_number_of_clients() {
    let scene = crowd(10_000).await;
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut polls_of = |most: usize| {
        let mut page = Box::pin(scene.quotas.usage_page(None, most));
        for polls in 1.. {
            if let std::task::Poll::Ready(page) = page.as_mut().poll(&mut cx) {
                return (polls, page.unwrap().clients.len());
            }
        }
        unreachable!("a page ends")
    };
    assert_eq!(polls_of(100), (1, 100));
    let (polls, listed) = polls_of(usize::MAX);
    assert!(polls > 10_000 / 256 && listed == 10_000, "{listed} in {polls} polls");
    scene.clock.advance(HOUR);
    scene.quotas.forget_idle().await;
    scene.quotas.charge(&alice(), ("queries", 1)).await.unwrap();
    let (polls, listed) = polls_of(100);
    assert!(polls > 2 && listed == 1, "places of clients that were forgotten are visited too: {polls} polls");
}

#[test]
fn quotas_in_memory_start_no_task_and_need_no_timer() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let quotas = QuotaLayer::new(queries(10)).handle();
    runtime.block_on(async {
        quotas.charge(&alice(), ("queries", 1)).await.unwrap();
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
        quotas.forget_idle().await;
        tokio::task::yield_now().await;
    });
    assert_eq!(quotas.live_clients(), 1);
}

#[tokio::test(start_paused = true)]
async fn clients_with_live_state_are_not_evicted() {
    let plan = queries(10).limit(Quota::units("rows", 10).per(Period::rolling(3 * HOUR)));
    let quotas = QuotaLayer::new(plan).clock(tollgate::Clock::tokio()).reservations_last(2 * HOUR).handle();
    quotas.charge(&alice(), ("queries", 1)).await.unwrap();
    quotas.charge(&bob(), ("rows", 1)).await.unwrap();
    let _lost = quotas.reserve(&Client::named("carol"), ("queries", 1)).await.unwrap().detach();
    let now = std::time::SystemTime::UNIX_EPOCH + tollgate::Clock::tokio().wall();
    let grant = tollgate::Grant::new("rows_per_10800s", 5, now + 30 * HOUR);
    quotas.grant(&Client::named("dave"), grant).await.unwrap();
    let later = async |time: Duration| {
        tokio::time::sleep(time).await; // the clock is paused, so no time passes
        quotas.forget_idle().await;
        quotas.live_clients()
    };
    assert_eq!(later(HOUR).await, 3, "only alice has nothing left");
    assert_eq!(later(7 * HOUR).await, 1, "what is granted is kept");
    assert_eq!(later(24 * HOUR).await, 0);
}

#[tokio::test]
async fn newcomers_beyond_the_cap_share_one_account() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).max_clients(1_000));
    let known: Vec<_> = (0..1_000).map(|number| Client::named(format!("known {number}"))).collect();
    for client in &known {
        scene.quotas.charge(client, ("queries", 1)).await.unwrap();
    }
    scene.quotas.charge(&known[7], ("queries", 94)).await.unwrap(); // at 95 %
    assert_eq!(scene.told(), ["known 7 queries_per_hour: 95 of 100"]);
    let mut passed = 0;
    for number in 0..10_000 {
        let stranger = Client::named(format!("stranger {number}"));
        passed += u64::from(scene.quotas.charge(&stranger, ("queries", 1)).await.is_ok());
    }
    assert_eq!(passed, 100, "one quota for all of them");
    assert_eq!((scene.quotas.live_clients(), scene.quotas.max_clients()), (1_000, 1_000));
    let told = scene.told();
    assert!(told.iter().filter(|line| *line == "overflow").count() >= 10_000);
    assert!(told.contains(&"crowd queries_per_hour: 90 of 100".to_owned()));

    let stranger = Client::named("one more");
    let refusal = scene.quotas.charge(&stranger, ("queries", 1)).await.unwrap_err();
    assert!(refusal.violations().is_empty() && refusal.limit() == 0, "the shared capacity is not disclosed");
    assert!(scene.quotas.check(&stranger, ("queries", 1)).await.is_err(), "a check says the same");
    assert!(scene.quotas.charge(&known[7], ("queries", 6)).await.is_err(), "the victim is still at 95 %");
    scene.quotas.charge(&known[7], ("queries", 5)).await.unwrap();
    for client in &known[8..] {
        scene.quotas.charge(client, ("queries", 99)).await.unwrap();
    }
}

#[tokio::test]
async fn eviction_gives_newcomers_their_own_accounts() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).max_clients(10));
    for number in 0..10 {
        scene.quotas.charge(&Client::named(format!("known {number}")), ("queries", 1)).await.unwrap();
    }
    assert_eq!(scene.quotas.live_clients(), 10);
    scene.clock.advance(HOUR);
    scene.told();
    for number in 0..10 {
        scene.quotas.charge(&Client::named(format!("new {number}")), ("queries", 100)).await.unwrap();
    }
    assert_eq!((scene.told().iter().filter(|line| *line == "overflow").count(), scene.quotas.live_clients()), (0, 10));
}

#[tokio::test]
async fn refusals_of_a_shared_account_are_those_of_a_capacity() {
    let both = Plan::new("both").limit(Quota::units("queries", 10).per(Period::hour()));
    let both = both.limit(Quota::units("rows", 10).per(Period::hour()));
    let scene = Scene::of(QuotaLayer::new(both).max_clients(1).max_reservations_per_client(1).max_jobs_per_client(1));
    scene.quotas.charge(&alice(), ("queries", 1)).await.unwrap();
    let _lost = scene.quotas.reserve(&bob(), ("queries", 1)).await.unwrap().detach();
    let carol = Client::named("carol");
    let refusal = scene.quotas.reserve(&carol, ("queries", 1)).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::Capacity, "carol has no reservation");
    scene.clock.advance(refusal.retry_after().unwrap());
    scene.quotas.reserve(&carol, ("queries", 1)).await.unwrap().roll_back();

    let run = async |client: &Client| scene.quotas.run_job(client, "job", ("queries", 1), async {}).await;
    run(&bob()).await.unwrap();
    let refusal = run(&carol).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::Capacity, "carol has no job");
    scene.clock.advance(refusal.retry_after().unwrap());
    scene.quotas.charge(&alice(), ("queries", 1)).await.unwrap(); // she keeps her account
    run(&carol).await.unwrap();

    scene.quotas.charge(&bob(), ("queries", 5)).await.unwrap();
    let refusal = scene.quotas.charge(&carol, [("queries", 9), ("rows", 11)]).await.unwrap_err();
    assert_eq!((refusal.reason(), refusal.retry_after()), (Reason::TooLarge, None), "no wait helps");
}

#[tokio::test]
async fn job_done_in_a_shared_account_is_done_once() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).max_clients(1));
    scene.quotas.charge(&alice(), ("queries", 1)).await.unwrap();
    let run = async |id: &str| scene.quotas.run_job(&bob(), id, ("queries", 2), async {}).await.unwrap();
    assert_eq!(run("first").await, JobRun::Done(()), "there is no room for bob");
    scene.clock.advance(HOUR);
    scene.quotas.charge(&bob(), ("queries", 1)).await.unwrap();
    assert_eq!(run("first").await, JobRun::Replayed);
    assert_eq!(run("second").await, JobRun::Done(()));
    assert_eq!(scene.limit(&bob(), "queries_per_hour").await.used, 3, "bob has an account by now");
    scene.clock.advance(24 * HOUR);
    assert_eq!(run("first").await, JobRun::Done(()), "its time has come");
}
