//! The cell that holds the present regime: read by every call without a lock, replaced at a transition.

use std::sync::Arc;

use super::epoch::Regime;

#[cfg(not(tollgate_loom))]
#[derive(Debug)]
pub(crate) struct Current(arc_swap::ArcSwap<Regime>);

#[cfg(not(tollgate_loom))]
impl Current {
    pub(crate) fn new(regime: Regime) -> Self {
        Self(arc_swap::ArcSwap::from_pointee(regime))
    }

    #[inline]
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Regime) -> T) -> T {
        look(&self.0.load())
    }

    pub(crate) fn replace(&self, regime: Regime) {
        self.0.store(Arc::new(regime));
    }
}

/// loom does not know `arc_swap`: a lock gives the same, one reader at a time.
#[cfg(tollgate_loom)]
#[derive(Debug)]
pub(crate) struct Current(crate::sync::Mutex<Arc<Regime>>);

#[cfg(tollgate_loom)]
impl Current {
    pub(crate) fn new(regime: Regime) -> Self {
        Self(crate::sync::Mutex::new(Arc::new(regime)))
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Regime) -> T) -> T {
        let regime = Arc::clone(&self.0.lock().unwrap());
        look(&regime)
    }

    pub(crate) fn replace(&self, regime: Regime) {
        *self.0.lock().unwrap() = Arc::new(regime);
    }
}
