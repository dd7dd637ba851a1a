//! The field that warns a client before it runs into a limit.

use http::HeaderValue;

use super::item::Items;
use crate::policy_name::PolicyName;

/// The list of limits that a client has come near to: `"requests_per_day";u=9000;q=10000` says that 9,000 of 10,000 are
/// used. `None` without limits.
pub(crate) fn near_limits<'a>(limits: impl Iterator<Item = (&'a PolicyName, u64, u64)>) -> Option<HeaderValue> {
    let mut list = Items::<128>::new();
    for (name, used, limit) in limits {
        list.item(name).integer(";u=", used).integer(";q=", limit);
    }
    HeaderValue::from_maybe_shared(list.take()).ok().filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = PolicyName> {
        "[ -~]{1,64}|[\"\\\\]{1,64}".prop_map(|name| PolicyName::try_new(&name).unwrap())
    }

    fn amount() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..1_000_u64, Just(u64::MAX), 999_999_999_999_998..1_000_000_000_000_002_u64]
    }

    proptest! {
        #[test]
        fn the_warning_is_a_list_for_any_amounts(limits in prop::collection::vec((name(), amount(), amount()), 1..4)) {
            let field = near_limits(limits.iter().map(|(name, used, limit)| (name, *used, *limit))).unwrap();
            let list: sfv::List = sfv::Parser::new(field.as_bytes()).parse().unwrap();
            prop_assert_eq!(list.len(), limits.len());
            for (entry, (name, used, limit)) in list.into_iter().zip(limits) {
                let sfv::ListEntry::Item(item) = entry else { panic!("not an item: {entry:?}") };
                prop_assert_eq!(item.bare_item.as_string().unwrap().as_str(), name.as_str());
                let values: Vec<_> = item.params.values().map(|value| i64::from(value.as_integer().unwrap())).collect();
                let clamped = [used, limit].map(|amount| i64::try_from(amount.min(999_999_999_999_999)).unwrap());
                prop_assert_eq!(values, clamped);
            }
        }
    }

    #[test]
    fn no_limits_are_no_field() {
        assert_eq!(near_limits(std::iter::empty()), None);
    }
}
