//! A recorder that keeps counters, gauges, and the count and sum of histograms, and writes them as Prometheus reads them.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};

/// Counters and gauges by name and labels; a gauge is the bits of its f64.
type Values = BTreeMap<String, (&'static str, BTreeMap<String, Arc<AtomicU64>>)>;

/// A recorder; clones share their values.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Values>>);

impl Recorder {
    /// Returns all values, a line each.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (name, (kind, series)) in self.0.lock().expect("no panic under the lock").iter() {
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for (labels, value) in series {
                let value = value.load(Ordering::Relaxed);
                let _ = match *kind {
                    "gauge" => writeln!(text, "{name}{{{labels}}} {}", f64::from_bits(value)),
                    _ => writeln!(text, "{name}{{{labels}}} {value}"),
                };
            }
        }
        text
    }

    /// Returns the value of a key. The names of Prometheus have no dots, and quotes in its labels are escaped.
    fn value(&self, key: &Key, kind: &'static str) -> Arc<AtomicU64> {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}=\"{}\"", label.key(), escaped(label.value()))).collect();
        let mut values = self.0.lock().expect("no panic under the lock");
        let (_, series) = values.entry(key.name().replace('.', "_")).or_insert_with(|| (kind, BTreeMap::new()));
        Arc::clone(series.entry(labels.join(",")).or_default())
    }
}

/// Count and sum of the values of a histogram.
struct Summary {
    count: Arc<AtomicU64>,
    sum: Arc<AtomicU64>,
}

impl HistogramFn for Summary {
    fn record(&self, value: f64) {
        CounterFn::increment(&*self.count, 1);
        GaugeFn::increment(&*self.sum, value);
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key, "counter"))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key, "gauge"))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let part = |name: &str, kind| {
            let name = format!("{}{name}", key.name());
            self.value(&Key::from_parts(name, key.labels().cloned().collect::<Vec<_>>()), kind)
        };
        Histogram::from_arc(Arc::new(Summary { count: part("_count", "counter"), sum: part("_sum", "gauge") }))
    }
}
