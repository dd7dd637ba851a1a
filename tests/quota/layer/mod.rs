//! Quotas around an HTTP service.

mod charges;
mod endpoints;
mod handler;
mod identity;
mod jobs;
mod networks;
mod passed_on;
mod scene;
mod slots;
mod sockets;
mod stacks;
mod units;
mod upgrades;
mod uploads;
mod websockets;
mod wire;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::gate::{Log, yield_times};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::Value;
use tollgate::{
    Charge, Client, Direction, Event, FakeClock, Identify, JobIdSource, JobOutcome, JobState, Period, Plan, Quota,
    QuotaLayer, QuotaStatus, Quotas, Reason, Refusal, RequestHead, Unverified,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneService};

use scene::*;
