//! Combinations of two identities.

use super::{Client, Digester, Identify, IdentityGuarantees};
use crate::head::RequestHead;

/// Identity that tries a second one if the first finds no client; made by [`Identify::or`].
///
/// It guarantees only the properties that both have.
///
/// ```
/// use tollgate::{Identify, PeerIp, Unverified};
/// let who: tollgate::identity::Or<Unverified, PeerIp> = Unverified::header("x-user").or(PeerIp::new());
/// assert!(!who.guarantees().verified);
/// ```
#[derive(Clone, Debug)]
pub struct Or<A, B> {
    pub(super) first: A,
    pub(super) second: B,
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

/// Identity that requires two others and takes each pair of their clients for one client; made by [`Identify::and`].
///
/// It is verified if both are. Its clients have no public names.
///
/// ```
/// use tollgate::{Identify, PeerIp, Unverified};
/// let who: tollgate::identity::And<PeerIp, Unverified> = PeerIp::new().and(Unverified::header("x-user"));
/// assert!(!who.guarantees().verified);
/// ```
#[derive(Clone, Debug)]
pub struct And<A, B> {
    pub(super) first: A,
    pub(super) second: B,
}

impl<A: Identify, B: Identify> Identify for And<A, B> {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        let first = self.first.identify(request, digester)?;
        let second = self.second.identify(request, digester)?;
        let halves = [first.digest().0.to_le_bytes(), second.digest().0.to_le_bytes()];
        let pair = Client::from_digest(digester.digest("pair", halves));
        Some(Client { tier: first.tier.or(second.tier), ..pair })
    }

    fn guarantees(&self) -> IdentityGuarantees {
        let (first, second) = (self.first.guarantees(), self.second.guarantees());
        IdentityGuarantees { named: false, verified: first.verified && second.verified }
    }
}
