//! Reasons of refusals and the form of each in logs, HTTP and gRPC.

use std::fmt;

use http::StatusCode;

/// Forms of one reason, all of them constants.
pub(super) struct Forms {
    pub(super) word: &'static str,
    /// Reason in `google.rpc.ErrorInfo`.
    pub(super) grpc_reason: &'static str,
    /// Number of the gRPC status.
    pub(super) grpc_status: u64,
    pub(super) status: StatusCode,
    /// Problem document up to its detail. The type is IANA's. Where there is none, the title is that of the status.
    pub(super) problem: &'static str,
    /// Text for logs.
    pub(super) summary: &'static str,
    /// Text for users. A fault of the server's set-up begins with a space, after the name of the policy.
    pub(super) detail: &'static str,
}

/// Declares the reasons. Each has its word, its gRPC reason and status, its HTTP status, title and problem type, and its
/// texts for logs and for users.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $reason:ident:
        $word:literal, $grpc_reason:literal $grpc_status:literal, $status:ident $number:literal $title:literal,
        $type:literal $(code $code:literal)?, $summary:literal, $detail:literal;)+) => {
        /// Kind of a refusal, which decides the status of the response.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])+ $reason,)+
        }

        impl Reason {
            /// Returns the forms of the reason.
            pub(super) const fn forms(self) -> &'static Forms {
                match self {
                    $(Self::$reason => &Forms {
                        word: $word,
                        grpc_reason: $grpc_reason,
                        grpc_status: $grpc_status,
                        status: StatusCode::$status,
                        problem: concat!(
                            "{\"type\":\"", $type, "\",\"title\":\"", $title, "\",\"status\":", $number,
                            $(",\"code\":\"", $code, "\"",)? ",\"detail\":\""
                        ),
                        summary: $summary,
                        detail: $detail,
                    },)+
                }
            }
        }
    };
}

