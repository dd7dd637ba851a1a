//! Gauges of values that no event carries, set when the layers are sampled.

use std::{future::Future, pin::pin, task::Context, time::Duration};

use futures_util::{FutureExt, task::noop_waker};
use http::{Request, Response, StatusCode};
use tollgate::{
    CircuitBreaker, CircuitBreakerLayer, Client, Cost, Event, FakeClock, Observer, Period, Plan, Quota, QuotaLayer,
    Quotas, Rate, Sampler, TokenBucketLayer, Trip, telemetry::Metrics,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::recorder::Recorder;

/// Runs `test` with a recorder of its own.
fn recorded(test: impl FnOnce(&Recorder)) {
    let recorder = Recorder::default();
    metrics::with_local_recorder(&recorder, || test(&recorder));
}

/// Returns the value of a series, such as `tollgate_clients{policy="plan"}`.
fn value(recorder: &Recorder, series: &str) -> Option<String> {
    let text = recorder.text();
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(String::from))
}

/// Returns the states of the circuit `upstream` whose gauge is not 0.
fn states(recorder: &Recorder) -> Vec<String> {
    let text = recorder.text();
    let gauges =
        text.lines().filter_map(|line| line.strip_prefix("tollgate_circuit_state{policy=\"upstream\",state=\""));
    gauges.filter_map(|gauge| gauge.strip_suffix("\"} 1").map(String::from)).collect()
}

fn transitions(recorder: &Recorder) -> Vec<String> {
    let text = recorder.text();
    text.lines().filter(|line| line.starts_with("tollgate_circuit_transitions{")).map(String::from).collect()
}

fn upstream(metrics: &Metrics, clock: &FakeClock) -> CircuitBreakerLayer {
    CircuitBreakerLayer::for_server()
        .trip(Trip::consecutive(2))
        .recovery_timeout(Duration::from_secs(10))
        .named("upstream")
        .clock(clock.clone())
        .observe(metrics.clone())
}

fn call(breaker: &CircuitBreaker, result: Result<(), ()>) {
    let _ = breaker.call(async { result }).now_or_never().expect("nothing is awaited");
}

#[test]
fn circuit_whose_open_time_is_over_is_sampled_half_open() {
    recorded(|recorder| {
        let (metrics, clock) = (Metrics::new(), FakeClock::new());
        let breaker = upstream(&metrics, &clock).handle();
        metrics.sample();
        assert_eq!(states(recorder), ["closed"], "before any event");
        (0..2).for_each(|_| call(&breaker, Err(())));
        metrics.sample();
        assert_eq!(states(recorder), ["open"]);

        let opened = transitions(recorder);
        assert_eq!(opened.len(), 1, "{opened:?}");
        clock.advance(Duration::from_secs(12)); // 10 s, and the jitter of at most a fifth
        assert_eq!(states(recorder), ["open"], "time alone emits nothing");
        for _ in 0..3 {
            metrics.sample();
            assert_eq!(states(recorder), ["half_open"]);
        }
        assert_eq!(transitions(recorder), opened, "a sample is no transition");

        call(&breaker, Ok(()));
        assert_eq!(states(recorder), ["closed"]);
        let both = [("open", "half_open"), ("half_open", "closed"), ("closed", "open")];
        for (from, to) in both {
            let series = format!("tollgate_circuit_transitions{{policy=\"upstream\",from=\"{from}\",to=\"{to}\"}}");
            assert_eq!(value(recorder, &series).as_deref(), Some("1"), "{series}");
        }
        metrics.sample();
        assert_eq!(states(recorder), ["closed"]);
    });
}

#[test]
fn command_after_a_sample_leaves_one_state() {
    recorded(|recorder| {
        let (metrics, clock) = (Metrics::new(), FakeClock::new());
        let breaker = upstream(&metrics, &clock).handle();
        (0..2).for_each(|_| call(&breaker, Err(())));
        clock.advance(Duration::from_secs(12));
        metrics.sample();
        breaker.force_open(); // its event names `open` as the state before, not the half-open one that was sampled
        assert_eq!(states(recorder), ["forced_open"]);
        drop(breaker);
        metrics.sample();
        assert_eq!(states(recorder), [] as [&str; 0], "the breaker is gone");
    });
}

#[test]
fn state_of_a_breaker_that_was_never_sampled_goes_with_it() {
    recorded(|recorder| {
        let (metrics, clock) = (Metrics::new(), FakeClock::new());
        let breaker = upstream(&metrics, &clock).handle();
        (0..2).for_each(|_| call(&breaker, Err(())));
        assert_eq!(states(recorder), ["open"]);
        drop(breaker);
        metrics.sample();
        assert_eq!(states(recorder), [] as [&str; 0]);
    });
}

/// Samples all layers whenever one emits an event.
#[derive(Clone, Default)]
struct Eager(Metrics);

