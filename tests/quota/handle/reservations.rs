//! Reservations: pending amounts that are committed, rolled back or expire.

use tollgate::{CloseOutcome, ReservationError, ReservationId};

use super::*;

const TTL: Duration = Duration::from_secs(300);

async fn sums(scene: &Scene) -> (u64, u64, u64) {
    let hour = scene.limit(&alice(), "queries_per_hour").await;
    (hour.used, hour.reserved, hour.remaining)
}

#[tokio::test]
async fn reservation_id_of_another_client_cannot_be_guessed() {
    let scene = Scene::new(queries(100));
    let own = scene.quotas.reserve(&alice(), ("queries", 10)).await.unwrap().detach();
    let next = scene.quotas.reserve(&alice(), ("queries", 10)).await.unwrap().detach();
    let (own, text) = (own.to_string(), next.to_string());
    let ((numbers, proof), (_, wrong)) = (text.rsplit_once('-').unwrap(), own.rsplit_once('-').unwrap());
    assert_ne!(proof, wrong);
    let guess: ReservationId = format!("{numbers}-{wrong}").parse().unwrap();
    assert_eq!(scene.quotas.roll_back(&guess).await, Err(ReservationError::Unknown));
    assert_eq!(scene.quotas.roll_back(&next).await, Ok(CloseOutcome::Closed));
}

#[tokio::test]
async fn reservation_id_of_another_layer_is_unknown() {
    let (scene, other) = (Scene::new(queries(100)), Scene::new(queries(100)));
    let id = scene.quotas.reserve(&alice(), ("queries", 10)).await.unwrap().detach();
    let same_place = other.quotas.reserve(&alice(), ("queries", 10)).await.unwrap().detach();
    assert_ne!(id, same_place);
    assert_eq!(other.quotas.commit(&id, ("queries", 4)).await, Err(ReservationError::Unknown));
    assert_eq!(other.quotas.roll_back(&"019a-text".parse().unwrap()).await, Err(ReservationError::Unknown));
    assert_eq!(sums(&other).await, (0, 10, 90));
    let read: ReservationId = id.to_string().parse().unwrap();
    assert_eq!(scene.quotas.commit(&read, ("queries", 4)).await, Ok(CloseOutcome::Closed));
}

#[tokio::test]
async fn expired_reservation_is_released_once() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).reservations_last(TTL));
    let _lost = scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap().detach();
    scene.clock.advance(TTL - Duration::from_nanos(1));
    assert_eq!(sums(&scene).await, (0, 60, 40));
    scene.clock.advance(Duration::from_nanos(1));
    assert_eq!(sums(&scene).await, (0, 0, 100));
    scene.clock.advance(TTL);
    assert_eq!(sums(&scene).await, (0, 0, 100), "once");
}

#[tokio::test]
async fn commit_after_midnight_counts_today_beyond_its_estimate() {
    let plan = Plan::new("daily").limit(Quota::units("queries", 100).per(Period::day()));
    let scene = Scene::of(QuotaLayer::new(plan).reservations_last(TTL));
    scene.clock.advance(DAY - Duration::from_secs(10));
    let (early, late) = (
        scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap(),
        scene.quotas.reserve(&alice(), ("queries", 40)).await.unwrap().detach(),
    );
    scene.clock.advance(Duration::from_secs(10));
    let today = scene.limit(&alice(), "queries_per_day").await;
    assert_eq!((today.used, today.reserved), (0, 0));
    early.commit(("queries", 90));
    scene.clock.advance(TTL);
    assert_eq!(scene.quotas.commit(&late, ("queries", 50)).await, Ok(CloseOutcome::Expired));
    let today = scene.limit(&alice(), "queries_per_day").await;
    assert_eq!(today.used, 30 + 50, "what exceeds the estimate, and what is used after the estimate went back");
}

#[tokio::test]
async fn long_ended_reservation_is_unknown() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).reservations_last(TTL));
    let id = scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap().detach();
    scene.clock.advance(TTL * 10);
    assert_eq!(scene.quotas.commit(&id, ("queries", 60)).await, Err(ReservationError::Unknown));
    assert_eq!(sums(&scene).await, (0, 0, 100));
}

#[tokio::test]
async fn drop_commits_what_was_recorded() {
    let scene = Scene::new(queries(100));
    let reserve = async || scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap();
    let mut streamed = reserve().await;
    assert!(streamed.record("queries", 5) && streamed.record("queries", 7));
    assert_eq!(sums(&scene).await, (0, 60, 40), "charged at its end");
    drop(streamed);
    assert_eq!(sums(&scene).await, (12, 0, 88));
    let mut none_used = reserve().await;
    none_used.record("queries", 0);
    drop(none_used); // 0 of its 60
    drop(reserve().await);
    assert_eq!(sums(&scene).await, (12, 0, 88), "nothing was recorded");
}

