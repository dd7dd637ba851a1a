//! Who is asking.

use http::request;

use crate::{Client, Digester};

/// Learns from a request's head whom to charge; closures implement it.
pub trait Identify: Send + Sync + 'static {
    /// The client, or `None` when this way of asking finds nobody.
    fn identify(&self, request: &request::Parts, digester: &Digester) -> Option<Client>;

    /// What holds for all clients that it finds, known when a layer is built.
    fn traits(&self) -> Traits {
        Traits::default()
    }
}

/// What holds for all clients of an [`Identify`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traits {
    /// Each has a public name.
    pub named: bool,
    /// Nobody can take another's identity by sending a field.
    pub verified: bool,
}

impl<F> Identify for F
where
    F: Fn(&request::Parts, &Digester) -> Option<Client> + Send + Sync + 'static,
{
    fn identify(&self, request: &request::Parts, digester: &Digester) -> Option<Client> {
        self(request, digester)
    }
}
