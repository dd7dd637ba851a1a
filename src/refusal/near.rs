//! The field that warns a client before it runs into a limit.

use http::HeaderValue;

use crate::policy_name::PolicyName;

/// The list of limits that a client has come near to: `"requests_per_day";u=9000;q=10000` says that 9,000 of 10,000 are
/// used.
pub(crate) fn near_limits<'a>(limits: impl Iterator<Item = (&'a PolicyName, u64, u64)>) -> Option<HeaderValue> {
    let items: Vec<_> = limits.map(|(name, used, limit)| format!("{};u={used};q={limit}", name.quoted())).collect();
    HeaderValue::try_from(items.join(", ")).ok().filter(|list| !list.is_empty())
}