#[tokio::test]
async fn record_beyond_the_reservation_is_charged() {
    let scene = Scene::new(queries(100));
    let mut streamed = scene.quotas.reserve(&alice(), ("queries", 10)).await.unwrap();
    streamed.record("queries", 120);
    drop(streamed);
    assert_eq!(sums(&scene).await, (120, 0, 0));
}

#[tokio::test]
async fn end_of_a_reservation_overrides_its_records() {
    let scene = Scene::new(queries(100).limit(Quota::units("rows", 100).per(Period::hour())));
    let rows = async || scene.limit(&alice(), "rows_per_hour").await.used;
    let reserve = async || {
        let mut held = scene.quotas.reserve(&alice(), [("queries", 10), ("rows", 10)]).await.unwrap();
        held.record("queries", 4);
        held
    };
    drop(reserve().await);
    assert_eq!((sums(&scene).await.0, rows().await), (4, 10), "rows as reserved");
    reserve().await.commit(("rows", 1));
    assert_eq!((sums(&scene).await.0, rows().await), (8, 11), "queries as recorded");
    reserve().await.commit([("queries", 1), ("rows", 1)]);
    assert_eq!((sums(&scene).await.0, rows().await), (9, 12));
    reserve().await.roll_back();
    assert_eq!((sums(&scene).await.0, rows().await), (9, 12));
    let id = reserve().await.detach();
    assert_eq!(scene.quotas.commit(&id, ("rows", 0)).await, Ok(CloseOutcome::Closed));
    assert_eq!((sums(&scene).await.0, rows().await), (19, 12), "an id has no records");
}

#[tokio::test]
async fn cancelled_stream_pays_for_what_it_recorded() {
    for polls in 0..=4 {
        let scene = Scene::new(queries(100));
        let mut held = scene.quotas.reserve(&alice(), ("queries", 10)).await.unwrap();
        let mut stream = Box::pin(async move {
            loop {
                held.record("queries", 1);
                tokio::task::yield_now().await;
            }
        });
        for _ in 0..polls {
            assert!(futures_util::poll!(&mut stream).is_pending());
        }
        drop::<std::pin::Pin<Box<dyn Future<Output = ()>>>>(stream);
        assert_eq!(sums(&scene).await, (polls, 0, 100 - polls));
    }
}

#[tokio::test]
async fn too_many_open_reservations_are_refused_in_words() {
    let scene = Scene::of(QuotaLayer::new(queries(1_000_000)).reservations_last(TTL));
    let reserve = async |client: Client| scene.quotas.reserve(&client, ("queries", 1)).await;
    let first = reserve(alice()).await.unwrap().detach();
    scene.clock.advance(Duration::from_secs(7));
    for _ in 1..4_096 {
        let _lost = reserve(alice()).await.unwrap().detach();
    }
    let refusal = reserve(alice()).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::TooManyReservations);
    assert_eq!(refusal.retry_after(), Some(TTL - Duration::from_secs(7)), "when the first one expires");
    assert!(refusal.to_string().contains("too many open reservations"), "{refusal}");
    reserve(bob()).await.unwrap().roll_back();
    scene.quotas.charge(&alice(), ("queries", 1)).await.unwrap();
    scene.quotas.run(&alice(), ("queries", 1), async {}).await.unwrap();
    scene.quotas.roll_back(&first).await.unwrap();
    reserve(alice()).await.unwrap().roll_back();
    scene.clock.advance(TTL);
    assert_eq!(sums(&scene).await, (2, 0, 999_998), "all at once");
}

#[tokio::test]
async fn number_of_open_reservations_is_a_setting() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).max_reservations_per_client(1));
    let held = scene.quotas.reserve(&alice(), ("queries", 1)).await.unwrap();
    assert!(scene.quotas.reserve(&alice(), ("queries", 1)).await.is_err());
    drop(held);
    let _lost = scene.quotas.reserve(&alice(), ("queries", 1)).await.unwrap().detach();
}

#[test]
#[should_panic(expected = "max_reservations_per_client must be positive, got 0")]
fn bound_of_no_reservations_panics() {
    let _ = QuotaLayer::new(queries(1)).max_reservations_per_client(0);
}

#[tokio::test]
async fn usage_of_long_work_counts_after_the_expiry() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).reservations_last(TTL));
    let held = scene.quotas.reserve(&alice(), ("queries", 60)).await.unwrap();
    scene.clock.advance(TTL * 4);
    assert_eq!(sums(&scene).await, (0, 0, 100));
    held.commit(("queries", 25));
    assert_eq!(sums(&scene).await, (25, 0, 75));
}
