//! Members of a stack with random settings, each built twice: for nested gates and for one.

use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use proptest::prelude::*;
use tollgate::{
    CircuitBreakerLayer, Client, Cost, Dialect, Digester, Duplicates, Event, FakeClock, GateLayer, Identify,
    JobIdSource, OnUnidentified, Period, Plan, Quota, QuotaLayer, Rate, Refusal, RequestHead, ToEnd, ToHead,
    TokenBucketLayer, Trip, refusal::Reset,
};

use crate::{
    member::{Marks, Probe, reach, script_of},
    script::{MEMBERS, Place},
    scripted::panic_now,
    support::gate::{Log, now},
};

/// Settings of a member, of which each kind of layer takes those that it has.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    enabled: bool,
    shadow: bool,
    outbound: bool,
    exempts: bool,
    responds: bool,
    same_name: bool,
    own_clock: bool,
    own_identity: bool,
    dialect: u8,
    on_unidentified: u8,
    burst: u8,
    /// Bits that each kind uses for settings of its own.
    more: u8,
}

pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    let rarely = || prop_oneof![5 => Just(false), 1 => Just(true)];
    let switches = (rarely().prop_map(|off| !off), rarely(), rarely(), any::<bool>(), rarely(), any::<bool>());
    (switches, rarely(), any::<bool>(), 0_u8..4, 0_u8..4, 1_u8..5, any::<u8>()).prop_map(
        |(switches, own_clock, own_identity, dialect, on_unidentified, burst, more)| {
            let (enabled, shadow, outbound, exempts, responds, same_name) = switches;
            Spec {
                enabled,
                shadow,
                outbound,
                exempts,
                responds,
                same_name,
                own_clock,
                own_identity,
                dialect,
                on_unidentified,
                burst,
                more,
            }
        },
    )
}

impl Spec {
    fn has(&self, bit: u8) -> bool {
        self.more >> bit & 1 == 1
    }

    fn dialect(&self) -> Dialect {
        match self.dialect {
            0 => Dialect::None,
            1 => Dialect::XRateLimit { reset: Reset::Epoch },
            _ => Dialect::Draft11,
        }
    }
}

/// State that the members of one stack share.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) log: Log,
    pub(crate) clock: FakeClock,
    pub(crate) other_clock: FakeClock,
    /// Whether responders panic.
    pub(crate) responders_panic: Arc<AtomicBool>,
    /// The identity of all members without one of their own.
    pub(crate) identity: Option<Arc<dyn Identify>>,
    /// Whether the identity is given to each member, not to gates.
    pub(crate) is_nested: bool,
}

/// A change from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command {
    Shut,
    Open,
    Reset,
}

/// Handles of a member: its state as text, and commands.
pub(crate) struct Control {
    pub(crate) state: Box<dyn Fn() -> String>,
    pub(crate) command: Box<dyn Fn(Command)>,
}

/// A kind of member.
pub(crate) trait Kind {
    type Layer;

    fn build(at: usize, spec: &Spec, world: &World) -> (Self::Layer, Control);
}

pub(crate) struct BucketKind;
pub(crate) struct QuotaKind;
pub(crate) struct BreakerKind;
pub(crate) struct ProbeKind<T>(PhantomData<T>);

/// The clients that scripts name, under an identity.
fn clients(kind: &str) -> [Client; 2] {
    [0, 1].map(|number| Digester::process().named(format!("{kind} {number}")))
}

/// Identifies the client that the script of a request names; panics as member `at`.
pub(crate) fn identify(kind: &'static str, at: usize) -> impl Identify {
    move |request: &RequestHead<'_>, digester: &Digester| {
        let script = script_of(request.extensions);
        reach(&script, at, Place::Identify);
        let client = (script.client < 2).then(|| digester.named(format!("{kind} {}", script.client)));
        client.map(|client| if script.host == 1 { client.with_tier("pro") } else { client })
    }
}

