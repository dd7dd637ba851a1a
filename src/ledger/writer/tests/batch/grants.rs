//! Grants: temporary raises of a limit.

use super::*;
use crate::quota::account::GrantState;

const REQUESTS: &str = "requests_per_hour";

impl Ledger {
    fn grant(&mut self, id: u64, amount: u64, until: u64) -> Reply {
        let grant = GrantState {
            id,
            limit: REQUESTS.into(),
            kind: "".into(),
            period: "".into(),
            amount,
            until,
            approver: "M. Okafor".into(),
            reason: "launch day".into(),
            before: 0,
            current: 0,
            window: 0,
            epoch: 0,
            ended: false,
        };
        self.run(&format!("grant {id}"), CommandKind::Grant { plan: Arc::clone(&self.plan), grant: Box::new(grant) })
    }

    /// Amount that each grant covers.
    fn paid(&self) -> Vec<u64> {
        self.store.accounts["acme"].grants.iter().map(|grant| grant.before + grant.current).collect()
    }
}

#[test]
fn grant_with_the_nearest_end_is_used_first() {
    let mut ledger = Ledger::new(hourly(10));
    ledger.grant(1, 5, START + 9 * HOUR);
    ledger.grant(2, 5, START + 3 * HOUR);
    admitted(ledger.charge("a", ("requests", 17)));
    assert_eq!(ledger.paid(), [2, 5]);
    assert_eq!(refused_by(ledger.charge("b", ("requests", 4))), [REQUESTS]);
    admitted(ledger.charge("b", ("requests", 3)));
}

#[test]
fn covered_amount_stays_covered_when_the_next_hour_begins() {
    for by_record in [false, true] {
        let mut ledger = Ledger::new(hourly(10));
        ledger.grant(1, 10, START + 9 * HOUR);
        admitted(ledger.charge("a", ("requests", 17)));
        ledger.now += HOUR;
        if by_record {
            ledger.record(("requests", 1));
        } else {
            admitted(ledger.charge("b", ("requests", 1)));
        }
        assert_eq!(ledger.paid(), [7], "by record: {by_record}");
        assert_eq!(refused_by(ledger.charge("c", ("requests", 13))), [REQUESTS]);
        admitted(ledger.charge("c", ("requests", 12)));
        assert_eq!(ledger.paid(), [10]);
    }
}

#[test]
fn ended_grant_raises_only_what_it_has_covered() {
    for revoked in [false, true] {
        let mut ledger = Ledger::new(hourly(10));
        ledger.grant(1, 10, START + HOUR / 4);
        let first = admitted(ledger.charge("a", ("requests", 15)));
        if revoked {
            assert!(matches!(ledger.run("revoke", CommandKind::Revoke { grant: 1 }), Reply::Revoked(true)));
            assert!(matches!(ledger.run("revoke again", CommandKind::Revoke { grant: 1 }), Reply::Revoked(false)));
        } else {
            ledger.now += HOUR / 4;
        }
        assert_eq!(refused_by(ledger.charge("b", ("requests", 1))), [REQUESTS]);
        ledger.settle("a", &first, SettleKind::Void);
        assert_eq!(refused_by(ledger.charge("b", ("requests", 11))), [REQUESTS]);
        admitted(ledger.charge("b", ("requests", 10)));
    }
}

#[test]
fn expiry_returns_what_an_ended_grant_has_covered() {
    let mut ledger = Ledger::new(hourly(10));
    ledger.grant(1, 5, START + HOUR / 4);
    let held = ledger.reserve("a", ("requests", 15));
    ledger.now += HOUR / 4;
    ledger.expire("a", &held, false);
    assert_eq!(refused_by(ledger.charge("b", ("requests", 11))), [REQUESTS]);
    admitted(ledger.charge("b", ("requests", 10)));
}

#[test]
fn reset_keeps_covered_amounts() {
    let mut ledger = Ledger::new(hourly(10));
    ledger.grant(1, 5, START + 9 * HOUR);
    admitted(ledger.charge("a", ("requests", 13)));
    ledger.reset(None);
    assert_eq!(refused_by(ledger.charge("b", ("requests", 13))), [REQUESTS]);
    admitted(ledger.charge("b", ("requests", 12)));
    assert_eq!(ledger.paid(), [5]);
}

#[test]
fn row_of_a_grant_names_approver_and_reason() {
    let mut ledger = Ledger::new(hourly(10));
    assert!(matches!(ledger.grant(1, 5, START), Reply::Invalid(_)));
    assert!(ledger.writes.is_empty());
    ledger.grant(1, 5, START + HOUR);
    let detail = ledger.writes.rows[0].detail.as_deref().unwrap();
    assert_eq!((detail.granted, detail.approver.as_str(), detail.reason.as_str()), (5, "M. Okafor", "launch day"));
}
