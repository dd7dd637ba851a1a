//! API keys, principals, and unverified values.

use std::{collections::HashMap, sync::Arc};

use tollgate::{ApiKey, Client, Identify, PeerIp, Principal, Unverified, Verified};

use crate::{charged, client, distinct, request};

const PEER: &str = "203.0.113.9";

fn table() -> Arc<HashMap<String, Principal>> {
    Arc::new(HashMap::from([
        ("k-alice-1".to_owned(), Principal::named("alice").in_tier("pro")),
        ("k-alice-2".to_owned(), Principal::named("alice").in_tier("pro")),
        ("k-bob".to_owned(), Principal::named("bob")),
        ("k-loose-1".to_owned(), Principal::unnamed()),
        ("k-loose-2".to_owned(), Principal::unnamed().in_tier("free")),
        ("k-private-1".to_owned(), Principal::private("carol@example.org")),
        ("k-private-2".to_owned(), Principal::private("carol@example.org")),
    ]))
}

fn with_key(key: impl AsRef<[u8]>) -> http::request::Parts {
    request(PEER, &[("x-api-key", key)])
}

#[test]
fn principal_is_charged_and_not_its_key() {
    let who = ApiKey::header("X-Api-Key", table());
    assert_eq!(distinct(&who, ["k-alice-1", "k-alice-2"].map(with_key)), 1);
    assert_eq!(distinct(&who, ["k-private-1", "k-private-2"].map(with_key)), 1);
    assert_eq!(distinct(&who, ["k-loose-1", "k-loose-2"].map(with_key)), 2, "an unnamed principal is its key");
    let alice = client(&who, &with_key("k-alice-1")).unwrap();
    assert_eq!(alice, Client::named("alice"), "a handle finds the client by its name");
    assert_eq!(alice.tier().unwrap().as_str(), "pro");
    assert_eq!(client(&who, &with_key("k-loose-2")).unwrap().tier().unwrap().as_str(), "free");
    assert!(client(&who, &with_key("k-private-1")).unwrap().name().is_none());
}

#[test]
fn key_is_found_in_header_bearer_and_cookie() {
    let alice = Client::named("alice");
    let request = request(
        PEER,
        &[("x-api-key", "k-alice-1"), ("authorization", "Bearer k-alice-2"), ("cookie", "a=b; key=k-alice-1")],
    );
    for who in [ApiKey::header("x-api-key", table()), ApiKey::bearer(table()), ApiKey::cookie("key", table())] {
        assert_eq!(client(&who, &request).as_ref(), Some(&alice), "{who:?}");
    }
}

#[test]
fn hundred_thousand_random_keys_from_one_peer_are_one_client() {
    let who = ApiKey::header("x-api-key", table()).or(ApiKey::bearer(table())).or(PeerIp::new());
    let random = (0..100_000_u64).map(|n| {
        let key = format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        match n % 2 {
            0 => with_key(key),
            _ => request(PEER, &[("authorization", format!("Bearer {key}"))]),
        }
    });
    assert_eq!(distinct(&who, random), 1);
}

#[test]
fn malformed_key_is_no_identity() {
    let any_key = ApiKey::header("x-api-key", |_: &str| Some(Principal::unnamed()));
    assert!(client(&any_key, &with_key("k")).is_some());
    assert!(client(&any_key, &with_key("k".repeat(4_096))).is_some());
    assert!(client(&any_key, &with_key("k".repeat(4_097))).is_none());
    assert!(client(&any_key, &with_key("k".repeat(400_000))).is_none());
    assert!(client(&any_key.clone().at_most(64), &with_key("k".repeat(65))).is_none());
    assert!(client(&any_key, &with_key("")).is_none());
    assert!(client(&any_key, &with_key(b"\xff\xfe")).is_none());
    assert!(client(&any_key, &request(PEER, &[("x-api-key", "k-alice-1"), ("x-api-key", "k-bob")])).is_none());
    let who = ApiKey::header("x-api-key", table()).or(PeerIp::new());
    for key in ["guessed", "", "K-ALICE-1", "k-alice-1 x"] {
        assert_eq!(charged(&who, PEER, &[("x-api-key", key)]), PEER);
    }
}

#[test]
fn guarantees_are_known_when_built() {
    let named = HashMap::from([("k".to_owned(), Principal::named("alice"))]);
    assert!(ApiKey::bearer(named.clone()).guarantees().named);
    assert!(ApiKey::bearer(named).or(PeerIp::new()).guarantees().named);
    assert!(!ApiKey::bearer(table()).guarantees().named);
    let strict = ApiKey::header("x-api-key", table()).named_only();
    assert!(strict.guarantees().named && strict.guarantees().verified);
    assert!(client(&strict, &with_key("k-loose-1")).is_none());
    assert!(client(&strict, &with_key("k-bob")).is_some());
    assert!(!ApiKey::bearer(table()).or(Unverified::bearer()).guarantees().verified);
}

