//! One network, or one kind of identity that clients make up, takes no more than its part of the accounts.

use super::*;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tollgate::{ApiKey, Digester, PeerIp, Principal};

/// Number of accounts of the layers here; a network may have a 64th of them.
const MOST: usize = 4_096;
const PART: usize = 64;

fn monthly(requests: u64) -> Plan {
    Plan::new("monthly").limit(Quota::requests(requests).per(Period::month()))
}

fn by_address(plan: Plan, settings: impl FnOnce(QuotaLayer) -> QuotaLayer) -> Scene {
    Scene::new(plan, |layer| settings(layer.identify_by(PeerIp::new()).max_clients(MOST)))
}

/// Returns an address in a /64 of its own, in the /44 of this number.
fn v6(network: u16, host: usize) -> IpAddr {
    let [fourth, third, ..] = host.to_le_bytes();
    let (third, fourth) = (network << 4 | u16::from(third >> 4), u16::from(third & 15) << 8 | u16::from(fourth));
    Ipv6Addr::new(0x2001, 0xdb8, third, fourth, 0, 0, 0, 7).into()
}

fn from(address: IpAddr) -> Request<Full<Bytes>> {
    let peer = SocketAddr::new(address, 4_711);
    Request::post("/").extension(peer).body(Full::default()).unwrap()
}

impl Scene {
    /// Returns the number of requests that pass, one from each address.
    async fn passed(&self, addresses: impl IntoIterator<Item = IpAddr>) -> usize {
        let mut passed = 0;
        for address in addresses {
            passed += usize::from(self.ask(from(address)).await.status == 200);
        }
        passed
    }
}

#[tokio::test]
async fn flood_from_one_network_locks_out_no_other() {
    let scene = by_address(monthly(10), |layer| layer);
    let flood = scene.passed((0..MOST).map(|host| v6(1, host))).await;
    assert_eq!(flood, PART + 10, "accounts of their own, and the quota of one that the others share");
    assert_eq!(scene.quotas.live_clients(), PART);
    let honest = (0..2_000).map(|host| v6(100 + host / 40, usize::from(host)));
    assert_eq!(scene.passed(honest).await, 2_000);
    assert_eq!(scene.quotas.live_clients(), PART + 2_000);

    let refused = scene.ask(from(v6(1, MOST))).await;
    assert_eq!((refused.status, refused.refusal.unwrap().reason()), (503, Reason::Capacity));
    assert_eq!(scene.passed((0..9).map(|_| v6(1, 0))).await, 9, "an account that exists is its client's alone");
    assert_eq!(scene.ask(from(v6(1, 0))).await.status, 429);
}

#[tokio::test]
async fn ipv4_is_bounded_by_its_first_two_bytes() {
    let scene = by_address(monthly(10), |layer| layer);
    let hosts = |first, second| (0..PART as u8 + 20).map(move |host| Ipv4Addr::new(first, second, host, 1).into());
    assert_eq!(scene.passed(hosts(198, 51)).await, PART + 10);
    assert_eq!(scene.passed(hosts(198, 52)).await, PART + 10);
    let behind_nat64 = "64:ff9b::198.51.250.7".parse().unwrap();
    assert_eq!(scene.ask(from(behind_nat64)).await.status, 503, "it is the IPv4 address inside");
    assert_eq!(scene.quotas.live_clients(), 2 * PART);
}

#[tokio::test]
async fn many_networks_take_their_parts_and_no_more() {
    let scene = by_address(monthly(10), |layer| layer);
    for network in 0..40 {
        assert_eq!(scene.passed((0..2 * PART).map(|host| v6(network, host))).await, PART + 10);
    }
    assert_eq!(scene.quotas.live_clients(), 40 * PART);
    assert_eq!(scene.passed((0..1_000).map(|host| v6(100 + host / 40, usize::from(host)))).await, 1_000);
}

#[tokio::test]
async fn ended_month_gives_a_network_its_part_again() {
    let scene = by_address(monthly(1), |layer| layer.max_clients(200)); // so few are in one shard
    scene.passed((0..PART + 50).map(|host| v6(1, host))).await;
    scene.clock.advance(Duration::from_secs(40 * 86_400));
    // Requests of others sweep the accounts of the network.
    for _ in 0..100 * PART {
        scene.ask(from(v6(2, 0))).await;
    }
    assert_eq!(scene.quotas.live_clients(), 1);
    assert_eq!(scene.passed((0..PART).map(|host| v6(1, host + 50))).await, PART);
}

#[tokio::test]
async fn overflow_plan_is_that_of_clients_without_room() {
    let crowd = Plan::new("crowd").limit(Quota::requests(7).per(Period::hour()));
    let scene = by_address(Plan::new("bytes").limit(Quota::bytes(1_000_000).per(Period::month())), |layer| {
        layer.max_clients_per_network(5).overflow(crowd)
    });
    assert_eq!(scene.passed((0..20).map(|host| v6(1, host))).await, 5 + 7);
    assert_eq!(scene.passed((0..20).map(|host| v6(2, host))).await, 5 + 7);
    scene.clock.advance(Duration::from_secs(3_600));
    assert_eq!(scene.passed((10..20).map(|host| v6(1, host))).await, 7, "the month is not over");
}

