//! Counters and gauges.

use tollgate::{Event, Observer, telemetry::Metrics};

use crate::{emit_all, name, recorder::Recorder};

#[test]
fn every_event_has_its_counter() {
    let recorder = Recorder::default();
    metrics::with_local_recorder(&recorder, || {
        let metrics = Metrics::new();
        emit_all(&metrics);
        assert_eq!(
            recorder.text(),
            "\
# TYPE tollgate_accounts_held counter
tollgate_accounts_held{policy=\"plan\"} 1
# TYPE tollgate_amounts_cut counter
tollgate_amounts_cut{policy=\"plan\"} 1
# TYPE tollgate_cohorts_full counter
tollgate_cohorts_full{policy=\"plan\"} 1
# TYPE tollgate_forwarded_unreadable counter
tollgate_forwarded_unreadable{policy=\"plan\"} 1
# TYPE tollgate_leases_reclaimed counter
tollgate_leases_reclaimed{policy=\"plan\"} 1
# TYPE tollgate_ledger_compared counter
tollgate_ledger_compared{store=\"sqlite\"} 200
# TYPE tollgate_ledger_drifts counter
tollgate_ledger_drifts{store=\"sqlite\"} 3
# TYPE tollgate_limits_near counter
tollgate_limits_near{policy=\"plan\",limit=\"tokens\"} 1
# TYPE tollgate_overflows counter
tollgate_overflows{policy=\"plan\"} 1
# TYPE tollgate_refusals counter
tollgate_refusals{policy=\"plan\",reason=\"rate_limited\"} 1
tollgate_refusals{policy=\"plan\",reason=\"too_large\"} 1
# TYPE tollgate_requests counter
tollgate_requests{policy=\"plan\",result=\"admitted\"} 1
tollgate_requests{policy=\"plan\",result=\"refused\"} 1
tollgate_requests{policy=\"plan\",result=\"shadowed\"} 1
# TYPE tollgate_spool_duplicates counter
tollgate_spool_duplicates{policy=\"plan\"} 2
# TYPE tollgate_spool_full counter
tollgate_spool_full{policy=\"plan\"} 1
# TYPE tollgate_spool_merged counter
tollgate_spool_merged{policy=\"plan\"} 7
# TYPE tollgate_store_available gauge
tollgate_store_available{policy=\"plan\"} 0
# TYPE tollgate_store_duration_count counter
tollgate_store_duration_count{store=\"sqlite\",operation=\"commit\",result=\"ok\"} 1
# TYPE tollgate_store_duration_sum gauge
tollgate_store_duration_sum{store=\"sqlite\",operation=\"commit\",result=\"ok\"} 0.25
# TYPE tollgate_store_losses counter
tollgate_store_losses{policy=\"plan\"} 1
# TYPE tollgate_store_rejections counter
tollgate_store_rejections{policy=\"plan\"} 1
# TYPE tollgate_unidentified counter
tollgate_unidentified{policy=\"plan\"} 1
# TYPE tollgate_units_unknown counter
tollgate_units_unknown{policy=\"plan\"} 1
# TYPE tollgate_upgrades_unkept counter
tollgate_upgrades_unkept{policy=\"plan\"} 1
"
        );
        metrics.observe(&Event::StoreBack { policy: &name("plan") });
        assert!(recorder.text().contains("tollgate_store_available{policy=\"plan\"} 1\n"));
    });
}

#[test]
fn one_observer_counts_each_policy_apart() {
    let recorder = Recorder::default();
    metrics::with_local_recorder(&recorder, || {
        let metrics = Metrics::new();
        for (policy, times) in [("a", 3), ("b", 2), ("a", 1)] {
            for _ in 0..times {
                metrics.clone().observe(&Event::Admitted { policy: &name(policy), client: None });
            }
        }
    });
    for (policy, count) in [("a", 4), ("b", 2)] {
        let line = format!("tollgate_requests{{policy=\"{policy}\",result=\"admitted\"}} {count}\n");
        assert!(recorder.text().contains(&line), "{}", recorder.text());
    }
}

#[test]
fn handles_are_registered_once() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};

    /// Counts registrations.
    #[derive(Default)]
    struct Registrations(AtomicUsize);

    impl metrics::Recorder for Registrations {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            self.0.fetch_add(1, Ordering::Relaxed);
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    let registrations = Registrations::default();
    metrics::with_local_recorder(&registrations, || {
        let (metrics, policy) = (Metrics::new(), name("default"));
        let refusal = tollgate::Refusal::new(tollgate::Reason::RateLimited, policy.clone());
        for _ in 0..1_000 {
            metrics.observe(&Event::Admitted { policy: &policy, client: None });
            metrics.observe(&Event::Refused { refusal: &refusal, client: None, shadow: false });
        }
    });
    assert_eq!(registrations.0.into_inner(), 4, "three results and one reason");
}
