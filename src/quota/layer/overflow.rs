//! Setters for the clients that have no room for an account of their own.

use super::{builder::QuotaLayer, settings::check_positive};
use crate::quota::Plan;

impl QuotaLayer {
    /// Sets the number of clients of one network that have an account at once; default a 64th of
    /// [`max_clients`](Self::max_clients), at least 64.
    ///
    /// A party that owns a network has more addresses than there is room for accounts. Without this bound its requests
    /// would take all accounts for as long as a window lasts, and all new clients would be refused. At the bound, new
    /// clients of the network share [one account](Self::overflow). Clients of other networks and clients that have an
    /// account notice nothing. An [event](crate::Event::CohortFull) names the network.
    ///
    /// | clients | counted |
    /// |---|---|
    /// | found by address ([`PeerIp`](crate::PeerIp)), alone or in a [pair](crate::Identify::and) | by the /44 of an IPv6 address, the /16 of an IPv4 address |
    /// | found by your key table or authentication layer ([`ApiKey`](crate::ApiKey), [`Verified`](crate::Verified)) | not: you issue those, and no stranger can make up more |
    /// | all others: [`Unverified`](crate::Unverified), closures, those that the program names on the [handle](Self::handle) | together, as one network, if the identity of the layer is a [chain](crate::Identify::or) or a type of your own and not [verified](crate::IdentityGuarantees::verified) |
    ///
    /// A layer whose only identity is `Unverified` has no other clients that need the room, so that they may take all of
    /// it. Set this to the number of your clients if they come from a few networks, as in an intranet, or if a closure
    /// identifies them. A mobile carrier may have more honest clients in a /16 than its part, which by default is 16,384
    /// of 1,048,576. Those beyond it share one account: raise this number, or give that account a larger plan.
    ///
    /// # Panics
    /// If `clients` is 0.
    ///
    /// ```
    /// use tollgate::{Plan, QuotaLayer};
    /// // All clients are in 10.20.0.0/16.
    /// let intranet = QuotaLayer::new(Plan::standard()).max_clients(50_000).max_clients_per_network(50_000);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn max_clients_per_network(self, clients: usize) -> Self {
        check_positive("max_clients_per_network", clients);
        self.with(|config| config.most_of_cohort = Some(clients))
    }

    /// Sets the plan of the accounts that clients share while they have no room for their own; default the plan of each.
    ///
    /// All new clients share one account while all accounts are [taken](Self::max_clients), and those of a network share
    /// one while it has [its part](Self::max_clients_per_network) of them. Without this setting there is one for each
    /// plan, with the limits of one client, so that a flood from a network uses up what its honest clients share. A plan
    /// with a shorter period lets them pass again sooner; kinds that it does not limit are unlimited for them. Refusals by a
    /// shared account are 503, and no header reports it.
    ///
    /// At most 256 such accounts of networks exist; networks beyond them share the account of all. A ledger has an
    /// account for each client, and ignores this setting.
    ///
    /// ```
    /// use tollgate::{Period, Plan, Quota, QuotaLayer};
    /// let monthly = Plan::new("free").limit(Quota::requests(10_000).per(Period::month()));
    /// let crowd = Plan::new("crowd").limit(Quota::requests(6_000).per(Period::hour()));
    /// let layer = QuotaLayer::new(monthly).overflow(crowd);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn overflow(self, plan: Plan) -> Self {
        self.with(|config| config.overflow = Some(plan))
    }
}
