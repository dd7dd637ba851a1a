//! Properties of identification for arbitrary input.

use http::HeaderValue;
use proptest::prelude::*;
use tollgate::{ApiKey, Forwarded, Identify, PeerIp, Principal, Unverified};

use crate::{client, request};

const PROXY: &str = "10.0.0.1";

/// Bytes of a field, with frequent separators and other bytes that have a meaning.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let meaningful = prop::sample::select(&b",;=\"\\ \t[]:._forFORunknown0123456789\xff"[..]);
    let word =
        prop::sample::select(vec!["for=", "1.1.1.1", "10.0.0.2", "[2001:db8::1]", ", ", "\"", "\\\"", "fd00::2"]);
    let piece = prop_oneof![
        meaningful.prop_map(|byte| vec![byte]),
        word.prop_map(|word| word.as_bytes().to_vec()),
        any::<u8>().prop_filter("not in a field", |b| *b >= 32 && *b != 127).prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Elements that trusted proxies appended, by form; the client's is first.
fn appended() -> impl Strategy<Value = (String, String)> {
    let clients =
        prop::sample::select(vec!["198.51.100.7", "[2001:db8:7::7]", "198.51.100.7:80", "[2001:db8:7::7]:80"]);
    (clients, 0..4_usize).prop_map(|(client, proxies)| {
        let (mut list, mut pairs) = (client.to_owned(), format!("for=\"{client}\";host=\"a, \\\"b\""));
        for n in 0..proxies {
            list.push_str(&format!(", 10.0.1.{n}"));
            pairs.push_str(&format!(",proto=http;for=10.0.1.{n}"));
        }
        (list, pairs)
    })
}

fn behind(form: &str) -> PeerIp {
    let field = if form == "forwarded" { Forwarded::rfc7239() } else { Forwarded::x_forwarded_for() };
    PeerIp::new().trust_forwarded(field.from_networks(["10.0.0.0/8", "fd00::/8"]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn addresses_left_of_the_proxys_entry_are_ignored(
        forged in field(),
        (list, pairs) in appended(),
        new_line in any::<bool>(),
    ) {
        for (form, own) in [("x-forwarded-for", list), ("forwarded", pairs)] {
            let honest = client(&behind(form), &request(PROXY, &[(form, &own)]));
            let lines = match new_line {
                true => vec![(form, forged.clone()), (form, own.into_bytes())],
                false => vec![(form, [&forged[..], b", ", own.as_bytes()].concat())],
            };
            let name = honest.as_ref().unwrap().name().unwrap().to_string();
            prop_assert!(name == "198.51.100.7" || name == "2001:db8:7::/64", "{}", name);
            prop_assert_eq!(client(&behind(form), &request(PROXY, &lines)), honest);
        }
    }

    #[test]
    fn no_input_panics_or_moves_a_direct_client(first in field(), second in field()) {
        let any_key = |_: &str| Some(Principal::unnamed());
        let who = [
            Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]),
            Forwarded::rfc7239().from_networks(["10.0.0.0/8"]),
            Forwarded::single("x-real-ip").from_networks(["10.0.0.0/8"]),
        ];
        let names = ["x-forwarded-for", "forwarded", "x-real-ip", "authorization", "cookie", "x-api-key"];
        let lines: Vec<_> = names.iter().flat_map(|name| [(*name, &first), (*name, &second)]).collect();
        for forwarded in who {
            let peer = PeerIp::new().trust_forwarded(forwarded);
            prop_assert!(client(&peer, &request(PROXY, &lines)).is_some());
            let direct = client(&peer, &request("203.0.113.9", &lines)).unwrap();
            prop_assert_eq!(direct.name().unwrap().to_string(), "203.0.113.9");
        }
        for lines in [&lines[..], &lines.iter().copied().step_by(2).collect::<Vec<_>>()] {
            let request = request(PROXY, lines);
            for who in [ApiKey::header("x-api-key", any_key), ApiKey::bearer(any_key), ApiKey::cookie("f", any_key)] {
                let _ = client(&who, &request);
            }
            for who in [Unverified::header("x-api-key"), Unverified::bearer(), Unverified::cookie("f")] {
                let _ = client(&who.public(), &request);
            }
        }
    }

    #[test]
    fn every_notation_of_an_address_is_one_client(bits in any::<u32>(), port in any::<u16>()) {
        let ip = std::net::Ipv4Addr::from_bits(bits);
        let who = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().through_hops(1));
        let direct = client(&PeerIp::new(), &request(&ip.to_string(), &[] as &[(&str, &str)]));
        let mapped = ip.to_ipv6_mapped();
        for written in [format!("{ip}"), format!("{ip}:{port}"), format!("{mapped}"), format!("[{mapped}]:{port}")] {
            prop_assert_eq!(&client(&who, &request(PROXY, &[("x-forwarded-for", &written)])), &direct, "{}", written);
        }
    }

    #[test]
    fn different_keys_are_different_clients(a in "[!-~]{1,40}", b in "[!-~]{1,40}") {
        let who = ApiKey::header("x-api-key", |_: &str| Some(Principal::unnamed())).or(Unverified::bearer());
        let of = |key: &str| client(&who, &request(PROXY, &[("x-api-key", key)]));
        prop_assert_eq!(of(&a) == of(&b), a == b);
        prop_assert!(HeaderValue::from_str(&a).is_ok());
    }
}
