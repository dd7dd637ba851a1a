//! Random stacks of members as one gate and as nested gates, under one random history: callers, observers and handles see
//! the same.

use std::fmt::Write;

use proptest::{prelude::*, test_runner::TestRunner};
use tollgate::{Gates, ToEnd, ToHead};
use tower::Layer;

use crate::{
    layers::{BreakerKind, BucketKind, Kind, ProbeKind, QuotaKind, Spec, World, shared_identity, spec},
    script::MEMBERS,
    scripted::{Handler, Scripted},
    stack::{Drive, Operation, Stack, operation},
};

type Build = fn(&[Spec], bool) -> [Box<dyn Drive>; 2];

/// Builds a stack of these kinds of members twice: nested, and as one gate.
macro_rules! stack {
    ($($Kind:ty),+) => {
        (|specs: &[Spec], shares_identity: bool| {
            let world = |is_nested| World {
                identity: shares_identity.then(shared_identity),
                is_nested,
                ..World::default()
            };
            let build = |world: &World| {
                let mut at = 0..;
                let mut controls = Vec::new();
                let layers = ($({
                    let at = at.next().unwrap();
                    let (layer, control) = <$Kind as Kind>::build(at, &specs[at], world);
                    controls.push(control);
                    layer
                },)+);
                (layers, controls)
            };
            let handler = |world: &World| Handler { log: world.log.clone(), ..Handler::default() };
            fastrand::seed(7);
            let nested = world(true);
            let (layers, controls) = build(&nested);
            let inner = handler(&nested);
            let service = layers.layer(Scripted::new(&inner));
            let first: Box<dyn Drive> = Box::new(Stack::new(service, inner, nested, controls));
            fastrand::seed(7);
            let one = world(false);
            let (layers, controls) = build(&one);
            let inner = handler(&one);
            let mut gates = Gates::new(layers);
            if let Some(identity) = one.identity.clone() {
                // It is an error if no member needs it.
                gates = gates.clone().identify_by(identity).try_build().unwrap_or(gates);
            }
            let service = gates.layer(Scripted::new(&inner));
            [first, Box::new(Stack::new(service, inner, one, controls))]
        }) as Build
    };
}

type End = ProbeKind<ToEnd>;
type Head = ProbeKind<ToHead>;

/// Stacks in which each kind of member is outside and inside of each other one.
const STACKS: &[Build] = &[
    stack!(BucketKind, BreakerKind),
    stack!(BucketKind, QuotaKind, BreakerKind),
    stack!(QuotaKind, QuotaKind, End),
    stack!(End, Head),
    stack!(Head, End, End),
    stack!(BreakerKind, BreakerKind, BucketKind),
    stack!(QuotaKind, BucketKind, Head),
    stack!(BreakerKind, End, QuotaKind, Head),
    stack!(End, BreakerKind, Head, BucketKind),
    stack!(Head, QuotaKind, End, BreakerKind),
    stack!(BucketKind, BucketKind, End),
    stack!(Head, Head, BreakerKind, QuotaKind),
];

/// Runs a history on both stacks, and compares after each operation.
fn compare(build: Build, specs: &[Spec], shares_identity: bool, history: &[Operation]) -> Result<(), TestCaseError> {
    let [mut nested, mut one] = build(specs, shares_identity);
    let mut before = String::new();
    for (number, operation) in history.iter().enumerate() {
        let [of_nested, of_one] = [&mut nested, &mut one].map(|stack| {
            fastrand::seed(number as u64); // of the circuits that keys make
            stack.apply(operation)
        });
        prop_assert_eq!(&of_nested, &of_one, "after operation {}: {:?}\n{}", number, operation, before);
        writeln!(before, "{operation:?}\n{of_nested}").unwrap();
    }
    let [of_nested, of_one] = [nested, one].map(Drive::end);
    prop_assert_eq!(of_nested, of_one, "at the end\n{}", before);
    Ok(())
}

#[test]
fn gates_do_as_nested_gates_do() {
    let case = (
        0..STACKS.len(),
        prop::collection::vec(spec(), MEMBERS),
        any::<bool>(),
        prop::collection::vec(operation(), 1..30),
    );
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000);
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let run = |(stack, specs, shares_identity, history): (usize, Vec<Spec>, bool, Vec<Operation>)| {
        compare(STACKS[stack], &specs, shares_identity, &history)
    };
    if let Err(failure) = runner.run(&case, run) {
        panic!("{failure}");
    }
}
