//! What a refusal says to people, without what is nobody's business.

use super::buffer::Buffer;
use super::{Reason, Refusal};

/// One or two sentences of plain ASCII, the same on every wire. How large a shared capacity is stays unsaid.
pub(super) fn detail<const N: usize>(refusal: &Refusal, out: &mut Buffer<N>) {
    match (refusal.reason(), refusal.limit()) {
        (Reason::RateLimited, 0) => out.push("The limit is used up."),
        (Reason::RateLimited, limit) if refusal.remaining() > 0 => {
            out.push("Too little is left of the limit of ").number(limit).push(".")
        }
        (Reason::RateLimited, limit) => out.push("The limit of ").number(limit).push(" is used up."),
        (Reason::Capacity, _) => out.push("All capacity is in use."),
        (Reason::CircuitOpen, _) => out.push("A service that this one needs does not answer as it should."),
        (Reason::Unavailable, _) => out.push("What decides cannot be reached; nothing was charged."),
        (Reason::Indeterminate, _) => out.push(
            "It was not known in time whether this was charged. Sent again with the same job id, it is charged once.",
        ),
        (Reason::Rejected, _) => out.push("The quota store rejected the charge; nothing was charged."),
        (Reason::TooLarge, 0) => out.push("The request takes more than the limit allows and can never pass."),
        (Reason::TooLarge, limit) => {
            out.push("The request takes more than the limit of ").number(limit).push(" and can never pass.")
        }
        (Reason::JobRunning, _) => out.push("The same job is being worked on."),
        (Reason::DuplicateJob, _) => out.push("The same job was done before; it was charged once."),
        (Reason::JobConflict, _) => out.push("Another job has this id."),
        (Reason::InvalidJobId, _) => out.push("A job id is one text of 1 to 255 visible characters."),
        (Reason::StaleJobId, _) => {
            out.push("The job id is too old to know whether it was charged, or is no UUID of version 7 and no ULID.")
        }
        (Reason::Unidentified, _) => out.push("The request does not say on whose behalf it comes."),
    };
    match refusal.retry_after_seconds() {
        Some(1) => out.push(" Retry in 1 second."),
        Some(seconds) => out.push(" Retry in ").number(seconds).push(" seconds."),
        None => out,
    };
}
