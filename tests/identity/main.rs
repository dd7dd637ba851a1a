//! Clients that requests are attributed to, with honest and with forged fields.

mod chains;
mod forged;
mod keys;
mod lookups;
mod missing;
mod names;
mod peer_faults;
mod peers;
mod properties;
mod proxies;

use std::{collections::HashSet, net::SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Request, request::Parts};
use tollgate::{Client, Digester, Identify, RequestHead};

/// A request from `peer`, an address without a port, with these header lines.
fn request<V: AsRef<[u8]>>(peer: &str, lines: &[(&str, V)]) -> Parts {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.headers = headers;
    parts.extensions.insert(SocketAddr::new(peer.parse().unwrap(), 4711));
    parts
}

fn client(who: &impl Identify, request: &Parts) -> Option<Client> {
    who.identify(&RequestHead::from(request), Digester::process())
}

/// Returns the public name of the charged client; `-` for no identity, `?` for a client without a name.
fn charged<V: AsRef<[u8]>>(who: &impl Identify, peer: &str, lines: &[(&str, V)]) -> String {
    match client(who, &request(peer, lines)) {
        None => "-".to_owned(),
        Some(client) => client.name().map_or_else(|| "?".to_owned(), ToString::to_string),
    }
}

/// Returns the number of distinct clients of the requests.
fn distinct(who: &impl Identify, requests: impl IntoIterator<Item = Parts>) -> usize {
    requests.into_iter().map(|request| client(who, &request)).collect::<HashSet<_>>().len()
}