#[tokio::test]
async fn claimed_identities_leave_room_for_addresses_and_keys() {
    let keys = |key: &str| key.strip_prefix("key ").map(|name| Principal::named(name.to_owned()));
    let scene = Scene::new(monthly(10), |layer| {
        let who = ApiKey::header("x-api-key", keys).or(Unverified::header("x-user")).or(PeerIp::new());
        layer.identify_by(who).max_clients(MOST)
    });
    let mut passed = 0;
    for number in 0..MOST {
        passed += usize::from(scene.ask(by(&format!("user {number}"), "/")).await.status == 200);
    }
    assert_eq!((passed, scene.quotas.live_clients()), (PART + 10, PART));
    assert_eq!(scene.passed((0..40).map(|host| v6(1, host))).await, 40);
    for number in 0..1_000 {
        let key = format!("key tenant {number}");
        let request = Request::post("/").header("x-api-key", key).body(Full::default()).unwrap();
        assert_eq!(scene.ask(request).await.status, 200, "the operator has issued it");
    }
}

#[tokio::test]
async fn layer_of_one_claimed_identity_gives_it_all_room() {
    let scene = Scene::new(monthly(1), |layer| layer.max_clients(MOST));
    for number in 0..500 {
        assert_eq!(scene.ask(by(&format!("user {number}"), "/")).await.status, 200);
    }
    let closure = |request: &RequestHead<'_>, digester: &Digester| Some(digester.named(request.uri.path()));
    for (most, expected) in [(None, PART), (Some(500), 500)] {
        let scene = Scene::new(monthly(1), |layer| {
            let layer = layer.identify_by(closure).max_clients(MOST);
            most.map_or_else(|| layer.clone(), |most| layer.clone().max_clients_per_network(most))
        });
        for number in 0..500 {
            scene.ask(by("", &format!("/bytes/{number}"))).await;
        }
        assert_eq!(scene.quotas.live_clients(), expected, "a closure may have several kinds");
    }
}

#[tokio::test]
async fn pairs_are_counted_by_the_network_of_the_address() {
    let scene = Scene::new(monthly(10), |layer| {
        layer.identify_by(PeerIp::new().and(Unverified::header("x-user"))).max_clients(MOST)
    });
    let mut passed = 0;
    for (network, number) in (0..200).map(|number| (1, number)).chain((0..40).map(|number| (2, number))) {
        let mut request = by(&format!("user {number}"), "/");
        request.extensions_mut().insert(SocketAddr::new(v6(network, number), 4_711));
        passed += usize::from(scene.ask(request).await.status == 200);
    }
    assert_eq!(passed, PART + 10 + 40);
}

#[tokio::test]
async fn full_network_is_reported_once_until_it_has_half() {
    let log = Log::default();
    let heard = log.clone();
    let scene = by_address(hourly(10), |layer| {
        layer.max_clients(200).max_clients_per_network(4).observe(move |event: &Event<'_>| {
            if let Event::CohortFull { policy, network } = event {
                heard.push(format!("{policy}: {}", network.unwrap()));
            }
        })
    });
    let mut expected = Vec::new();
    for _ in 0..2 {
        expected.push("quota: 2001:db8:10::/44");
        scene.passed((0..10).map(|host| v6(1, host))).await;
        assert_eq!(log.lines(), expected);
        scene.passed((10..15).map(|host| v6(1, host))).await;
        assert_eq!(log.lines(), expected, "it has been reported");
        scene.clock.advance(Duration::from_secs(7_200));
        for _ in 0..1_000 {
            scene.ask(from(v6(2, 0))).await;
        }
        assert_eq!(scene.quotas.live_clients(), 1);
    }
    for host in 0..PART as u8 {
        scene.ask(from(Ipv4Addr::new(198, 51, host, 7).into())).await;
    }
    assert_eq!(log.lines().last().unwrap(), "quota: 198.51.0.0/16");
}

#[tokio::test]
async fn grant_to_a_client_without_room_names_the_setting() {
    let scene = by_address(monthly(10), |layer| layer.max_clients_per_network(1));
    scene.passed([v6(1, 0)]).await;
    let grant = tollgate::Grant::new("requests_per_month", 5, std::time::UNIX_EPOCH + START + Duration::from_secs(60));
    let error = scene.quotas.grant(&scene.quotas.digester().peer(v6(1, 1)), grant).await.unwrap_err();
    assert!(error.to_string().contains("raise .max_clients_per_network()"), "{error}");
    let zero = std::panic::catch_unwind(|| QuotaLayer::new(monthly(1)).max_clients_per_network(0));
    assert_eq!(zero.unwrap_err().downcast_ref::<String>().unwrap(), "max_clients_per_network must be positive, got 0");
}
