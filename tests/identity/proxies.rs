//! Spellings of addresses by trusted proxies, and fields that cannot be read.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::{ApiKey, Event, Forwarded, Identify, PeerIp, Rate, RequestHead, TokenBucketLayer};
use tower::{Layer, ServiceExt, service_fn};

use crate::charged;

const PROXY: &str = "10.0.0.1";
const XFF: &str = "x-forwarded-for";

fn behind_proxy() -> PeerIp {
    PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]))
}

#[test]
fn empty_list_elements_are_skipped() {
    for (list, name) in [
        ("203.0.113.9, ", "203.0.113.9"),
        ("203.0.113.9,,\t,", "203.0.113.9"),
        (",203.0.113.9 , ,10.0.0.2,", "203.0.113.9"),
        ("", PROXY),
        (" , ", PROXY),
    ] {
        assert_eq!(charged(&behind_proxy(), PROXY, &[(XFF, list)]), name, "{list:?}");
    }
    assert_eq!(charged(&behind_proxy(), PROXY, &[(XFF, "203.0.113.9"), (XFF, "")]), "203.0.113.9");
    let rfc = PeerIp::new().trust_forwarded(Forwarded::rfc7239().from_networks([PROXY]));
    assert_eq!(charged(&rfc, PROXY, &[("forwarded", "for=203.0.113.9, ,")]), "203.0.113.9");
    let empty_line = [(XFF, "203.0.113.9"), (XFF, ""), (XFF, "10.0.0.2")];
    assert_eq!(charged(&behind_proxy(), PROXY, &empty_line), "203.0.113.9");
    let many = format!("203.0.113.9{}", ",".repeat(40));
    assert_eq!(charged(&behind_proxy(), PROXY, &[(XFF, many)]), PROXY, "at most 32 elements are read");
}

#[test]
fn quoted_address_and_zone_are_read() {
    for (element, name) in [
        ("\"203.0.113.9\"", "203.0.113.9"),
        ("\"203.0.113.9:4711\"", "203.0.113.9"),
        ("\"[2001:db8::7]:4711\"", "2001:db8::/64"),
        ("fe80::7%eth0", "fe80::7"),
        ("[fe80::7%25eth0]:4711", "fe80::7"),
        ("fe80::7%", PROXY),
        ("%eth0", PROXY),
    ] {
        assert_eq!(charged(&behind_proxy(), PROXY, &[(XFF, element)]), name, "{element:?}");
        let single = PeerIp::new().trust_forwarded(Forwarded::single("x-real-ip").from_networks([PROXY]));
        assert_eq!(charged(&single, PROXY, &[("x-real-ip", element)]), name, "{element:?}");
    }
}

#[test]
fn trusted_loopback_covers_both_families() {
    for (trusted, peer, name) in [
        ("127.0.0.1", "::1", "203.0.113.9"),
        ("::1", "127.0.0.1", "203.0.113.9"),
        ("127.0.0.0/8", "::1", "203.0.113.9"),
        ("::1", "127.0.0.2", "127.0.0.2"),
        ("10.0.0.0/8", "::1", "::/64"),
    ] {
        let who = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks([trusted]));
        assert_eq!(charged(&who, peer, &[(XFF, "203.0.113.9")]), name, "{trusted} {peer}");
    }
}

#[test]
fn cloudfront_address_has_a_port_and_no_brackets() {
    let who = PeerIp::new().trust_forwarded(Forwarded::cloudfront().from_networks(["10.0.0.0/8"]));
    assert!(who.guarantees().verified);
    for (value, name) in [
        ("2600:1f18:abcd:1234:5678:9abc:def0:1:46532", "2600:1f18:abcd:1234::/64"),
        ("2600::1:46532", "2600::/64"),
        ("203.0.113.9:46532", "203.0.113.9"),
        ("[2600::1]:46532", "2600::/64"),
        ("203.0.113.9", PROXY),
        ("2600::1:x", PROXY),
    ] {
        let field = [("cloudfront-viewer-address", value)];
        assert_eq!(charged(&who, PROXY, &field), name, "{value}");
        assert_eq!(charged(&who, "192.0.2.1", &field), "192.0.2.1", "an untrusted peer");
    }
}

#[test]
fn own_reader_is_verified_and_asked_only_for_trusted_peers() {
    let read = |request: &RequestHead<'_>| -> Option<IpAddr> {
        request.headers.get("x-viewer")?.to_str().ok()?.strip_prefix("ip=")?.parse().ok()
    };
    let who = PeerIp::new().trust_forwarded(Forwarded::by(read).from_networks(["10.0.0.0/8"]));
    assert!(who.guarantees().verified);
    assert_eq!(charged(&who, PROXY, &[("x-viewer", "ip=203.0.113.9")]), "203.0.113.9");
    assert_eq!(charged(&who, PROXY, &[("x-viewer", "203.0.113.9")]), PROXY);
    assert_eq!(charged(&who, "192.0.2.1", &[("x-viewer", "ip=203.0.113.9")]), "192.0.2.1");
    let hops = PeerIp::new().trust_forwarded(Forwarded::by(read).through_hops(1));
    assert!(!hops.guarantees().verified);
}

#[tokio::test]
async fn unreadable_field_is_reported_once_a_layer() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let who = Arc::new(ApiKey::bearer(|_: &str| None).or(behind_proxy()));
    let layer = |name: &str| {
        let seen = Arc::clone(&seen);
        let layer = TokenBucketLayer::new(Rate::per_second(100)).named(name).identify_by(Arc::clone(&who));
        layer.observe(move |event: &Event<'_>| {
            if let Event::UnreadableForwarded { policy, field } = event {
                seen.lock().unwrap().push(format!("{policy} {field}"));
            }
        })
    };
    let (one, two) = (layer("one"), layer("two"));
    let send = async |layer: &TokenBucketLayer, field: &str| {
        let mut request = Request::builder().header(XFF, field).body(Full::<Bytes>::default()).unwrap();
        request.extensions_mut().insert(SocketAddr::new(PROXY.parse().unwrap(), 4711));
        let hello = service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        assert_eq!(layer.layer(hello).oneshot(request).await.unwrap().status(), 200);
    };
    send(&one, "203.0.113.9, ").await;
    send(&two, "").await;
    assert!(seen.lock().unwrap().is_empty(), "they can be read");
    send(&one, "unknown").await;
    send(&one, "rubbish").await;
    send(&two, "203.0.113.9, 300.1.1.1").await;
    assert_eq!(*seen.lock().unwrap(), ["one x-forwarded-for", "two x-forwarded-for"]);
}
