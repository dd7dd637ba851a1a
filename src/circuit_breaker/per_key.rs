//! Settings of a breaker with a circuit for each key.

use std::sync::Arc;

use http::header::HOST;

use super::layer::CircuitBreakerLayer;
use crate::{
    error::ConfigError,
    head::RequestHead,
    identity::{Digest, Digester},
};

impl CircuitBreakerLayer {
    /// A circuit of its own for each key; requests without a key share one.
    ///
    /// While a key's circuit is open the service is still asked whether it is ready, because a key is known only with
    /// the request.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Digester, RequestHead, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).per_key(|request: &RequestHead<'_>, digester: &Digester| {
    ///     let tenant = request.headers.get("x-tenant")?;
    ///     Some(digester.digest("tenant", [tenant.as_bytes()]))
    /// });
    /// ```
    #[must_use]
    pub fn per_key(self, key: impl Fn(&RequestHead<'_>, &Digester) -> Option<Digest> + Send + Sync + 'static) -> Self {
        self.with(|config| config.key = Some(Arc::new(key)))
    }

    /// A circuit of its own for each host that requests are for: the authority of the URI, else the `Host` field.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).per_host().max_keys(100);
    /// ```
    #[must_use]
    pub fn per_host(self) -> Self {
        self.per_key(|request, _| {
            let authority = request.uri.authority().map(|authority| authority.as_str());
            let host = authority.or_else(|| request.headers.get(HOST)?.to_str().ok())?;
            Self::host_key(host)
        })
    }

    /// The key of a host, with its port where it has one, as [`per_host`](Self::per_host) makes it; nothing for what no
    /// host can be.
    ///
    /// ```
    /// use tollgate::CircuitBreakerLayer;
    /// assert_eq!(CircuitBreakerLayer::host_key("Example.org"), CircuitBreakerLayer::host_key("example.org"));
    /// ```
    #[must_use]
    pub fn host_key(host: &str) -> Option<Digest> {
        let host = host.rsplit_once('@').map_or(host, |(_user, host)| host);
        let mut lower = [0_u8; 255 + 6]; // the longest name and a port (RFC 1035, 2.3.4)
        let lower = lower.get_mut(..host.len())?;
        lower.copy_from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        Some(Digester::process().digest_one("host", lower))
    }

    /// How many keys may have a circuit at once: 1,024 by default, about a megabyte with the default window.
    ///
    /// At the cap a newcomer takes the place of a closed circuit without a failure, or of one that nobody used for ten
    /// minutes. Where there is none it passes unguarded, with [`Event::Overflow`](crate::Event::Overflow).
    ///
    /// # Panics
    /// When `keys` is 0.
    ///
    /// ```
    /// # use tollgate::{CircuitBreakerLayer, Trip};
    /// let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).per_host().max_keys(100);
    /// ```
    #[must_use]
    pub fn max_keys(self, keys: usize) -> Self {
        assert!(keys > 0, "{}", ConfigError::new("max_keys", "be positive", keys));
        self.with(|config| config.max_keys = keys)
    }
}
