//! The scrape of the example `metrics`.

use crate::program::Server;

#[test]
fn scrape_counts_decisions_and_shows_the_circuit() {
    let server = Server::start("metrics", &[]);
    let get = |path: &str| Server::ask(&server.address, &format!("GET {path}"), "").unwrap();
    let statuses: Vec<_> = (0..20).map(|_| get("/").0).collect();
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    let (admitted, refused) = (count(200), count(429)); // few are refused on a slow machine
    for _ in 0..3 {
        get("/flaky?status=503");
    }
    assert_eq!(get("/flaky").0, 503);
    let (status, text) = get("/metrics");
    assert_eq!(status, 200);
    for line in [
        "# TYPE tollgate_requests counter".to_owned(),
        format!("tollgate_requests{{policy=\"per client\",result=\"admitted\"}} {admitted}"),
        format!("tollgate_requests{{policy=\"per client\",result=\"refused\"}} {refused}"),
        "tollgate_circuit_state{policy=\"upstream\",state=\"open\"} 1".to_owned(),
        "tollgate_circuit_state{policy=\"upstream\",state=\"closed\"} 0".to_owned(),
        "tollgate_clients{policy=\"per client\"} 1".to_owned(),
        format!("tollgate_quota_used{{policy=\"plan\",plan=\"free\",limit=\"requests_per_hour\"}} {admitted}"),
        "tollgate_quota_limit{policy=\"plan\",plan=\"free\",limit=\"requests_per_hour\"} 1000".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}
