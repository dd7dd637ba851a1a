//! Two ways to identify, made one.

use super::client::{Client, Digester};
use super::{Identify, IdentityGuarantees};
use crate::head::RequestHead;

/// The first way that finds somebody decides; made by [`Identify::or`].
///
/// ```
/// use tollgate::{Identify, PeerIp, Unverified};
/// let who: tollgate::identity::Or<Unverified, PeerIp> = Unverified::header("x-user").or(PeerIp::new());
/// assert!(!who.guarantees().verified, "what both have");
/// ```
#[derive(Clone, Debug)]
pub struct Or<A, B> {
    first: A,
    second: B,
}

impl<A, B> Or<A, B> {
    pub(super) const fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<A: Identify, B: Identify> Identify for Or<A, B> {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        self.first.identify(request, digester).or_else(|| self.second.identify(request, digester))
    }

    fn guarantees(&self) -> IdentityGuarantees {
        let (first, second) = (self.first.guarantees(), self.second.guarantees());
        IdentityGuarantees { named: first.named && second.named, verified: first.verified && second.verified }
    }
}

/// Both ways have to find somebody, and each pair is a client of its own; made by [`Identify::and`].
///
/// ```
/// use tollgate::{Identify, PeerIp, Unverified};
/// let who: tollgate::identity::And<PeerIp, Unverified> = PeerIp::new().and(Unverified::header("x-user"));
/// assert!(!who.guarantees().verified, "what both have");
/// ```
#[derive(Clone, Debug)]
pub struct And<A, B> {
    first: A,
    second: B,
}

impl<A, B> And<A, B> {
    pub(super) const fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<A: Identify, B: Identify> Identify for And<A, B> {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        let first = self.first.identify(request, digester)?;
        let second = self.second.identify(request, digester)?;
        let halves = [first.digest().0.to_le_bytes(), second.digest().0.to_le_bytes()];
        let pair = Client::from_digest(digester.digest("pair", halves));
        Some(match first.tier().or(second.tier()) {
            Some(tier) => pair.with_tier(tier.clone()),
            None => pair,
        })
    }

    fn guarantees(&self) -> IdentityGuarantees {
        IdentityGuarantees {
            named: false,
            verified: self.first.guarantees().verified && self.second.guarantees().verified,
        }
    }
}