impl Observer for Eager {
    fn observe(&self, event: &Event<'_>) {
        self.0.observe(event);
        self.0.sample();
        let _ = self.0.read_usage(100).now_or_never();
    }

    fn attach(&self, layer: &Sampler) {
        self.0.attach(layer);
        self.0.sample();
    }
}

#[test]
fn observer_may_sample_within_an_event() {
    recorded(|recorder| {
        let (eager, clock) = (Eager::default(), FakeClock::new());
        let layer = upstream(&eager.0, &clock).observe(eager.clone()).per_host().max_keys(1);
        ["one.example", "one.example", "two.example"].into_iter().for_each(|host| fail(&layer, host));
        clock.advance(Duration::from_secs(12));
        fail(&layer, "one.example");
        let buckets = TokenBucketLayer::new(Rate::per_hour(1)).max_clients(1).observe(eager.clone()).handle();
        let quotas = QuotaLayer::new(hourly("free", 3)).named("quota").max_clients(1).observe(eager).handle();
        for client in (0..40).map(|number| Client::named(format!("client {number}"))) {
            let _ = buckets.check(&client, Cost::ONE);
            let _ = quotas.charge(&client, ("tokens", 3)).now_or_never().expect("no lock is held");
        }
        assert!(value(recorder, "tollgate_clients{policy=\"quota\"}").is_some());
    });
}

/// Sends a request to a host through a breaker whose service fails.
fn fail(layer: &CircuitBreakerLayer, host: &str) {
    let service = layer.layer(service_fn(|_: Request<String>| async {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok::<_, std::convert::Infallible>(response)
    }));
    let request = Request::get(format!("http://{host}/")).body(String::new()).unwrap();
    let _ = service.oneshot(request).now_or_never().expect("nothing is awaited");
}

#[test]
fn circuits_of_hosts_are_counted_by_state() {
    recorded(|recorder| {
        let (metrics, clock) = (Metrics::new(), FakeClock::new());
        let layer = upstream(&metrics, &clock).per_host();
        let circuits =
            |state: &str| value(recorder, &format!("tollgate_circuit_keys{{policy=\"upstream\",state=\"{state}\"}}"));
        for host in ["one.example", "one.example", "two.example", "two.example", "three.example"] {
            fail(&layer, host);
        }
        metrics.sample();
        assert_eq!((circuits("open").as_deref(), circuits("closed").as_deref()), (Some("2"), Some("1")));
        let opened = transitions(recorder);

        clock.advance(Duration::from_secs(12));
        metrics.sample();
        assert_eq!((circuits("open").as_deref(), circuits("half_open").as_deref()), (Some("0"), Some("2")));
        assert_eq!(transitions(recorder), opened, "a sample is no transition");
        assert_eq!(states(recorder), ["closed"], "the circuit of requests without a host is apart");
        assert!(!recorder.text().contains("example"), "{}", recorder.text());
    });
}

#[test]
fn sampled_key_does_not_count_as_used() {
    recorded(|recorder| {
        let (metrics, clock) = (Metrics::new(), FakeClock::new());
        let layer = upstream(&metrics, &clock).per_host().max_keys(1);
        (0..2).for_each(|_| fail(&layer, "one.example"));
        for _ in 0..61 {
            clock.advance(Duration::from_secs(10)); // together more than the 10 minutes of an idle circuit
            metrics.sample();
        }
        fail(&layer, "two.example");
        assert_eq!(value(recorder, "tollgate_overflows{policy=\"upstream\"}"), None, "the idle key gave its place");
    });
}

#[test]
fn clients_of_layers_are_sampled_until_these_are_gone() {
    recorded(|recorder| {
        let metrics = Metrics::new();
        let buckets =
            || TokenBucketLayer::new(Rate::per_hour(5)).named("bucket").max_clients(64).observe(metrics.clone());
        let (first, second) = (buckets().handle(), buckets().handle());
        let quotas = QuotaLayer::new(hourly("free", 10)).named("quota").observe(metrics.clone()).handle();
        let clients = |policy: &str| value(recorder, &format!("tollgate_clients{{policy=\"{policy}\"}}"));

        first.check(&Client::named("alice"), Cost::ONE).unwrap();
        second.check(&Client::named("alice"), Cost::ONE).unwrap();
        second.check(&Client::named("bob"), Cost::ONE).unwrap();
        quotas.charge(&Client::named("alice"), ("requests", 1)).now_or_never().unwrap().unwrap();
        metrics.sample();
        assert_eq!((clients("bucket").as_deref(), clients("quota").as_deref()), (Some("3"), Some("1")), "names add up");
        let most = (first.max_clients() + second.max_clients()).to_string();
        assert_eq!(value(recorder, "tollgate_clients_max{policy=\"bucket\"}"), Some(most));

        drop((first, quotas));
        metrics.sample();
        assert_eq!((clients("bucket").as_deref(), clients("quota").as_deref()), (Some("2"), Some("0")));
    });
}

