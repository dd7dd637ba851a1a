//! Forwarding fields: only trusted proxies are believed.

use tollgate::{Forwarded, Identify, PeerIp};

use crate::{charged, client, distinct, request};

const PROXY: &str = "10.0.0.1";
const XFF: &str = "x-forwarded-for";

fn x_forwarded_for() -> PeerIp {
    PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8", "fd00::/8"]))
}

fn rfc7239() -> PeerIp {
    PeerIp::new().trust_forwarded(Forwarded::rfc7239().from_networks(["10.0.0.0/8", "fd00::/8"]))
}

fn real_ip() -> PeerIp {
    PeerIp::new().trust_forwarded(Forwarded::single("x-real-ip").from_networks(["10.0.0.0/8"]))
}

fn ipv4(n: u32) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from_bits(0x0100_0000 + n)
}

#[test]
fn ten_thousand_forged_x_forwarded_for_are_one_client() {
    let who = x_forwarded_for();
    let forged = (0..10_000).map(|n| request(PROXY, &[(XFF, format!("{}, 198.51.100.7", ipv4(n)))]));
    assert_eq!(distinct(&who, forged), 1);
    let honest = (0..100).map(|n| request(PROXY, &[(XFF, ipv4(n).to_string())]));
    assert_eq!(distinct(&who, honest), 100, "the proxy's own word counts");
}

#[test]
fn ten_thousand_forged_forwarded_are_one_client() {
    let who = rfc7239();
    let forged = (0..10_000).map(|n| request(PROXY, &[("forwarded", format!("for={}, for=198.51.100.7", ipv4(n)))]));
    assert_eq!(distinct(&who, forged), 1);
}

#[test]
fn direct_client_is_charged_by_its_peer_address() {
    for who in [x_forwarded_for(), rfc7239(), real_ip()] {
        for value in ["1.1.1.1", "for=1.1.1.1", "rubbish", "", "10.0.0.1"] {
            let lines = [(XFF, value), ("forwarded", value), ("x-real-ip", value)];
            assert_eq!(charged(&who, "203.0.113.9", &lines), "203.0.113.9");
        }
    }
    assert_eq!(charged(&PeerIp::new(), PROXY, &[(XFF, "1.1.1.1")]), PROXY, "no proxy is trusted by default");
}

#[test]
fn rightmost_untrusted_address_is_the_client() {
    for (list, name) in [
        ("198.51.100.7", "198.51.100.7"),
        ("1.1.1.1, 198.51.100.7, 10.0.0.3, 10.0.0.2", "198.51.100.7"),
        ("1.1.1.1,198.51.100.7,10.0.0.2", "198.51.100.7"),
        ("1.1.1.1\t ,\t 198.51.100.7 \t", "198.51.100.7"),
        ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
        ("1.1.1.1, 2001:db8::7", "2001:db8::/64"),
        ("2001:db8::7, fd00::2", "2001:db8::/64"),
    ] {
        assert_eq!(charged(&x_forwarded_for(), PROXY, &[(XFF, list)]), name, "{list}");
    }
    assert_eq!(charged(&x_forwarded_for(), PROXY, &[] as &[(&str, &str)]), PROXY, "no field: the proxy itself");
    assert_eq!(charged(&x_forwarded_for(), "fd00::1", &[(XFF, "198.51.100.7")]), "198.51.100.7");
}

#[test]
fn address_with_a_port_is_not_skipped() {
    for (list, name) in [
        ("1.1.1.1, 198.51.100.7:4711", "198.51.100.7"),
        ("1.1.1.1, [2001:db8::7]:4711", "2001:db8::/64"),
        ("1.1.1.1, [2001:db8::7]", "2001:db8::/64"),
        ("1.1.1.1, 198.51.100.7:4711, 10.0.0.2:80", "198.51.100.7"),
    ] {
        assert_eq!(charged(&x_forwarded_for(), PROXY, &[(XFF, list)]), name, "{list}");
    }
    for (list, name) in [
        ("for=1.1.1.1, for=\"198.51.100.7:4711\"", "198.51.100.7"),
        ("for=1.1.1.1, For=\"[2001:db8::7]:_a\";proto=https", "2001:db8::/64"),
        ("for=1.1.1.1,by=10.0.0.1;for=198.51.100.7;host=\"x,for=2.2.2.2\"", "198.51.100.7"),
        ("for=1.1.1.1, for=198.51.100.7, for=10.0.0.2;by=10.0.0.1", "198.51.100.7"),
        ("for=\"1.1.1.1, for=198.51.100.7", "198.51.100.7"),
        ("for=\"\\, for=198.51.100.7", "198.51.100.7"),
    ] {
        assert_eq!(charged(&rfc7239(), PROXY, &[("forwarded", list)]), name, "{list}");
    }
}

