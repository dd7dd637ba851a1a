//! Faults seen in rate limiters behind proxies; each name states the behaviour that must not occur.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use tollgate::{Forwarded, Identify, PeerIp, Unverified};

use crate::{charged, request};

#[test]
fn leftmost_x_forwarded_for_is_not_the_client() {
    let who = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
    for n in 0..10_000_u32 {
        let field = format!("{}, 203.0.113.9", Ipv4Addr::from(n * 4_099));
        assert_eq!(charged(&who, "10.0.0.1", &[("x-forwarded-for", &field)]), "203.0.113.9");
    }
}

#[test]
fn leftmost_forwarded_is_not_the_client() {
    let who = PeerIp::new().trust_forwarded(Forwarded::rfc7239().from_networks(["10.0.0.0/8"]));
    let lines = &[("forwarded", "for=1.1.1.1, for=203.0.113.9;proto=https")];
    assert_eq!(charged(&who, "10.0.0.1", lines), "203.0.113.9");
}

#[test]
fn address_with_port_is_not_skipped_for_a_forged_one() {
    let who = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
    for last in ["203.0.113.9:4711", "[2001:db8::7]:4711"] {
        let lines = &[("x-forwarded-for", &format!("1.1.1.1, {last}"))];
        assert_ne!(charged(&who, "10.0.0.1", lines), "1.1.1.1", "{last}");
    }
}

#[test]
fn second_field_line_is_not_overlooked() {
    let who = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
    let lines = &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9")];
    assert_eq!(charged(&who, "10.0.0.1", lines), "203.0.113.9");
}

#[test]
fn household_does_not_have_two_to_the_64_identities() {
    let clients: HashSet<_> = (0..5_000_u16)
        .map(|n| {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, 7, n, n).to_string();
            charged(&PeerIp::new(), &address, &[] as &[(&str, &str)])
        })
        .collect();
    assert_eq!(clients.len(), 1);
}

#[test]
fn composite_keys_that_look_alike_when_joined_do_not_collide() {
    let who = Unverified::header("x-tenant").and(Unverified::header("x-user"));
    let client = |tenant: &str, user: &str| {
        crate::client(&who, &request("192.0.2.1", &[("x-tenant", tenant), ("x-user", user)])).unwrap()
    };
    for separator in ["|", ",", ":"] {
        let (left, right) = (format!("a{separator}b"), format!("b{separator}c"));
        assert_ne!(client(&left, "c"), client("a", &right), "{separator}");
    }
}
