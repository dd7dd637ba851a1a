//! Events of a layer's store: warnings, amounts that were cut, and those for which no caller waits.

use crate::{
    gate::{Event, PolicyContext},
    identity::Name,
    quota::{
        account::Cut,
        store::{NearLimits, StoreEvent},
    },
};

/// Emits an event of the store for which no caller waits.
pub(super) fn emit(context: &PolicyContext, event: &StoreEvent) {
    let policy = &context.name;
    let network: Option<Name>;
    let event = match event {
        StoreEvent::Near(near) => return warn(context, near),
        StoreEvent::Cut(cut) => return report_cut(context, cut),
        StoreEvent::Rejected { client, why } => Event::StoreRejected { policy, client, why },
        StoreEvent::Held(client) => Event::AccountHeld { policy, client },
        StoreEvent::Lost(why) => Event::StoreLost { policy, why },
        StoreEvent::Back => Event::StoreBack { policy },
        StoreEvent::Full => Event::SpoolFull { policy },
        StoreEvent::CohortFull(cohort) => {
            network = cohort.network();
            Event::CohortFull { policy, network: network.as_ref() }
        }
        StoreEvent::Merged { records, duplicates } => {
            Event::SpoolMerged { policy, records: *records, duplicates: *duplicates }
        }
    };
    context.observers.emit(&event);
}

/// Emits the parts of amounts that no counter took.
#[cold]
fn report_cut(context: &PolicyContext, cut: &Cut) {
    for (kind, amount) in cut.iter() {
        context.observers.emit(&Event::AmountCut { policy: &context.name, kind: kind.as_str(), amount });
    }
}

/// Emits the warnings of a client near its limits, and amounts that were cut.
#[inline]
pub(super) fn warn(context: &PolicyContext, near: &NearLimits) {
    if !near.cut.is_none() {
        report_cut(context, &near.cut);
    }
    for warning in &near.limits {
        context.observers.emit(&Event::NearLimit {
            policy: &context.name,
            client: near.client.as_ref(),
            limit: &warning.name,
            used: warning.used,
            of: warning.limit,
        });
    }
}