/// Applies the settings that all layers have.
macro_rules! switches {
    ($layer:expr, $at:ident, $spec:ident, $world:ident) => {{
        let log = $world.log.clone();
        let name = if $spec.same_name { String::from("same") } else { format!("member {}", $at) };
        let clock = if $spec.own_clock { &$world.other_clock } else { &$world.clock };
        let mut layer = $layer.named(&name).clock(clock.clone()).enabled($spec.enabled);
        layer = layer.observe(move |event: &Event<'_>| log.push(format!("{} {event:?}", $at)));
        if $spec.shadow {
            layer = layer.shadow();
        }
        if $spec.outbound {
            layer = layer.outbound();
        }
        if $spec.exempts {
            layer = layer.exempt(move |request| {
                let script = script_of(request.extensions);
                reach(&script, $at, Place::Exempt);
                script.exempt >> $at & 1 == 1 && ($at == 1 || request.extensions.get::<Marks>().is_none())
            });
        }
        if $spec.responds {
            let panics = Arc::clone(&$world.responders_panic);
            layer = layer.refuse_with(move |refusal: &Refusal| {
                if panics.load(Ordering::Relaxed) {
                    panic_now("responder");
                }
                let response = Response::builder().status(418).header("x-ratelimit-limit", "5");
                response.body(Bytes::from(format!("{}: {refusal}", $at))).unwrap()
            });
        }
        layer
    }};
}

/// Applies the settings of layers with clients.
macro_rules! clients {
    ($layer:expr, $at:ident, $spec:ident, $world:ident) => {{
        let mut layer = $layer.rate_limit_headers($spec.dialect());
        match $spec.on_unidentified {
            0 => layer = layer.on_unidentified(OnUnidentified::Share),
            1 => layer = layer.on_unidentified(OnUnidentified::Pass),
            2 => layer = layer.on_unidentified(OnUnidentified::Refuse),
            _ => {}
        }
        match &$world.identity {
            _ if $spec.own_identity => layer = layer.identify_by(identify("own", $at)),
            Some(identity) if $world.is_nested => layer = layer.identify_by(Arc::clone(identity)),
            _ => {}
        }
        layer
    }};
}

impl Kind for BucketKind {
    type Layer = TokenBucketLayer;

    fn build(at: usize, spec: &Spec, world: &World) -> (TokenBucketLayer, Control) {
        let rate = |burst| Rate::per_hour(60).burst(burst);
        let layer = TokenBucketLayer::new(rate(spec.burst.into()));
        let mut layer = clients!(switches!(layer, at, spec, world), at, spec, world);
        if spec.has(0) {
            layer = layer.and_global(rate(5));
        }
        if spec.has(1) {
            layer = layer.and_rate(rate(3));
        }
        if spec.has(2) {
            layer = layer.cost(move |request| {
                let script = script_of(request.extensions);
                reach(&script, at, Place::Cost);
                let marks = request.extensions.get::<Marks>().map_or(0, |marks| marks.0.len());
                let cost = u64::from(script.cost) + u64::try_from(marks).unwrap();
                if cost == 0 { Cost::PREFLIGHT } else { Cost::new(cost) }
            });
        }
        if spec.has(3) {
            layer = layer.rate_for("pro", rate(6));
        }
        if spec.has(4) {
            layer = layer.refund_on(|_| true);
        }
        if spec.has(5) {
            layer = layer.max_clients(1);
        }
        let seen = layer.clone();
        let state = move || {
            let handle = seen.handle();
            let levels = [clients("own"), clients("shared")].concat();
            let levels: Vec<_> = levels.iter().map(|client| handle.peek(client)).collect();
            format!("{levels:?} {:?}", handle.peek_global())
        };
        let commanded = layer.clone();
        let command = move |command| match command {
            Command::Shut => commanded.handle().set_rate(rate(1)),
            Command::Open => commanded.handle().set_rate(rate(4)),
            Command::Reset => clients("own").iter().for_each(|client| commanded.handle().give_back(client, Cost::ONE)),
        };
        (layer, Control { state: Box::new(state), command: Box::new(command) })
    }
}

impl Kind for QuotaKind {
    type Layer = QuotaLayer;

    fn build(at: usize, spec: &Spec, world: &World) -> (QuotaLayer, Control) {
        let mut plan = Plan::new("plan").limit(Quota::requests(u64::from(spec.burst) + 1).per(Period::hour()));
        if spec.has(0) {
            plan = plan.limit(Quota::concurrent(2));
        }
        if spec.has(1) {
            plan = plan.limit(Quota::bytes(20).per(Period::hour()));
        }
        if spec.has(2) {
            plan = plan.limit(Quota::units("tokens", 9).per(Period::hour()));
        }
        let layer = QuotaLayer::new(plan).accept_unverified();
        let mut layer = clients!(switches!(layer, at, spec, world), at, spec, world);
        if spec.has(3) {
            layer = layer.share_with_handler();
        }
        if spec.has(2) && spec.has(4) {
            layer = layer.cost("tokens", move |request| {
                let script = script_of(request.extensions);
                reach(&script, at, Place::Cost);
                let marks = request.extensions.get::<Marks>().map_or(0, |marks| marks.0.len());
                Some(u64::from(script.cost) + u64::try_from(marks).unwrap())
            });
        }
        if spec.has(5) {
            layer = layer.charge_when(|served| served.complete && served.status.is_some_and(|status| status != 404));
        }
        if spec.has(6) {
            layer = layer.job_ids(JobIdSource::header("idempotency-key"));
        }
        if spec.has(7) {
            layer = layer.duplicates(Duplicates::Pass).max_clients(2);
        }
        let seen = layer.clone();
        let state = move || {
            let handle = seen.handle();
            let mut usage = Vec::new();
            for client in [clients("own"), clients("shared"), [handle.anonymous(), handle.anonymous()]].concat() {
                usage.push(now(handle.usage(&client)));
            }
            format!("{usage:?} {}", handle.live_clients())
        };
        let commanded = layer.clone();
        let command = move |command| {
            let handle = commanded.handle();
            for client in [clients("own"), clients("shared")].concat() {
                let _ = match command {
                    Command::Shut => now(handle.record(&client, ("requests", 3))),
                    Command::Open => continue,
                    Command::Reset => now(handle.reset_all(&client)),
                };
            }
        };
        (layer, Control { state: Box::new(state), command: Box::new(command) })
    }
}

impl Kind for BreakerKind {
    type Layer = CircuitBreakerLayer;

    fn build(at: usize, spec: &Spec, world: &World) -> (CircuitBreakerLayer, Control) {
        let layer = match spec.has(0) {
            true => CircuitBreakerLayer::for_server(),
            false => CircuitBreakerLayer::for_client(Duration::from_secs(5)),
        };
        let mut layer = switches!(layer, at, spec, world).trip(Trip::consecutive(u32::from(spec.burst / 2 + 1)));
        if spec.has(1) {
            layer = layer.trip(Trip::failure_rate(0.5).min_requests(2).over_calls(4));
        }
        if spec.has(2) {
            let key = move |request: &RequestHead<'_>, digester: &Digester| {
                let script = script_of(request.extensions);
                reach(&script, at, Place::Cost);
                Some(digester.digest("host", [[script.host]]))
            };
            layer = layer.per_key(key).max_keys(if spec.has(3) { 1 } else { 8 });
        }
        if spec.has(4) {
            layer = layer.slow_to_end();
        }
        if spec.has(5) {
            layer = layer.honor_retry_after();
        }
        if spec.has(6) {
            layer = layer.probes(2);
        }
        let handle = layer.clone();
        let state = move || {
            let keys = [0_u8, 1].map(|host| handle.handle().key(Digester::process().digest("host", [[host]])));
            let all = keys.into_iter().flatten().chain([handle.handle()]);
            format!("{:?}", all.map(|breaker| (breaker.state(), breaker.counts())).collect::<Vec<_>>())
        };
        let commanded = layer.clone();
        let command = move |command| match command {
            Command::Shut => commanded.handle().force_open(),
            Command::Open => commanded.handle().observe_only(),
            Command::Reset => commanded.handle().reset(),
        };
        (layer, Control { state: Box::new(state), command: Box::new(command) })
    }
}

fn probe<T: tollgate::Lasts>(at: usize, spec: &Spec, world: &World) -> (GateLayer<Probe<T>>, Control) {
    let shut = Arc::new(AtomicBool::new(false));
    let probe = Probe { at, log: world.log.clone(), shut: Arc::clone(&shut), lasts: PhantomData };
    let layer = switches!(GateLayer::new(probe), at, spec, world);
    let command = move |command| shut.store(matches!(command, Command::Shut), Ordering::Relaxed);
    (layer, Control { state: Box::new(String::new), command: Box::new(command) })
}

impl Kind for ProbeKind<ToEnd> {
    type Layer = GateLayer<Probe<ToEnd>>;

    fn build(at: usize, spec: &Spec, world: &World) -> (Self::Layer, Control) {
        probe(at, spec, world)
    }
}

impl Kind for ProbeKind<ToHead> {
    type Layer = GateLayer<Probe<ToHead>>;

    fn build(at: usize, spec: &Spec, world: &World) -> (Self::Layer, Control) {
        probe(at, spec, world)
    }
}

/// Returns the identity of all members that have none of their own.
pub(crate) fn shared_identity() -> Arc<dyn Identify> {
    Arc::new(identify("shared", MEMBERS - 1))
}
