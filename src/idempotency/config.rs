//! Settings of the layer.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, Method, StatusCode};

use crate::{
    error::ConfigError,
    head::RequestHead,
    identity::{Identify, Secret},
    key_value::{AfterLease, RecordStore},
    policy_name::PolicyName,
    sync::ShareBounds,
};

/// Function that names the route of a request.
pub(super) type RouteOf = Arc<dyn Fn(&RequestHead<'_>) -> String + Send + Sync>;

/// Decision on answers that tell of a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replay {
    /// An answer from 500, an error or a panic frees the key, so that a retry runs the handler again. The default.
    #[default]
    Final,
    /// An answer from 500 is stored and replayed. An error of the service or of its body, and a panic, count as carried out
    /// without an answer: a duplicate is refused with 409. For handlers that must not run again after they have failed.
    EvenFailures,
}

/// Decision on a duplicate while the first request runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnRunning {
    /// It is refused with 409 and `Retry-After: 1`. The default.
    #[default]
    Refuse,
    /// It waits for the answer for at most this time, and is then refused. At most 64 requests wait for one key, and 4,096
    /// in all; others are refused.
    Wait(Duration),
}

/// Decision on a request with a key while the store cannot begin its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStoreFailure {
    /// It is refused with 503. The default.
    #[default]
    Refuse,
    /// It passes without a record: a duplicate runs the handler again.
    PassUnprotected,
}

#[derive(Clone)]
pub(super) struct IdempotencyConfig {
    pub(super) identity: Arc<dyn Identify>,
    pub(super) store: Arc<dyn RecordStore>,
    /// `None` if the records end with the process, which then digests under its own key.
    pub(super) secret: Option<Secret>,
    pub(super) name: PolicyName,
    pub(super) header: HeaderName,
    pub(super) required: bool,
    pub(super) methods: Vec<Method>,
    pub(super) route: Option<RouteOf>,
    pub(super) accept_unverified: bool,
    pub(super) lease: Duration,
    pub(super) life: Duration,
    pub(super) after_lease: AfterLease,
    pub(super) replay: Replay,
    pub(super) replayed_headers: Vec<HeaderName>,
    pub(super) on_running: OnRunning,
    pub(super) on_store_failure: OnStoreFailure,
    pub(super) mismatch: StatusCode,
    pub(super) max_body: usize,
    pub(super) max_buffered: usize,
    pub(super) max_answer: usize,
    pub(super) body_timeout: Duration,
    pub(super) answer_timeout: Duration,
    pub(super) max_detached: usize,
}

impl IdempotencyConfig {
    /// Returns the bounds of the bytes that are held: one client has at most half, or what one request needs.
    pub(super) fn buffer_bounds(&self) -> ShareBounds {
        let half = ShareBounds::halved(self.max_buffered);
        ShareBounds { each: half.each.max(self.max_body).max(self.max_answer), ..half }
    }

    /// Checks settings that depend on each other.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let is_valid = self.max_body <= self.max_buffered;
        let must = format!("be at least {}, which is max_body", self.max_body);
        ConfigError::require(is_valid, "max_buffered", &must, self.max_buffered)
    }
}

impl fmt::Debug for IdempotencyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("IdempotencyLayer");
        shown.field("name", &self.name).field("header", &self.header).field("required", &self.required);
        shown.field("lease", &self.lease).field("life", &self.life).field("after_lease", &self.after_lease);
        shown.field("replay", &self.replay).field("on_running", &self.on_running).finish_non_exhaustive()
    }
}
