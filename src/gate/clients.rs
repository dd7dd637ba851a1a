//! The clients of a layer: their settings, identification, and values by tier.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{layer::PolicyContext, observe::Event};
use crate::{
    error::ConfigError,
    head::RequestHead,
    identity::{Client, Digester, Identify, MissingIdentity, OnUnidentified, PeerIp, Tier, anonymous, without_reports},
    refusal::{Dialect, Reason, Refusal},
};

/// Settings of a layer that distinguishes clients; [`client_setters`](crate::gate::client_setters) sets them.
#[derive(Clone)]
pub(crate) struct ClientConfig {
    pub(crate) identify: Arc<dyn Identify>,
    /// Whether a setter of the layer has set the identity, or the gates of which it is a member.
    own_identity: bool,
    shared_identity: bool,
    /// `None` leaves the decision to the identity.
    pub(crate) on_unidentified: Option<OnUnidentified>,
    pub(crate) dialect: Dialect,
    /// Number of clients that have state at once. Their memory is allocated as they come.
    pub(crate) most: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        let identify = Arc::new(PeerIp::new());
        let (own_identity, shared_identity, on_unidentified) = (false, false, None);
        Self { identify, own_identity, shared_identity, on_unidentified, dialect: Dialect::default(), most: 1 << 20 }
    }
}

impl ClientConfig {
    /// Sets the identity by a setter of the layer.
    pub(crate) fn identify_by(&mut self, identify: impl Identify) {
        (self.identify, self.own_identity) = (Arc::new(identify), true);
    }

    /// Sets the identity of the gates of which the layer is a member, unless it has one of its own.
    pub(super) fn share_identity(&mut self, identify: &Arc<dyn Identify>) {
        if !self.own_identity {
            (self.identify, self.shared_identity) = (Arc::clone(identify), true);
        }
    }

    pub(super) fn has_own_identity(&self) -> bool {
        self.own_identity
    }

    /// Returns a number of clients that may have state at once.
    ///
    /// # Panics
    /// If `clients` is 0 or above 2^32 - 1.
    #[track_caller]
    pub(crate) fn checked_most(clients: usize) -> usize {
        if !(1..=u32::MAX as usize).contains(&clients) {
            panic!("{}", ConfigError::new("max_clients", "be from 1 to 2^32 - 1", clients));
        }
        clients
    }
}

/// Identifies the client of a request. Reports the first unidentified request, once.
pub(crate) struct ClientResolver {
    identify: Arc<dyn Identify>,
    /// Whether the identity is that of the gates of which the layer is a member.
    is_shared: bool,
    on_unidentified: Option<OnUnidentified>,
    missing: MissingIdentity,
    warned: AtomicBool,
}

impl ClientResolver {
    pub(crate) fn new(config: &ClientConfig, context: &PolicyContext) -> Self {
        let ClientConfig { identify, on_unidentified, .. } = config;
        let PolicyContext { name: policy, observers, .. } = context.clone();
        identify.on_unreadable(Arc::new(move |field| {
            observers.emit(&Event::UnreadableForwarded { policy: &policy, field });
            warn(format_args!(
                "policy {policy:?}: a trusted proxy sent a {field} that cannot be read; its clients are one"
            ));
        }));
        let (missing, warned) = (identify.missing(), AtomicBool::new(false));
        let (identify, is_shared) = (Arc::clone(identify), config.shared_identity);
        Self { identify, is_shared, on_unidentified: *on_unidentified, missing, warned }
    }

    /// Returns the identity that gates have set for their members, if clients are found by it.
    pub(crate) fn shared_identity(&self) -> Option<&Arc<dyn Identify>> {
        self.is_shared.then_some(&self.identify)
    }

    /// Returns the client of a request. Callers pass it to [`Client::identified`] and borrow it from where this call wrote
    /// it: it is large, and each move of it would stall.
    #[inline]
    pub(crate) fn identify(&self, request: &RequestHead<'_>) -> Option<Client> {
        self.identify.identify(request, Digester::process())
    }