#[test]
fn verified_identity_is_read_from_extensions() {
    #[derive(Clone)]
    struct User(Option<&'static str>);
    let who = Verified::from_extension(|user: &User| user.0.map(Principal::named));
    let with = |user: User| {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.extensions.insert(user);
        client(&who, &parts)
    };
    assert_eq!(with(User(Some("alice"))), Some(Client::named("alice")));
    assert_eq!(with(User(None)), None);
    assert_eq!(client(&who, &http::Request::new(()).into_parts().0), None);
    assert!(who.guarantees().verified);
    let unnamed = Verified::from_extension(|_: &User| Some(Principal::unnamed()));
    let request = http::Request::builder().extension(User(None)).body(()).unwrap();
    assert_eq!(client(&unnamed, &request.into_parts().0), None, "no credential stands for an unnamed principal");
}

#[test]
fn same_name_in_two_kinds_is_two_clients() {
    let name = "198.51.100.7";
    let mut request = request(
        name,
        &[("x-user", name), ("x-tenant", name), ("cookie", "198.51.100.7=198.51.100.7"), ("x-api-key", name)],
    );
    request.headers.insert("authorization", format!("Bearer {name}").parse().unwrap());
    let who: Vec<Box<dyn Identify>> = vec![
        Box::new(PeerIp::new()),
        Box::new(Unverified::header("x-user").public()),
        Box::new(Unverified::header("x-tenant").public()),
        Box::new(Unverified::bearer()),
        Box::new(Unverified::cookie(name)),
        Box::new(ApiKey::header("x-api-key", |key: &str| Some(Principal::named(key)))),
        Box::new(ApiKey::header("x-api-key", |key: &str| Some(Principal::private(key)))),
        Box::new(ApiKey::header("x-api-key", |_: &str| Some(Principal::unnamed()))),
    ];
    let clients: std::collections::HashSet<_> = who.iter().map(|who| client(who, &request).unwrap()).collect();
    assert_eq!(clients.len(), who.len());
}

#[test]
fn unverified_value_is_a_name_only_if_public() {
    let secret = Unverified::header("x-user");
    let public = Unverified::header("x-user").public();
    assert_eq!(charged(&secret, PEER, &[("x-user", "alice")]), "?");
    assert_eq!(charged(&public, PEER, &[("x-user", "alice")]), "alice");
    assert_eq!(charged(&public, PEER, &[("x-user", "José")]), "José");
    assert_eq!(charged(&secret, PEER, &[("x-user", b"\xff")]), "?");
    for value in ["a\tb", "a\u{85}b", "a\u{2028}b", "a\u{202e}b"] {
        assert_eq!(charged(&public, PEER, &[("x-user", value)]), "-", "{value:?}");
    }
    assert_eq!(charged(&public, PEER, &[("x-user", b"\xff")]), "-");
    assert_eq!(charged(&secret, PEER, &[("x-user", "a".repeat(4_097))]), "-");
    assert_eq!(charged(&secret, PEER, &[("x-user", "a"), ("x-user", "a")]), "-");
    assert_eq!(charged(&secret.or(PeerIp::new()), PEER, &[("x-user", "")]), PEER);
}

#[test]
fn secret_is_in_no_debug_form() {
    let canary = "canary-5d1e";
    let keys =
        HashMap::from([(canary.to_owned(), Principal::unnamed()), ("other".to_owned(), Principal::private(canary))]);
    let who = ApiKey::header("x-api-key", keys.clone()).or(Unverified::bearer());
    let account = &keys["other"];
    let by_key = client(&who, &with_key(canary)).unwrap();
    let private = client(&who, &with_key("other")).unwrap();
    let bearer = client(&who, &request(PEER, &[("authorization", format!("Bearer {canary}"))])).unwrap();
    let cookie = client(&Unverified::cookie("sid"), &request(PEER, &[("cookie", format!("sid={canary}"))])).unwrap();
    let shown = format!("{who:?} {account:?} {by_key:?} {private:?} {bearer:?} {cookie:?} {:?}", by_key.digest());
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("x-api-key"), "the place is no secret");
}

#[test]
#[should_panic(expected = "field name must be a token of RFC 9110, got \"x api key\"")]
fn wrong_field_name_panics_with_name_and_reason() {
    let _ = ApiKey::header("x api key", table());
}

#[test]
#[should_panic(expected = "cookie name must be a token of RFC 9110, got \"s;id\"")]
fn wrong_cookie_name_panics_with_name_and_reason() {
    let _ = Unverified::cookie("s;id");
}
