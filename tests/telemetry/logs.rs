//! Structured logs and their levels.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use tollgate::{Event, FakeClock, Observer, Reason, Refusal, telemetry::Tracing};
use tracing::{
    Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{emit_all, name};

/// Keeps every event as a line: its level and fields.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

impl Lines {
    /// Returns the lines since the last call.
    pub(crate) fn take(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        assert_eq!(event.metadata().target(), "tollgate");
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push((*event.metadata().level(), fields.0));
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn every_event_has_its_level() {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || emit_all(&Tracing::new()));
    let lines = lines.take();
    let levels: Vec<_> = lines.iter().map(|(level, _)| *level).collect();
    let (warn, info, debug, trace) = (Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE);
    assert_eq!(
        levels,
        [
            trace, debug, debug, warn, warn, debug, warn, warn, info, warn, warn, warn, warn, warn, warn, warn, info,
            trace, info, warn
        ],
        "{lines:#?}"
    );
    let refused = &lines[1].1;
    assert!(refused.contains("policy=plan reason=\"rate_limited\" shadow=false retry_after=Some(3s)"), "{refused}");
    assert!(lines.iter().any(|(_, line)| line.contains("error=\"connection refused\"")), "{lines:#?}");
}

#[test]
fn refusals_are_limited_and_their_number_is_kept() {
    let (lines, clock) = (Lines::default(), FakeClock::new());
    let log = Tracing::new().clock(clock.clone()).refusals_per_second(3);
    let refusal = Refusal::new(Reason::RateLimited, name("default"));
    let refused = Event::Refused { refusal: &refusal, client: None, shadow: false };
    tracing::subscriber::with_default(lines.clone(), || {
        (0..1_000).for_each(|_| log.observe(&refused));
        assert_eq!(lines.take().len(), 3);
        log.observe(&Event::Reclaimed { policy: &name("default") });
        assert_eq!(lines.take().len(), 1, "refusals take nothing from other events");
        clock.advance(Duration::from_secs(1));
        log.observe(&refused);
        let after = lines.take();
        assert!(after.len() == 1 && after[0].1.contains("skipped=997"), "{after:?}");
    });
}

#[test]
fn rate_of_zero_logs_no_refusal() {
    let lines = Lines::default();
    let refusal = Refusal::new(Reason::RateLimited, name("default"));
    tracing::subscriber::with_default(lines.clone(), || {
        Tracing::new().refusals_per_second(0).observe(&Event::Refused {
            refusal: &refusal,
            client: None,
            shadow: false,
        });
    });
    assert_eq!(lines.take(), []);
}