reasons! {
    /// The client exceeded its own limit: 429, `RESOURCE_EXHAUSTED`.
    RateLimited:
        "rate_limited", "RATE_LIMITED" 8, TOO_MANY_REQUESTS 429 "Quota Exceeded",
        "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "limit reached",
        "The limit is used up.";
    /// A capacity that all clients share is used up: 503, `UNAVAILABLE`.
    Capacity:
        "capacity", "CAPACITY" 14, SERVICE_UNAVAILABLE 503 "Temporary Reduced Capacity",
        "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "shared capacity used up",
        "All capacity is in use.";
    /// The circuit of the protected service is open: 503, `UNAVAILABLE`.
    CircuitOpen:
        "circuit_open", "CIRCUIT_OPEN" 14, SERVICE_UNAVAILABLE 503 "Temporary Reduced Capacity",
        "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "circuit open",
        "A service that this one depends on is failing.";
    /// The quota store is unavailable and nothing was charged: 503, `UNAVAILABLE`.
    Unavailable:
        "unavailable", "UNAVAILABLE" 14, SERVICE_UNAVAILABLE 503 "Temporary Reduced Capacity",
        "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "store unavailable, nothing charged",
        "The quota store is unavailable; nothing was charged.";
    /// The store did not confirm in time whether the charge was made: 503, `UNAVAILABLE`. A retry with the same job id
    /// is charged once.
    Indeterminate:
        "indeterminate", "INDETERMINATE" 14, SERVICE_UNAVAILABLE 503 "Temporary Reduced Capacity",
        "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "store did not confirm the charge in time",
        "The quota store did not confirm the charge in time. A retry with the same job id is charged once.";
    /// The store rejects the charge for good and nothing was charged: 500, `INTERNAL`. A retry is rejected again;
    /// [`Event::StoreRejected`](crate::Event::StoreRejected) has the cause.
    Rejected:
        "rejected", "REJECTED" 13, INTERNAL_SERVER_ERROR 500 "Internal Server Error", "about:blank",
        "charge rejected by the store, nothing charged",
        "The quota store rejected the charge; nothing was charged.";
    /// A call of the handle names a unit that no plan of the layer counts, so that nothing could ever be charged for it: 500,
    /// `INTERNAL`. The [violation](crate::Refusal::violations) has the unit. Correct its name, or add a limit.
    UnknownUnit:
        "unknown_unit", "UNKNOWN_UNIT" 13, INTERNAL_SERVER_ERROR 500 "Internal Server Error", "about:blank",
        "no plan counts the unit, nothing charged",
        "The service charges a unit that no plan counts; nothing was charged.";
    /// The request exceeds the whole limit, so that waiting does not help: 413, `RESOURCE_EXHAUSTED`.
    TooLarge:
        "too_large", "TOO_LARGE" 8, PAYLOAD_TOO_LARGE 413 "Content Too Large", "about:blank",
        "request can never pass",
        "The request takes more than the limit allows and can never pass.";
    /// The job that the request names is still running: 409, `ABORTED`.
    JobRunning:
        "job_running", "JOB_RUNNING" 10, CONFLICT 409 "Conflict", "about:blank",
        "job still running",
        "The same job is still running.";
    /// The job that the request names was charged before, and its work was done: 409, `ALREADY_EXISTS`.
    DuplicateJob:
        "duplicate_job_id", "DUPLICATE_JOB_ID" 6, CONFLICT 409 "Conflict", "about:blank" code "duplicate_job_id",
        "job charged before",
        "The same job was charged and done before, and is not run again.";
    /// The job that the request names was charged before, and the outcome of its work is unknown: 409,
    /// `FAILED_PRECONDITION`. The work was interrupted, or it may be under way in another process; then the refusal has
    /// a retry time. [`settle_job`](crate::Quotas::settle_job) settles it.
    JobOutcomeUnknown:
        "job_outcome_unknown", "JOB_OUTCOME_UNKNOWN" 9, CONFLICT 409 "Conflict",
        "about:blank" code "job_outcome_unknown",
        "job charged, outcome unknown",
        "The same job was charged before, and its outcome is unknown. It is not run again.";
    /// The job id of the request belongs to another job: 422, `INVALID_ARGUMENT`.
    JobConflict:
        "job_conflict", "JOB_CONFLICT" 3, UNPROCESSABLE_ENTITY 422 "Unprocessable Content", "about:blank",
        "job id belongs to another job",
        "The job id belongs to another job.";
    /// The request has two job ids, or one that is not 1 to 255 visible characters: 400, `INVALID_ARGUMENT`.
    InvalidJobId:
        "invalid_job_id", "INVALID_JOB_ID" 3, BAD_REQUEST 400 "Bad Request", "about:blank",
        "invalid job id",
        "The request must have one job id of 1 to 255 visible characters.";
    /// The job id is older than the ids that are retained, or carries no time where only recent ids are retained: 400,
    /// `INVALID_ARGUMENT`. It is no longer known whether the job was charged before.
    StaleJobId:
        "stale_job_id", "STALE_JOB_ID" 3, BAD_REQUEST 400 "Bad Request", "about:blank",
        "job id too old, or without a time",
        "The job id is too old to tell whether it was charged, or it is neither a UUID of version 7 nor a ULID.";
    /// The request has no idempotency key, two, or one that is not 1 to 255 visible characters: 400, `INVALID_ARGUMENT`.
    InvalidIdempotencyKey:
        "invalid_idempotency_key", "INVALID_IDEMPOTENCY_KEY" 3, BAD_REQUEST 400 "Bad Request", "about:blank",
        "no valid idempotency key",
        "The request must have one idempotency key of 1 to 255 visible characters.";
    /// The idempotency key was used for another request: 422, `INVALID_ARGUMENT`.
    IdempotencyKeyReused:
        "idempotency_key_reused", "IDEMPOTENCY_KEY_REUSED" 3, UNPROCESSABLE_ENTITY 422 "Unprocessable Content",
        "about:blank" code "idempotency_key_reused",
        "idempotency key used for another request",
        "The idempotency key was used for another request. Send a new key with a new request.";
    /// The same operation is running: 409, `ABORTED`.
    OperationRunning:
        "operation_running", "OPERATION_RUNNING" 10, CONFLICT 409 "Conflict", "about:blank" code "operation_running",
        "same operation still running",
        "The same operation is still running.";
    /// The same operation was carried out, and its answer was not retained: 409, `ALREADY_EXISTS`.
    AnswerNotRetained:
        "answer_not_retained", "ANSWER_NOT_RETAINED" 6, CONFLICT 409 "Conflict", "about:blank" code "answer_not_retained",
        "operation carried out, answer not retained",
        "The same operation was carried out before, and its answer was not retained. It is not carried out again.";
    /// The process that carried the same operation out is gone, and the outcome is unknown: 409, `FAILED_PRECONDITION`.
    /// `IdempotencyHandle::settle` settles it.
    OperationOutcomeUnknown:
        "operation_outcome_unknown", "OPERATION_OUTCOME_UNKNOWN" 9, CONFLICT 409 "Conflict",
        "about:blank" code "operation_outcome_unknown",
        "operation interrupted, outcome unknown",
        "The same operation was interrupted, and its outcome is unknown. It is not carried out again.";
    /// The body of the request is longer than the layer reads: 413, `RESOURCE_EXHAUSTED`.
    BodyTooLong:
        "body_too_long", "BODY_TOO_LONG" 8, PAYLOAD_TOO_LARGE 413 "Content Too Large", "about:blank",
        "body too long",
        "The body of a request with an idempotency key is too long.";
    /// The body of the request could not be read to its end in time: 408, `CANCELLED`.
    BodyUnread:
        "body_unread", "BODY_UNREAD" 1, REQUEST_TIMEOUT 408 "Request Timeout", "about:blank",
        "body not read in time",
        "The body of the request could not be read to its end in time; nothing was carried out.";
    /// The client holds all the bytes that one client may hold, in bodies of requests and in answers: 429,
    /// `RESOURCE_EXHAUSTED`.
    ClientCapacity:
        "client_capacity", "CLIENT_CAPACITY" 8, TOO_MANY_REQUESTS 429 "Too Many Requests", "about:blank",
        "client's share of the capacity used up",
        "The client uses all the capacity that one client may have.";
    /// The record store has no room, or none for this client, and nothing was carried out: 503, `UNAVAILABLE`.
    RecordsFull:
        "records_full", "RECORDS_FULL" 14, SERVICE_UNAVAILABLE 503 "Temporary Reduced Capacity",
        "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "record store full, nothing carried out",
        "The record store is full; nothing was carried out.";
    /// The record store is unavailable, and nothing was carried out: 503, `UNAVAILABLE`.
    RecordsUnavailable:
        "records_unavailable", "RECORDS_UNAVAILABLE" 14, SERVICE_UNAVAILABLE 503 "Temporary Reduced Capacity",
        "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "record store unavailable, nothing carried out",
        "The record store is unavailable; nothing was carried out.";
    /// The handler kept the transaction that it shares with the record beyond its answer, a fault of the handler: 500,
    /// `INTERNAL`. Its writes are rolled back.
    TransactionKept:
        "transaction_kept", "TRANSACTION_KEPT" 13, INTERNAL_SERVER_ERROR 500 "Internal Server Error", "about:blank",
        "handler kept its shared transaction, rolled back",
        "The service did not finish its transaction; nothing was carried out.";
    /// The client was identified in a way that no other process repeats, a fault of the server's set-up: 500, `INTERNAL`.
    LocalIdentity:
        "local_identity", "LOCAL_IDENTITY" 13, INTERNAL_SERVER_ERROR 500 "Internal Server Error", "about:blank",
        "client identified by this process alone; identify it with the digester that identify receives, or by a public name",
        " cannot find the records of this client in another process. Its identity must use the digester that identify \
         receives, or a public name.";
    /// The client has the greatest number of open reservations: 429, `RESOURCE_EXHAUSTED`.
    TooManyReservations:
        "too_many_reservations", "TOO_MANY_RESERVATIONS" 8, TOO_MANY_REQUESTS 429 "Too Many Requests", "about:blank",
        "too many open reservations",
        "The client has too many open reservations.";
    /// The request has no valid credential, and the layer identifies clients by nothing else: 401, `UNAUTHENTICATED`.
    Unauthenticated:
        "unauthenticated", "UNAUTHENTICATED" 16, UNAUTHORIZED 401 "Unauthorized", "about:blank",
        "no valid credential",
        "The request has no valid credential.";
    /// The extensions of the request have no peer address that the layer reads, a fault of the server's set-up: 500,
    /// `INTERNAL`.
    NoPeerAddress:
        "no_peer_address", "NO_PEER_ADDRESS" 13, INTERNAL_SERVER_ERROR 500 "Internal Server Error", "about:blank",
        "no peer address in the extensions of the request; with axum serve \
         app.into_make_service_with_connect_info::<SocketAddr>() and identify_by(tollgate::peer_ip!(axum)); or read \
         what the server inserts, or on_unidentified(OnUnidentified::Share)",
        " found no peer address in the extensions of the request. The server must insert it in a form that the layer \
         reads: with axum, app.into_make_service_with_connect_info::<SocketAddr>() and \
         .identify_by(tollgate::peer_ip!(axum)). Or all clients share one limit, with \
         .on_unidentified(OnUnidentified::Share).";
    /// The extensions of the request have no principal that the layer reads, a fault of the server's set-up: 500,
    /// `INTERNAL`.
    NoPrincipal:
        "no_principal", "NO_PRINCIPAL" 13, INTERNAL_SERVER_ERROR 500 "Internal Server Error", "about:blank",
        "no principal in the extensions of the request; put the authentication layer outside this one, or \
         on_unidentified(OnUnidentified::Share)",
        " found no principal in the extensions of the request. The authentication layer must be outside this one, so \
         that it runs first. Or all clients without a principal share one limit, with \
         .on_unidentified(OnUnidentified::Share).";
    /// The request has no identity and the layer refuses such requests: 403, `PERMISSION_DENIED`.
    Unidentified:
        "unidentified", "UNIDENTIFIED" 7, FORBIDDEN 403 "Forbidden", "about:blank",
        "no client identified",
        "The request could not be attributed to a client.";
}

impl Reason {
    /// Returns the reason as one word, such as `rate_limited`, for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.forms().word
    }

    /// Returns whether a request that is refused for this reason may pass later.
    pub(super) const fn is_temporary(self) -> bool {
        use Reason::{Capacity, CircuitOpen, Indeterminate, RateLimited, TooManyReservations, Unavailable};
        let of_job = matches!(self, Self::JobRunning | Self::JobOutcomeUnknown | Self::OperationRunning);
        let of_limit = matches!(self, RateLimited | Capacity | TooManyReservations | Self::ClientCapacity);
        let of_store = matches!(self, Unavailable | Indeterminate | Self::RecordsUnavailable | Self::RecordsFull);
        of_job || of_limit || of_store || matches!(self, CircuitOpen)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
