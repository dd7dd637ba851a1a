//! Refunds reach only the buckets from which the request took its tokens.

use std::{sync::Arc, time::Duration};

use tollgate::{
    Admit, Client, Cost, Digester, FakeClock, GateLayer, Identify, MaybeFuture, PeerIp, PolicyName, Rate, Reason,
    Refusal, RequestHead, TokenBucketLayer, TokenBuckets,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{from, hello};

/// Policy further in that changes the buckets of the layer, and then refuses as an open circuit does.
struct Changes<F>(F);

impl<F: Fn() + Send + Sync + 'static> Admit for Changes<F> {
    type Permit = ();

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
        self.0();
        MaybeFuture::Ready(Err(Refusal::new(Reason::CircuitOpen, PolicyName::try_new("inner").unwrap())))
    }
}

/// Sends a request that `change` and a refusal follow, before its tokens go back; returns its client.
async fn refused_after(layer: &TokenBucketLayer, change: impl Fn(&Client) + Send + Sync + 'static) -> Client {
    let request = from("192.0.2.1:1");
    let client = PeerIp::new().identify(&RequestHead::of(&request), layer.handle().digester()).unwrap();
    let same = client.clone();
    let service = layer.layer(GateLayer::new(Changes(move || change(&same))).layer(service_fn(hello)));
    assert_eq!(service.oneshot(request).await.unwrap().status(), 503);
    client
}

const fn hourly(most: u64) -> Rate {
    Rate::per_hour(most)
}

/// Takes a token of the global bucket, so that it has room for one that does not belong to it.
fn take(buckets: &TokenBuckets) {
    buckets.check(&Client::named("bob"), Cost::ONE).unwrap();
}

#[tokio::test]
async fn global_bucket_set_after_the_admission_gets_no_token() {
    let alone = TokenBucketLayer::new(hourly(100)).clock(FakeClock::new());
    let with_global = alone.fork().and_global(hourly(50));
    for (layer, changes, expected) in [
        (alone.fork(), &[Some(50)][..], 49),
        (alone.fork(), &[Some(50), None, Some(50)], 49),
        (with_global.fork(), &[None, Some(50)], 49),
        (with_global.fork(), &[], 49),
        (with_global.fork(), &[Some(40)], 39),
        (with_global.fork(), &[Some(40), Some(60)], 59),
    ] {
        let buckets = layer.handle();
        let change = move |_: &Client| {
            changes.iter().for_each(|rate| buckets.set_global(rate.map(hourly)));
            take(&buckets);
        };
        let client = refused_after(&layer, change).await;
        let buckets = layer.handle();
        assert_eq!(buckets.peek_global().unwrap().remaining, expected, "{changes:?}");
        assert_eq!(buckets.peek(&client).remaining, 100, "{changes:?}");
    }
}

#[tokio::test]
async fn global_bucket_set_before_the_admission_gets_its_token() {
    let layer = TokenBucketLayer::new(hourly(100)).clock(FakeClock::new());
    let buckets = layer.handle();
    buckets.set_global(Some(hourly(50)));
    buckets.set_rate(hourly(90)); // the limit of the permit is another one now
    refused_after(&layer, |_| ()).await;
    assert_eq!(buckets.peek_global().unwrap().remaining, 50);
}

#[tokio::test]
async fn token_of_a_shared_further_bucket_stays_spent() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(10)).and_rate(hourly(5)).max_clients(1).clock(clock.clone());
    let buckets = layer.handle();
    buckets.check(&Client::named("first"), Cost::ONE).unwrap();
    clock.advance(Duration::from_secs(2));
    buckets.forget_idle(); // the table of the second rate is full now, that of the first is not
    let change = move |client: &Client| {
        clock.advance(Duration::from_secs(7_200));
        buckets.forget_idle();
        buckets.check(client, Cost::new(2)).unwrap();
    };
    let client = refused_after(&layer, change).await;
    assert_eq!(layer.handle().peek(&client).remaining, 3, "it took nothing from its own bucket");
}

fn of_client(layer: TokenBucketLayer, client: &Client) -> TokenBucketLayer {
    let client = client.clone();
    layer.clock(FakeClock::new()).identify_by(move |_: &RequestHead<'_>, _: &Digester| Some(client.clone()))
}

#[tokio::test]
async fn token_goes_back_under_a_rate_that_was_removed() {
    let pro = Client::named("alice").with_tier("pro");
    let layer = of_client(TokenBucketLayer::new(hourly(9)).rate_for("pro", hourly(9)), &pro);
    let buckets = layer.handle();
    let removes = buckets.clone();
    refused_after(&layer, move |_| assert!(removes.remove_tier_rate("pro"))).await;
    buckets.set_rate_for("pro", hourly(9));
    assert_eq!(buckets.peek(&pro).remaining, 9);
}

/// Buckets of the removed rate are full after an hour, and forgotten.
#[tokio::test]
async fn token_of_a_forgotten_rate_goes_to_no_new_bucket() {
    let pro = Client::named("alice").with_tier("pro");
    let layer = of_client(TokenBucketLayer::new(hourly(9)).rate_for("pro", hourly(9)), &pro);
    let (clock, same) = (FakeClock::new(), pro.clone());
    let layer = layer.clock(clock.clone());
    let buckets = layer.handle();
    refused_after(&layer, move |_| {
        assert!(buckets.remove_tier_rate("pro"));
        clock.advance(Duration::from_secs(3_600));
        buckets.set_rate_for("pro", hourly(9));
        buckets.check(&same, Cost::new(4)).unwrap();
    })
    .await;
    assert_eq!(layer.handle().peek(&pro).remaining, 5);
}
