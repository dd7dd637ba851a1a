//! Fields from which a client is identified: forwarded addresses and API keys.

use std::{collections::HashMap, net::SocketAddr};

use http::{HeaderValue, Request};
use tollgate::{ApiKey, Client, Digester, Forwarded, Identify, PeerIp, Principal, RequestHead};

use crate::{
    engine::{Fuzz, fuzz, summary},
    input::Input,
};

const FORWARDED: Fuzz = Fuzz {
    corpus: &[
        b"\x00198.51.100.7, 10.0.0.2",
        b"\x00[2001:db8::7]:4711, 10.0.0.2:80\n10.0.0.3",
        b"\x01for=198.51.100.7;proto=https, for=\"[2001:db8::7]:4711\"",
        b"\x01for=_hidden, For=\"10.0.0.2\";by=unknown",
        b"\x02203.0.113.9",
        b"\x03a, b, 198.51.100.7",
        b"\x00fe80::1%eth0, ::ffff:10.0.0.1",
    ],
    words: &[
        b"10.0.0.2",
        b"198.51.100.7",
        b"for=",
        b"For=",
        b"\"",
        b"\\",
        b",",
        b", ",
        b";",
        b"[",
        b"]",
        b":",
        b"::",
        b"::1",
        b"%eth0",
        b"unknown",
        b"_x",
        b"\n",
        b"2001:db8::",
        b"::ffff:",
        b"64:ff9b::",
    ],
};

/// Identifies a request with the lines as fields. The result is an address, and elements to the left change it only
/// where all others are trusted.
fn forwarded(bytes: &[u8]) -> u64 {
    let mut input = Input(bytes);
    let (field, form) = match input.byte() % 4 {
        0 => ("x-forwarded-for", Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"])),
        1 => ("forwarded", Forwarded::rfc7239().from_networks(["10.0.0.0/8", "::1"])),
        2 => ("cf-connecting-ip", Forwarded::single("cf-connecting-ip").from_networks(["10.0.0.0/8"])),
        _ => ("x-forwarded-for", Forwarded::x_forwarded_for().through_hops(2)),
    };
    let peer = PeerIp::new().trust_forwarded(form);
    let lines: Vec<_> = input.0.split(|byte| *byte == b'\n').collect();
    let client = |first: Option<&'static str>| {
        let mut request = Request::builder().extension(SocketAddr::from(([10, 0, 0, 1], 80)));
        for line in first.map(str::as_bytes).into_iter().chain(lines.iter().copied()) {
            request = request.header(field, HeaderValue::from_bytes(line).ok()?);
        }
        let request = request.body(()).ok()?;
        let client = peer.identify(&RequestHead::of(&request), Digester::process()).expect("a peer is an identity");
        Some(client.name().expect("addresses are public").to_string())
    };
    let Some(name) = client(None) else { return summary("no header values") };
    if field == "x-forwarded-for" {
        let forged = client(Some("192.0.2.66")).expect("a header value");
        assert!(forged == name || forged == "192.0.2.66", "{name} became {forged}");
    }
    summary((field, name))
}
fuzz!(forwarded_fields, 20_000, FORWARDED, forwarded);

const KEYS: Fuzz = Fuzz {
    corpus: &[
        b"\x00k-7f3a",
        b"\x01Bearer k-7f3a",
        b"\x01bearer  k-7f3a ",
        b"\x01Basic azpr",
        b"\x02sid=k-7f3a; other=1",
        b"\x02a=b;sid=\"k-7f3a\"",
        b"\x00k-7f3a\nk-7f3a",
        b"\x02sid=k-7f3a; sid=x",
    ],
    words: &[b"k-7f3a", b"Bearer ", b"BEARER", b"sid=", b"=", b";", b"; ", b"\"", b" ", b"\t", b"\n", b"\xff", b","],
};

/// Identifies a request by a key. Only the key of the table is an identity, and no text shows a key.
fn api_key(bytes: &[u8]) -> u64 {
    let mut input = Input(bytes);
    let table = HashMap::from([(String::from("k-7f3a"), Principal::named("alice").in_tier("pro"))]);
    let (field, key) = match input.byte() % 3 {
        0 => ("x-api-key", ApiKey::header("x-api-key", table)),
        1 => ("authorization", ApiKey::bearer(table)),
        _ => ("cookie", ApiKey::cookie("sid", table)),
    };
    let mut request = Request::builder();
    for line in input.0.split(|byte| *byte == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { return summary("no header value") };
        request = request.header(field, value);
    }
    let Ok(request) = request.body(()) else { return summary("no request") };
    let client = key.identify(&RequestHead::of(&request), Digester::process());
    assert!(!format!("{key:?} {client:?}").contains("7f3a"), "a secret is shown");
    let sent = bytes.windows(6).filter(|part| *part == b"k-7f3a").count();
    if let Some(client) = &client {
        assert!(sent > 0, "a client without its key");
        assert_eq!(*client, Client::named("alice"));
    }
    summary((field, client.is_some(), sent.min(3), bytes.len() > 4_096))
}
fuzz!(api_keys, 20_000, KEYS, api_key);