    /// Calls `decide` with the client to charge: the one of the request, or the one that all unidentified requests share.
    /// `None` if the request passes uncharged.
    #[inline]
    pub(crate) fn resolve<T>(
        &self,
        client: Option<&Client>,
        context: &PolicyContext,
        decide: impl FnOnce(Option<&Client>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let shared;
        let client = if client.is_some() {
            client
        } else {
            shared = self.unidentified(context)?;
            shared.as_ref()
        };
        decide(client)
    }

    /// Returns the client to charge as [`resolve`](Self::resolve) does, for a read: no report is made, and none is used up.
    pub(crate) fn explain(
        &self,
        request: &RequestHead<'_>,
        context: &PolicyContext,
    ) -> Result<Option<Client>, Refusal> {
        let mut client = without_reports(|| self.identify(request));
        Client::identified(&mut client);
        if client.is_some() { Ok(client) } else { self.treatment(context) }
    }

    #[cold]
    fn unidentified(&self, context: &PolicyContext) -> Result<Option<Client>, Refusal> {
        let decided = self.treatment(context);
        if !self.warned.load(Ordering::Relaxed) && !self.warned.swap(true, Ordering::Relaxed) {
            let PolicyContext { name: policy, observers, .. } = context;
            observers.emit(&Event::Unidentified { policy });
            match &decided {
                Ok(client) => {
                    let treatment = if client.is_some() { "share one limit" } else { "pass without a limit" };
                    warn(format_args!("policy {policy:?}: requests without an identity {treatment}"));
                }
                Err(refusal) => warn(format_args!("a request was refused; {refusal}")),
            }
        }
        decided
    }

    /// Returns the client to charge for a request without an identity.
    fn treatment(&self, context: &PolicyContext) -> Result<Option<Client>, Refusal> {
        let refuse = |reason| Err(context.refusal(reason));
        match (self.on_unidentified, &self.missing) {
            (Some(OnUnidentified::Share), _) | (None, MissingIdentity::Optional) => Ok(Some(anonymous())),
            (Some(OnUnidentified::Pass), _) => Ok(None),
            (Some(OnUnidentified::Refuse), _) => refuse(Reason::Unidentified),
            (None, MissingIdentity::PeerAddress) => refuse(Reason::NoPeerAddress),
            (None, MissingIdentity::Principal) => refuse(Reason::NoPrincipal),
            (None, MissingIdentity::Credential { challenge }) => {
                refuse(Reason::Unauthenticated).map_err(|refusal| refusal.with_challenge(challenge.clone()))
            }
        }
    }
}

/// Writes a warning to standard error, which is reported once. Not by `eprintln!`, which panics on a closed pipe.
fn warn(warning: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "tollgate: {warning} (reported once)");
}

/// A value for each tier, and the usual one for all other clients.
#[derive(Clone, Debug)]
pub(crate) struct Tiered<T> {
    usual: T,
    tiers: Vec<(Tier, T)>,
}

impl<T> Tiered<T> {
    pub(crate) const fn new(usual: T) -> Self {
        Self { usual, tiers: Vec::new() }
    }

    /// Whether no tier has a value of its own.
    pub(crate) fn is_plain(&self) -> bool {
        self.tiers.is_empty()
    }

    /// Returns the value of a client of `tier`.
    #[inline]
    pub(crate) fn of(&self, tier: Option<&Tier>) -> &T {
        tier.and_then(|tier| self.named(tier)).unwrap_or(&self.usual)
    }

    /// Returns the value that was set for a tier, or the usual one; `None` if the tier has none of its own.
    pub(crate) fn get(&self, tier: Option<&Tier>) -> Option<&T> {
        tier.map_or(Some(&self.usual), |tier| self.named(tier))
    }

    #[inline]
    fn named(&self, tier: &Tier) -> Option<&T> {
        self.tiers.iter().find(|(name, _)| name == tier).map(|(_, value)| value)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.usual).chain(self.tiers.iter().map(|(_, value)| value))
    }

    /// Returns the tiers that have a value, with it.
    pub(crate) fn tiers(&self) -> impl Iterator<Item = (&Tier, &T)> {
        self.tiers.iter().map(|(tier, value)| (tier, value))
    }

    /// Removes the value of a tier; returns whether there was one.
    pub(crate) fn remove(&mut self, tier: &Tier) -> bool {
        let before = self.tiers.len();
        self.tiers.retain(|(name, _)| name != tier);
        self.tiers.len() < before
    }

    /// Sets the value of a tier, or the usual one.
    pub(crate) fn set(&mut self, tier: Option<Tier>, value: T) {
        let Some(tier) = tier else { return self.usual = value };
        self.tiers.retain(|(name, _)| *name != tier);
        self.tiers.push((tier, value));
    }

    pub(crate) fn map<U>(&self, mut value: impl FnMut(&T) -> U) -> Tiered<U> {
        let usual = value(&self.usual);
        Tiered { usual, tiers: self.tiers.iter().map(|(tier, old)| (tier.clone(), value(old))).collect() }
    }
}
