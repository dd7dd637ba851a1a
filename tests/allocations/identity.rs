//! Identification allocates nothing.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use allocation_counter::measure;
use http::request::Parts;
use tollgate::{ApiKey, Digester, Forwarded, Identify, PeerIp, Principal, RequestHead, Unverified, Verified};

fn request() -> Parts {
    let address: SocketAddr = "10.0.0.1:4711".parse().unwrap();
    let request = http::Request::builder()
        .header("x-forwarded-for", "1.1.1.1, [2001:db8::7]:80, 10.0.0.3")
        .header("x-forwarded-for", "10.0.0.2")
        .header("forwarded", "for=1.1.1.1, for=\"[2001:db8::7]:80\";host=\"a,b\", for=10.0.0.3")
        .header("x-real-ip", "2001:db8::7")
        .header("x-api-key", "k-7f3a")
        .header("authorization", "Bearer k-7f3a")
        .header("cookie", "a=b; sid=k-7f3a")
        .extension(address)
        .extension(Principal::named("alice"));
    request.body(()).unwrap().into_parts().0
}

fn behind(forwarded: Forwarded) -> PeerIp {
    PeerIp::from_extension(|address: &SocketAddr| Some(*address)).trust_forwarded(forwarded)
}

#[test]
fn identification_allocates_nothing() {
    let keys = Arc::new(HashMap::from([("k-7f3a".to_owned(), Principal::named("alice").in_tier("pro"))]));
    let networks = ["10.0.0.0/8"];
    let ways: Vec<Box<dyn Identify>> = vec![
        Box::new(PeerIp::new()),
        Box::new(behind(Forwarded::x_forwarded_for().from_networks(networks))),
        Box::new(behind(Forwarded::x_forwarded_for().through_hops(3))),
        Box::new(behind(Forwarded::rfc7239().from_networks(networks))),
        Box::new(behind(Forwarded::single("x-real-ip").from_networks(networks))),
        Box::new(ApiKey::header("x-api-key", keys.clone())),
        Box::new(ApiKey::bearer(keys.clone())),
        Box::new(ApiKey::cookie("sid", keys.clone())),
        Box::new(ApiKey::bearer(|_: &str| Some(Principal::unnamed()))),
        Box::new(ApiKey::header("x-absent", keys.clone()).or(Unverified::header("x-absent")).or(PeerIp::new())),
        Box::new(PeerIp::new().and(ApiKey::header("x-api-key", keys))),
        Box::new(Unverified::header("x-api-key")),
        Box::new(Unverified::bearer()),
        Box::new(Unverified::cookie("sid")),
        Box::new(Verified::from_extension(|account: &Principal| Some(account.clone()))),
    ];
    let request = request();
    let digester = Digester::process();
    for (n, who) in ways.iter().enumerate() {
        let mut found = false;
        let counted = measure(|| found = who.identify(&RequestHead::from(&request), digester).is_some());
        assert!(found, "identity {n} finds no client");
        assert_eq!(counted.count_total, 0, "identity {n} allocates");
    }
}

#[test]
fn field_of_400_kb_allocates_nothing() {
    let mut request = request();
    for name in ["x-forwarded-for", "forwarded", "x-api-key", "cookie"] {
        request.headers.insert(name, "x".repeat(400_000).parse().unwrap());
    }
    let digester = Digester::process();
    let who = ApiKey::header("x-api-key", |_: &str| Some(Principal::unnamed()))
        .or(Unverified::cookie("x"))
        .or(behind(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"])));
    let counted = measure(|| assert!(who.identify(&RequestHead::from(&request), digester).is_some()));
    assert_eq!(counted.count_total, 0);
}

#[test]
fn counter_counts_one_box() {
    assert_eq!(measure(|| drop(Box::new(7))).count_total, 1);
}