fn hourly(name: &str, most: u64) -> Plan {
    Plan::new(name)
        .limit(Quota::units("tokens", most).per(Period::hour()))
        .limit(Quota::requests(most).per(Period::hour()))
}

/// Returns the used and the allowed tokens of a plan.
fn tokens(recorder: &Recorder, plan: &str) -> Option<(String, String)> {
    let labels = format!("{{policy=\"quota\",plan=\"{plan}\",limit=\"tokens_per_hour\"}}");
    let series = |name: &str| value(recorder, &format!("tollgate_quota_{name}{labels}"));
    Some((series("used")?, series("limit")?))
}

#[test]
fn usage_is_added_up_by_plan() {
    recorded(|recorder| {
        let metrics = Metrics::new();
        let layer = QuotaLayer::new(hourly("free", 100)).named("quota").observe(metrics.clone());
        let quotas = layer.tier_plan("pro", hourly("pro", 1_000)).clock(FakeClock::new()).handle();
        let own = Client::named("own");
        quotas.set_client_plan(&own, hourly("plan of own", 7)).unwrap();
        let clients = [("alice", 30), ("bob", 12)].map(|(name, used)| (Client::named(name), used));
        let carol = (Client::named("carol").with_tier("pro"), 500);
        let read = || metrics.read_usage(1_000).now_or_never().expect("one page");
        read();
        metrics.sample();
        assert_eq!(tokens(recorder, "pro"), Some(("0".into(), "0".into())), "no client yet");

        for (client, used) in clients.into_iter().chain([carol, (own, 7)]) {
            quotas.charge(&client, ("tokens", used)).now_or_never().unwrap().unwrap();
        }
        let reserved = quotas.reserve(&Client::named("alice"), ("tokens", 8)).now_or_never().unwrap().unwrap();
        read();
        metrics.sample();
        assert_eq!(tokens(recorder, "free"), Some(("50".into(), "200".into())));
        assert_eq!(tokens(recorder, "pro"), Some(("500".into(), "1000".into())));
        assert!(!recorder.text().contains("own"), "a plan of one client is no label:\n{}", recorder.text());
        drop(reserved);
    });
}

/// Quotas of 300 clients, each of which has used 2 of 100 tokens.
fn three_hundred_clients(metrics: &Metrics) -> Quotas {
    let layer = QuotaLayer::new(hourly("free", 100)).named("quota").observe(metrics.clone());
    let quotas = layer.clock(FakeClock::new()).handle();
    for client in 0..300 {
        let client = Client::named(format!("client {client}"));
        quotas.charge(&client, ("tokens", 2)).now_or_never().unwrap().unwrap();
    }
    quotas
}

#[test]
fn usage_of_many_clients_is_read_in_parts() {
    recorded(|recorder| {
        let metrics = Metrics::new();
        let _quotas = three_hundred_clients(&metrics);
        let mut calls = 0;
        while tokens(recorder, "free").is_none() {
            let _ = metrics.read_usage(100).now_or_never();
            metrics.sample();
            calls += 1;
            assert!(calls < 100, "a pass ends");
        }
        assert!(calls >= 3, "{calls} calls for 300 clients, at most 100 each");
        assert_eq!(tokens(recorder, "free"), Some(("600".into(), "30000".into())));
    });
}

#[test]
fn cancelled_read_of_usage_counts_no_client_twice() {
    recorded(|recorder| {
        let metrics = Metrics::new();
        let _quotas = three_hundred_clients(&metrics);
        let waker = noop_waker();
        let mut polls = 0;
        // Each future is dropped after one poll, in which it reads one page.
        while pin!(metrics.read_usage(10_000)).poll(&mut Context::from_waker(&waker)).is_pending() {
            polls += 1;
            assert!(polls < 1_000, "a pass ends");
        }
        assert!(polls > 0, "one page has not all clients");
        metrics.sample();
        assert_eq!(tokens(recorder, "free"), Some(("600".into(), "30000".into())));
    });
}

#[test]
fn every_observer_of_a_layer_can_sample_it() {
    /// Panics with the sampler of each layer.
    struct Broken;
    impl Observer for Broken {
        fn observe(&self, _: &Event<'_>) {}
        fn attach(&self, _: &Sampler) {
            panic!("an observer");
        }
    }

    recorded(|recorder| {
        let (first, second) = (Metrics::new(), std::sync::Arc::new(Metrics::new()));
        let layer = TokenBucketLayer::new(Rate::per_hour(5)).named("bucket");
        let buckets = layer.observe(first.clone()).observe(Broken).observe(second.clone()).handle();
        buckets.check(&Client::named("alice"), Cost::ONE).unwrap();
        for metrics in [&first, &*second] {
            metrics::gauge!("tollgate.clients", "policy" => "bucket").set(-1.0);
            metrics.sample();
            assert_eq!(value(recorder, "tollgate_clients{policy=\"bucket\"}").as_deref(), Some("1"));
        }
    });
}