#[test]
fn several_field_lines_form_one_list() {
    let lines = [(XFF, "1.1.1.1"), (XFF, "2.2.2.2, 198.51.100.7"), (XFF, "10.0.0.3"), (XFF, "10.0.0.2")];
    assert_eq!(charged(&x_forwarded_for(), PROXY, &lines), "198.51.100.7");
    let lines = [("forwarded", "for=1.1.1.1"), ("forwarded", "for=198.51.100.7"), ("forwarded", "for=10.0.0.2")];
    assert_eq!(charged(&rfc7239(), PROXY, &lines), "198.51.100.7");
    let forged = (0..1_000).map(|n| request(PROXY, &[(XFF, ipv4(n).to_string()), (XFF, "198.51.100.7".to_owned())]));
    assert_eq!(distinct(&x_forwarded_for(), forged), 1);
}

#[test]
fn unreadable_value_charges_the_proxy_that_appended_it() {
    for (list, name) in [
        ("1.1.1.1, unknown", PROXY),
        ("1.1.1.1, _hidden", PROXY),
        ("1.1.1.1, unix:", PROXY),
        ("1.1.1.1, 198.51.100.300", PROXY),
        ("1.1.1.1, 0x7f.1", PROXY),
        ("1.1.1.1, unknown, 10.0.0.2", "10.0.0.2"),
        ("1.1.1.1; 198.51.100.7", PROXY),
        ("1.1.1.1 198.51.100.7", PROXY),
        (", 198.51.100.7", "198.51.100.7"),
        (",,,", PROXY),
        ("", PROXY),
    ] {
        assert_eq!(charged(&x_forwarded_for(), PROXY, &[(XFF, list)]), name, "{list:?}");
    }
    for list in ["for=1.1.1.1, for=unknown", "for=1.1.1.1, for=_a", "for=1.1.1.1, proto=http", "1.1.1.1"] {
        assert_eq!(charged(&rfc7239(), PROXY, &[("forwarded", list)]), PROXY, "{list:?}");
    }
}

#[test]
fn non_text_bytes_charge_the_proxy_that_appended_them() {
    let lines = [(XFF, b"1.1.1.1, \xff\xfe".as_slice())];
    assert_eq!(charged(&x_forwarded_for(), PROXY, &lines), PROXY);
    let lines = [(XFF, b"\xff\xfe, 198.51.100.7".as_slice())];
    assert_eq!(charged(&x_forwarded_for(), PROXY, &lines), "198.51.100.7");
    let lines = [("forwarded", b"for=\"\xff, for=198.51.100.7;host=\"\xe9\"".as_slice())];
    assert_eq!(charged(&rfc7239(), PROXY, &lines), "198.51.100.7");
}

#[test]
fn ipv4_mapped_address_equals_its_ipv4_form() {
    let who = x_forwarded_for();
    assert_eq!(charged(&who, "::ffff:10.0.0.1", &[(XFF, "198.51.100.7")]), "198.51.100.7");
    assert_eq!(charged(&who, PROXY, &[(XFF, "198.51.100.7, ::ffff:10.0.0.2")]), "198.51.100.7");
    let one = [
        request(PROXY, &[(XFF, "198.51.100.7")]),
        request(PROXY, &[(XFF, "::ffff:198.51.100.7")]),
        request(PROXY, &[(XFF, "[::ffff:c633:6407]:80")]),
        request("198.51.100.7", &[] as &[(&str, &str)]),
        request("::ffff:198.51.100.7", &[] as &[(&str, &str)]),
    ];
    assert_eq!(distinct(&who, one), 1);
}

