//! Scripts of requests, and the strategies that make them.

use http::{Method, StatusCode};
use proptest::{option, prelude::*};

/// One request, and how everything behaves that it meets.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) method: Method,
    pub(crate) grpc: bool,
    /// The client; the last one is unidentified.
    pub(crate) client: u8,
    pub(crate) host: u8,
    pub(crate) cost: u8,
    pub(crate) job: Option<u8>,
    /// Members that exempt the request: one bit each.
    pub(crate) exempt: u8,
    pub(crate) steps: Vec<Step>,
    /// Polls for which the handler's future is pending.
    pub(crate) pending: u8,
    pub(crate) reply: Reply,
}

/// Number of members that a stack has at most.
pub(crate) const MEMBERS: usize = 4;

/// Behaviour of one member with a policy of its own.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Polls for which the decision is pending; `None` decides at once.
    pub(crate) pending: Option<u8>,
    pub(crate) refuses: Option<Why>,
    pub(crate) ends_at_head: bool,
    pub(crate) on_response: OnResponse,
    pub(crate) panics: Option<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Capacity,
    RateLimited,
    Unidentified,
}

/// Change that a permit makes to a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnResponse {
    Nothing,
    AddsField,
    SetsStatus,
    SetsLength,
    RemovesType,
    InsertsRefusal,
    RemovesRefusal,
}

/// Place of a panic in the code of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Exempt,
    Identify,
    Cost,
    Admit,
    Decision,
    OnRequest,
    OnBypass,
    OnResponse,
    EndsAtHead,
    OnBody,
    OnData,
    Settle,
    Responder,
    Observer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    PanicInCall,
    PanicInPoll,
    Fails,
    Response(ScriptedResponse),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScriptedResponse {
    pub(crate) status: StatusCode,
    pub(crate) fields: Vec<Field>,
    pub(crate) frames: Vec<FrameStep>,
    /// Whether the body knows its length.
    pub(crate) hint: bool,
    /// Whether the body says where it ends.
    pub(crate) says_end: bool,
    pub(crate) panics: Option<BodyPanic>,
    /// Amount of a unit that the handler records.
    pub(crate) records: Option<u64>,
    /// The handler passes on the refusal of another service.
    pub(crate) passes_on_refusal: Option<Why>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Grpc,
    GrpcStatus,
    Length,
    RateLimit,
    RateLimitPolicy,
    XRateLimit,
    RetryAfter,
    Custom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyPanic {
    IsEndStream,
    SizeHint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameStep {
    Pending,
    Data(u8),
    Trailers(u8),
    Fails,
    Panics,
}

/// Result of a poll for readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    Pending,
    Fails,
    Panics,
}

impl FrameStep {
    pub(crate) fn bytes(self) -> u64 {
        if let Self::Data(bytes) = self { u64::from(bytes) } else { 0 }
    }
}

impl ScriptedResponse {
    pub(crate) fn bytes(&self) -> u64 {
        self.frames.iter().map(|frame| frame.bytes()).sum()
    }
}

fn why() -> impl Strategy<Value = Why> {
    prop_oneof![Just(Why::Capacity), Just(Why::RateLimited), Just(Why::Unidentified)]
}

fn place() -> impl Strategy<Value = Place> {
    prop::sample::select(vec![
        Place::Exempt,
        Place::Identify,
        Place::Cost,
        Place::Admit,
        Place::Decision,
        Place::OnRequest,
        Place::OnBypass,
        Place::OnResponse,
        Place::EndsAtHead,
        Place::OnBody,
        Place::OnData,
        Place::Settle,
        Place::Responder,
        Place::Observer,
    ])
}

fn on_response() -> impl Strategy<Value = OnResponse> {
    prop_oneof![
        6 => Just(OnResponse::Nothing),
        1 => Just(OnResponse::AddsField),
        1 => Just(OnResponse::SetsStatus),
        1 => Just(OnResponse::SetsLength),
        1 => Just(OnResponse::RemovesType),
        1 => Just(OnResponse::InsertsRefusal),
        1 => Just(OnResponse::RemovesRefusal),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let pending = prop_oneof![3 => Just(None), 1 => (0_u8..3).prop_map(Some)];
    let refuses = prop_oneof![4 => Just(None), 1 => why().prop_map(Some)];
    let panics = prop_oneof![6 => Just(None), 1 => place().prop_map(Some)];
    (pending, refuses, any::<bool>(), on_response(), panics).prop_map(
        |(pending, refuses, ends_at_head, on_response, panics)| Step {
            pending,
            refuses,
            ends_at_head,
            on_response,
            panics,
        },
    )
}

fn frame() -> impl Strategy<Value = FrameStep> {
    prop_oneof![
        5 => (0_u8..6).prop_map(FrameStep::Data),
        2 => Just(FrameStep::Pending),
        1 => prop::sample::select(vec![0_u8, 14]).prop_map(FrameStep::Trailers),
        1 => Just(FrameStep::Fails),
        1 => Just(FrameStep::Panics),
    ]
}

fn response() -> impl Strategy<Value = ScriptedResponse> {
    let statuses = vec![200_u16, 200, 200, 101, 204, 304, 404, 429, 500, 503];
    let status = prop::sample::select(statuses).prop_map(|status| StatusCode::from_u16(status).unwrap());
    let field = prop::sample::select(vec![
        Field::Grpc,
        Field::Grpc,
        Field::GrpcStatus,
        Field::Length,
        Field::RateLimit,
        Field::RateLimitPolicy,
        Field::XRateLimit,
        Field::RetryAfter,
        Field::Custom,
    ]);
    let panics =
        prop_oneof![10 => Just(None), 1 => Just(Some(BodyPanic::IsEndStream)), 1 => Just(Some(BodyPanic::SizeHint))];
    let refusal = prop_oneof![8 => Just(None), 1 => why().prop_map(Some)];
    (
        status,
        prop::collection::vec(field, 0..3),
        prop::collection::vec(frame(), 0..4),
        any::<(bool, bool)>(),
        panics,
        option::of(0_u64..4),
        refusal,
    )
        .prop_map(|(status, fields, frames, (hint, says_end), panics, records, passes_on_refusal)| {
            ScriptedResponse { status, fields, frames, hint, says_end, panics, records, passes_on_refusal }
        })
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        12 => response().prop_map(Reply::Response),
        1 => Just(Reply::Fails),
        1 => Just(Reply::PanicInCall),
        1 => Just(Reply::PanicInPoll),
    ]
}

pub(crate) fn script() -> impl Strategy<Value = Script> {
    let method = prop::sample::select(vec![Method::GET, Method::GET, Method::POST, Method::HEAD, Method::CONNECT]);
    let grpc = prop_oneof![4 => Just(false), 1 => Just(true)];
    let exempt = prop_oneof![4 => Just(0), 1 => 0_u8..16];
    (
        (method, grpc, 0_u8..3, 0_u8..2, 0_u8..3, option::of(0_u8..2), exempt),
        prop::collection::vec(step(), MEMBERS),
        0_u8..3,
        reply(),
    )
        .prop_map(|((method, grpc, client, host, cost, job, exempt), steps, pending, reply)| Script {
            method,
            grpc,
            client,
            host,
            cost,
            job,
            exempt,
            steps,
            pending,
            reply,
        })
}
