//! The layers that gates can have as members: this crate's layers, in tuples.

use std::sync::Arc;

use super::{
    chain::{Chain, ChainLink},
    layer::Gates,
    readiness::MOST,
};
use crate::{error::ConfigError, gate::AskPolicy, identity::Identify};

/// Layers of [`Gates`](crate::Gates): a tuple of 2 to 8 layers of this crate, or gates, the outermost first.
#[diagnostic::on_unimplemented(message = "`Gates` take a tuple of 2 to 8 layers of tollgate, got `{Self}`")]
pub trait Members: Member {}

/// A layer, or several, as a part of gates.
pub trait Member: Clone + Send + Sync + 'static {
    /// The members in front of others.
    type Onto<Rest: Chain>: Chain;

    /// Builds the members in front of others.
    fn onto<Rest: Chain>(&self, rest: Rest) -> Result<Self::Onto<Rest>, ConfigError>;

    /// Sets the identity of all members that have none of their own. Returns whether there is one.
    fn share_identity(&self, identity: &Arc<dyn Identify>) -> bool;
}

/// All members of a tuple.
pub(super) type ChainOf<L> = <L as Member>::Onto<()>;

impl<L: AskPolicy> Member for L {
    type Onto<Rest: Chain> = ChainLink<L, Rest>;

    fn onto<Rest: Chain>(&self, rest: Rest) -> Result<ChainLink<L, Rest>, ConfigError> {
        const { assert!(Rest::LEN < MOST, "gates have at most 31 members") };
        ChainLink::new(self, rest)
    }

    #[track_caller]
    fn share_identity(&self, identity: &Arc<dyn Identify>) -> bool {
        self.share_layer_identity(identity)
    }
}

/// Gates within gates are members in place.
impl<L: Members> Member for Gates<L> {
    type Onto<Rest: Chain> = L::Onto<Rest>;

    fn onto<Rest: Chain>(&self, rest: Rest) -> Result<L::Onto<Rest>, ConfigError> {
        self.check()?;
        self.layers().onto(rest)
    }

    #[track_caller]
    fn share_identity(&self, identity: &Arc<dyn Identify>) -> bool {
        !self.has_own_identity() && self.layers().share_identity(identity)
    }
}

macro_rules! tuple {
    ($First:ident $(, $Next:ident)*) => {
        impl<$First: Member $(, $Next: Member)*> Members for ($First, $($Next,)*) {}

        impl<$First: Member $(, $Next: Member)*> Member for ($First, $($Next,)*) {
            type Onto<Rest: Chain> = tuple!(@onto Rest, $First $(, $Next)*);

            fn onto<Rest: Chain>(&self, rest: Rest) -> Result<Self::Onto<Rest>, ConfigError> {
                #[allow(non_snake_case, reason = "each layer is named as its type")]
                let ($First, $($Next,)*) = self;
                tuple!(@build rest, $First $(, $Next)*)
            }

            #[track_caller]
            fn share_identity(&self, identity: &Arc<dyn Identify>) -> bool {
                #[allow(non_snake_case, reason = "each layer is named as its type")]
                let ($First, $($Next,)*) = self;
                $First.share_identity(identity) $(| $Next.share_identity(identity))*
            }
        }
    };
    (@onto $Rest:ty, $Last:ident) => { $Last::Onto<$Rest> };
    (@onto $Rest:ty, $First:ident, $($Next:ident),+) => { $First::Onto<tuple!(@onto $Rest, $($Next),+)> };
    (@build $rest:ident, $Last:ident) => { $Last.onto($rest) };
    (@build $rest:ident, $First:ident, $($Next:ident),+) => { $First.onto(tuple!(@build $rest, $($Next),+)?) };
}

tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);
tuple!(A, B, C, D, E, F, G);
tuple!(A, B, C, D, E, F, G, H);