#[test]
fn only_the_configured_hops_are_trusted() {
    let hops = |count| PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().through_hops(count));
    let list = [(XFF, "1.1.1.1, 2.2.2.2, 198.51.100.7")];
    assert_eq!(charged(&hops(1), "203.0.113.1", &list), "198.51.100.7");
    assert_eq!(charged(&hops(2), "203.0.113.1", &list), "2.2.2.2");
    assert_eq!(charged(&hops(32), "203.0.113.1", &list), "1.1.1.1", "a shorter list is taken to its left end");
    assert_eq!(charged(&hops(2), "203.0.113.1", &[(XFF, "1.1.1.1, rubbish, 198.51.100.7")]), "198.51.100.7");
    let forged = (0..1_000).map(|n| request("203.0.113.1", &[(XFF, format!("{}, 198.51.100.7", ipv4(n)))]));
    assert_eq!(distinct(&hops(1), forged), 1);
    assert!(!hops(1).guarantees().verified, "a client that bypasses the proxies can claim any address");
    assert!(x_forwarded_for().guarantees().verified);
}

#[test]
fn behind_a_unix_socket_hops_are_counted_without_a_peer() {
    let mut behind = request("127.0.0.1", &[(XFF, "1.1.1.1, 198.51.100.7")]);
    behind.extensions.clear();
    let hops = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().through_hops(1));
    assert_eq!(client(&hops, &behind).unwrap().name().unwrap().to_string(), "198.51.100.7");
    assert_eq!(client(&x_forwarded_for(), &behind), None, "a network is trusted only when the peer is known");
}

#[test]
fn single_field_counts_once_from_a_trusted_peer() {
    assert_eq!(charged(&real_ip(), PROXY, &[("x-real-ip", "198.51.100.7")]), "198.51.100.7");
    assert_eq!(charged(&real_ip(), PROXY, &[("x-real-ip", " 198.51.100.7:80 ")]), "198.51.100.7");
    assert_eq!(charged(&real_ip(), PROXY, &[("x-real-ip", "10.0.0.2")]), "10.0.0.2");
    assert_eq!(charged(&real_ip(), PROXY, &[("x-real-ip", "1.1.1.1, 198.51.100.7")]), PROXY);
    assert_eq!(charged(&real_ip(), PROXY, &[("x-real-ip", "1.1.1.1"), ("x-real-ip", "198.51.100.7")]), PROXY);
    assert_eq!(charged(&real_ip(), PROXY, &[("x-real-ip", "1".repeat(400_000))]), PROXY);
}

#[test]
fn field_of_400_kb_changes_nothing() {
    let honest = ", 198.51.100.7";
    for filler in ["1.1.1.1,", "x", ",", "\"", "\\\"", " ", "10.0.0.2,"] {
        let flood = filler.repeat(400_000 / filler.len());
        assert_eq!(charged(&x_forwarded_for(), PROXY, &[(XFF, format!("{flood}{honest}"))]), "198.51.100.7");
        let last = format!("{flood}, for=198.51.100.7");
        assert_eq!(charged(&rfc7239(), PROXY, &[("forwarded", last)]), "198.51.100.7");
        let alone = charged(&x_forwarded_for(), PROXY, &[(XFF, flood.as_str())]);
        assert!(["10.0.0.1", "10.0.0.2", "1.1.1.1"].contains(&alone.as_str()), "{filler}: {alone}");
    }
}

#[test]
fn walk_over_addresses_is_bounded() {
    let among_friends = format!("198.51.100.7{}", ", 10.0.0.2".repeat(31));
    assert_eq!(charged(&x_forwarded_for(), PROXY, &[(XFF, among_friends)]), "198.51.100.7");
    let too_many = format!("198.51.100.7{}", ", 10.0.0.2".repeat(32));
    assert_eq!(charged(&x_forwarded_for(), PROXY, &[(XFF, too_many)]), "10.0.0.2");
}

#[test]
fn invalid_settings_fail_at_construction() {
    let text = |result: Result<Forwarded, tollgate::ConfigError>| result.unwrap_err().to_string();
    for all_the_world in ["0.0.0.0/0", "::/0"] {
        let reason = text(Forwarded::x_forwarded_for().try_from_networks([all_the_world]));
        assert!(reason.ends_with(&format!("with a prefix length above 0, got \"{all_the_world}\"")), "{reason}");
    }
    assert_eq!(text(Forwarded::rfc7239().try_through_hops(33)), "trusted hops must be from 1 to 32, got 33");
    assert!(Forwarded::try_single("x\r\ny").unwrap_err().to_string().contains("\"x\\r\\ny\""));
}

#[test]
#[should_panic(expected = "field name must be a token of RFC 9110, got \"x real ip\"")]
fn wrong_field_name_panics_with_name_and_reason() {
    let _ = Forwarded::single("x real ip");
}
