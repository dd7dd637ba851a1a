//! Combined identities: alternatives and pairs.

use std::sync::Arc;

use tollgate::{ApiKey, Client, Digester, Identify, PeerIp, Principal, RequestHead, Unverified};

use crate::{charged, client, distinct, request};

const NOTHING: &[(&str, &str)] = &[];

#[test]
fn first_identity_found_decides() {
    let who = Unverified::header("x-user").public().or(Unverified::header("x-tenant").public()).or(PeerIp::new());
    assert_eq!(charged(&who, "203.0.113.9", &[("x-tenant", "acme"), ("x-user", "alice")]), "alice");
    assert_eq!(charged(&who, "203.0.113.9", &[("x-tenant", "acme")]), "acme");
    assert_eq!(charged(&who, "203.0.113.9", NOTHING), "203.0.113.9");
}

#[test]
fn closure_chains_and_guarantees_nothing() {
    let by_path = |request: &RequestHead<'_>, digester: &Digester| -> Option<Client> {
        request.uri.path().strip_prefix("/t/").map(|tenant| digester.named(tenant))
    };
    assert_eq!(by_path.guarantees(), tollgate::IdentityGuarantees::default());
    let who = by_path.or(PeerIp::new());
    let mut request = request("203.0.113.9", NOTHING);
    assert_eq!(client(&who, &request).unwrap().name().unwrap().to_string(), "203.0.113.9");
    request.uri = "/t/acme".parse().unwrap();
    assert_eq!(client(&who, &request), Some(Client::named("acme")));
    assert!(!who.guarantees().named && !who.guarantees().verified);
}

#[test]
fn boxed_identity_keeps_its_guarantees() {
    let boxed: Box<dyn Identify> = Box::new(PeerIp::new());
    let shared: Arc<dyn Identify> = Arc::new(PeerIp::new());
    assert!(boxed.guarantees().named && shared.guarantees().verified);
    let who = boxed.or(shared);
    assert!(who.guarantees().named && who.guarantees().verified);
    assert_eq!(charged(&who, "203.0.113.9", NOTHING), "203.0.113.9");
}

#[test]
fn pair_boundaries_are_part_of_the_identity() {
    let who = Unverified::header("x-a").and(Unverified::header("x-b"));
    let pairs =
        [("a|b", "c"), ("a", "b|c"), ("a,b", "c"), ("a", "b,c"), ("a:b", "c"), ("a", "b:c"), ("ab", "c"), ("a", "bc")];
    let requests = pairs.map(|(a, b)| request("203.0.113.9", &[("x-a", a), ("x-b", b)]));
    assert_eq!(distinct(&who, requests), pairs.len());
    let swapped = [("a", "b"), ("b", "a")].map(|(a, b)| request("203.0.113.9", &[("x-a", a), ("x-b", b)]));
    assert_eq!(distinct(&who, swapped), 2);
    let twice = Unverified::header("x-a").and(Unverified::header("x-a"));
    assert_eq!(distinct(&twice, ["a", "b"].map(|a| request("203.0.113.9", &[("x-a", a)]))), 2, "equal halves");
    assert_eq!(charged(&who, "203.0.113.9", &[("x-a", "a")]), "-", "both must find an identity");
}

#[test]
fn pair_has_a_tier_and_no_name() {
    let key = ApiKey::header("x-api-key", |_: &str| Some(Principal::named("alice").in_tier("pro")));
    let who = PeerIp::new().and(key);
    let pair = client(&who, &request("203.0.113.9", &[("x-api-key", "k")])).unwrap();
    assert_eq!(pair.tier().unwrap().as_str(), "pro");
    assert!(pair.name().is_none());
    assert!(who.guarantees().verified && !who.guarantees().named);
}
