//! Peer addresses from each framework.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
    middleware::{Next, from_fn},
    response::IntoResponse,
    routing::get,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate::PeerIp;
use tonic::transport::server::TcpConnectInfo;

use crate::{charged, client, distinct, request};

const NOTHING: &[(&str, &str)] = &[];

#[test]
fn peer_address_type_of_the_framework_is_named_once() {
    let address: SocketAddr = "198.51.100.7:4711".parse().unwrap();
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.extensions.insert(ConnectInfo(address));
    let tcp = TcpConnectInfo { local_addr: None, remote_addr: Some(address) };
    parts.extensions.insert(Tls(tcp.clone())); // as tonic does behind TLS
    parts.extensions.insert(tcp);
    parts.extensions.insert(address.ip());
    let axum = PeerIp::from_extension(|c: &ConnectInfo<SocketAddr>| Some(c.0));
    let tonic = PeerIp::from_extension(|c: &TcpConnectInfo| c.remote_addr());
    let tls = PeerIp::from_extension(|c: &Tls<TcpConnectInfo>| c.get_ref().remote_addr());
    let bare = PeerIp::from_extension(|ip: &IpAddr| Some(*ip));
    for who in [axum, tonic, tls, bare] {
        assert_eq!(client(&who, &parts).unwrap().name().unwrap().to_string(), "198.51.100.7");
    }
    assert_eq!(client(&PeerIp::new(), &parts), None, "there is no plain SocketAddr");
}

/// Type of tonic's `TlsConnectInfo`, which exists only with a complete implementation of TLS.
#[derive(Clone)]
struct Tls<T>(T);

impl<T> Tls<T> {
    fn get_ref(&self) -> &T {
        &self.0
    }
}

#[test]
fn missing_extension_is_no_identity() {
    let (parts, ()) = http::Request::new(()).into_parts();
    let who = PeerIp::from_extension(|c: &ConnectInfo<SocketAddr>| Some(c.0));
    assert_eq!(client(&who, &parts), None);
    assert!(format!("{who:?}").contains("ConnectInfo<core::net::socket_addr::SocketAddr>"), "{who:?}");
}

#[tokio::test]
async fn axum_reports_the_peer_of_a_real_connection() {
    async fn name(request: Request, _: Next) -> impl IntoResponse {
        let who = PeerIp::from_extension(|c: &ConnectInfo<SocketAddr>| Some(c.0));
        let (parts, _) = request.into_parts();
        client(&who, &parts).unwrap().name().unwrap().to_string()
    }
    let app = Router::new().route("/", get(|| async {})).layer(from_fn(name));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("\r\n\r\n127.0.0.1"), "{answer}");
    server.abort();
}

#[test]
fn five_thousand_addresses_of_one_64_are_one_client() {
    let network = 0x2001_0db8_0000_0001_u128 << 64;
    let rotation = |step: u128| {
        (0..5_000_u128).map(move |n| request(&Ipv6Addr::from_bits(network + n * step).to_string(), NOTHING))
    };
    assert_eq!(distinct(&PeerIp::new(), rotation(0x1_0000_0001)), 1);
    assert_eq!(distinct(&PeerIp::new(), rotation(1 << 64)), 5_000, "another /64 is another client");
    assert_eq!(distinct(&PeerIp::new().group_v6(48), rotation(1 << 64)), 1);
    assert_eq!(distinct(&PeerIp::new().group_v6(128), rotation(1)), 5_000);
}

#[test]
fn ipv4_is_grouped_only_when_asked() {
    let block = || (0..256).map(|n| request(&format!("198.51.100.{n}"), NOTHING));
    assert_eq!(distinct(&PeerIp::new(), block()), 256);
    assert_eq!(distinct(&PeerIp::new().group_v4(24), block()), 1);
    assert_eq!(charged(&PeerIp::new().group_v4(24), "::ffff:198.51.100.7", NOTHING), "198.51.100.0/24");
}

#[test]
fn networks_of_another_size_are_other_clients() {
    let who = [PeerIp::new(), PeerIp::new().group_v6(48).group_v4(24), PeerIp::new().group_v6(32).group_v4(16)];
    for network in ["2001:db8::", "198.51.0.0"] {
        let request = request(network, NOTHING);
        let clients: std::collections::HashSet<_> = who.iter().map(|who| client(who, &request).unwrap()).collect();
        assert_eq!(clients.len(), 3, "{network}");
    }
}

#[test]
#[should_panic(expected = "IPv6 prefix must be from 32 to 128, got 31")]
fn all_of_ipv6_is_not_one_client() {
    let _ = PeerIp::new().group_v6(31);
}

#[test]
#[should_panic(expected = "IPv4 prefix must be from 8 to 32, got 7")]
fn all_of_ipv4_is_not_one_client() {
    let _ = PeerIp::new().group_v4(7);
}
