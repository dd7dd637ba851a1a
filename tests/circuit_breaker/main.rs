//! A circuit breaker around an HTTP service and around plain futures.

mod call;
mod histories;
mod judging;
mod keys;
mod model;
mod peer_faults;
mod probes;
mod reqwest_client;
mod scene;
mod sides;
mod stream_probes;
#[path = "../support/mod.rs"]
mod support;
mod switches;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::support::gate::{Log, NeverReady, get, poll};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tollgate::{
    CallOutcome, CircuitBreaker, CircuitBreakerLayer, CircuitState, Classify, DefaultClassifier, Event, FakeClock,
    PolicyName, Reason, Refusal, Trip, Verdict,
};
use tower::{Layer, Service, ServiceExt, buffer::Buffer, load_shed::LoadShedLayer, service_fn, util::BoxCloneService};

use scene::*;
