//! Public names, and clients that code outside a request names.

use std::net::SocketAddr;

use http::Request;
use tollgate::{ApiKey, Client, Digester, Identify, PeerIp, Principal, RequestHead, Unverified, Verified};

use crate::{charged, client, request};

#[test]
fn empty_or_invisible_name_is_no_identity() {
    let key = |name: &'static str| ApiKey::header("x-key", move |_: &str| Some(Principal::named(name)));
    let claimed = Unverified::header("x-key").public();
    for (name, is_public) in [
        ("acme", true),
        ("J\u{f6}rg M\u{fc}ller", true),
        ("\u{646}\u{200c}\u{645}", true), // a joiner inside a Persian word
        ("", false),
        ("a\ncme", false),
        ("ac\u{200e}me", false),
        ("ac\u{61c}me", false),
        ("ac\u{200b}me", false),
        ("\u{feff}acme", false),
        ("ac\u{ad}me", false),
        ("ac\u{2060}me", false),
        ("acme\u{e0061}", false),
        ("\u{202e}emca", false),
    ] {
        let expected = if is_public { name } else { "-" };
        assert_eq!(charged(&key(name), "192.0.2.1", &[("x-key", "k")]), expected, "{name:?}");
        if !name.contains('\n') {
            assert_eq!(charged(&claimed, "192.0.2.1", &[("x-key", name)]), expected, "{name:?}");
        }
        assert_eq!(Principal::named(name).is_named(), is_public, "{name:?}");
        assert_eq!(format!("name:{name}").parse::<Client>().is_ok(), is_public, "{name:?}");
    }
    let idless = Verified::from_extension(|_: &SocketAddr| Some(Principal::private("")));
    assert_eq!(charged(&idless, "192.0.2.1", &[] as &[(&str, &str)]), "-", "one id for all without one");
    assert_eq!(charged(&key("").or(PeerIp::new()), "192.0.2.1", &[("x-key", "k")]), "192.0.2.1");
}

#[test]
fn digester_makes_the_client_of_each_identity() {
    let digester = Digester::process();
    let of = |who: &dyn Identify, value: &str| {
        let mut head = Request::builder().header("x-key", value).extension(SocketAddr::from(([198, 51, 100, 7], 1)));
        head = head.extension(String::from("alice@example.org"));
        who.identify(&RequestHead::of(&head.body(()).unwrap()), digester).unwrap()
    };
    let unnamed = ApiKey::header("x-key", |_: &str| Some(Principal::unnamed()));
    let named = ApiKey::header("x-key", |_: &str| Some(Principal::named("acme")));
    let private = Verified::from_extension(|mail: &String| Some(Principal::private(mail.as_str())));
    assert_eq!(of(&PeerIp::new(), ""), digester.peer("198.51.100.7".parse().unwrap()));
    assert_eq!(of(&PeerIp::new().group_v4(24), ""), "ip:198.51.100.0/24".parse().unwrap());
    assert_eq!(of(&unnamed, "k-1"), digester.key(b"k-1"));
    assert_eq!(of(&named, "k-1"), digester.principal(Principal::named("acme")).unwrap());
    assert_eq!(of(&private, ""), digester.principal(Principal::private("alice@example.org")).unwrap());
    assert_eq!(digester.principal(Principal::unnamed()), None);
    assert_eq!(digester.principal(Principal::named("")), None);
}

#[test]
fn displayed_client_is_parsed_to_the_same() {
    let digester = Digester::process();
    for text in ["name:acme", "name:ip:7", "ip:198.51.100.7", "ip:198.51.100.0/24", "ip:2001:db8::/64", "ip:fe80::7"] {
        let client: Client = text.parse().unwrap();
        assert_eq!(client.to_string(), text);
    }
    assert_eq!(digester.peer("2001:db8::7".parse().unwrap()).to_string(), "ip:2001:db8::/64");
    assert_eq!(digester.peer("64:ff9b::198.51.100.7".parse().unwrap()).to_string(), "ip:198.51.100.7");
    let claimed = Unverified::header("x-user").public();
    let claimed = client(&claimed, &request("192.0.2.1", &[("x-user", "acme")])).unwrap();
    assert_eq!(claimed.to_string(), "other:acme", "not the client that is named acme");
    let nameless = digester.key(b"k-1").to_string();
    assert!(nameless.starts_with('#'), "{nameless}");
    for text in ["acme", "", "name:", "other:acme", "ip:", "ip:x", "ip:198.51.100.7/33", "user:acme", &nameless] {
        let error = text.parse::<Client>().unwrap_err();
        assert!(error.to_string().starts_with("client must be name:.. or ip:.."), "{error}");
    }
}

#[test]
fn pair_has_the_first_tier_that_is_known() {
    let host = |_: &RequestHead<'_>, digester: &Digester| Some(digester.named("a.example"));
    let key = ApiKey::header("x-key", |_: &str| Some(Principal::named("acme").in_tier("pro")));
    let request = request("192.0.2.1", &[("x-key", "k")]);
    for pair in [client(&host.and(key.clone()), &request), client(&key.and(host), &request)] {
        assert_eq!(pair.unwrap().tier().unwrap().as_str(), "pro");
    }
}
