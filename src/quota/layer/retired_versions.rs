//! Versions of plans that were removed.

use std::collections::BTreeMap;

use crate::quota::Plan;

/// Last versions of removed plans, so that a plan that returns has a higher one. Accounts know by name and version which
/// plans they have started fresh under.
#[derive(Debug, Default)]
pub(super) struct RetiredVersions {
    by_name: BTreeMap<String, u64>,
    /// The highest version of the names that were forgotten. It stands for all names that are not listed.
    others: u64,
}

/// Greatest number of names. A program may give each of its plans a name of its own.
const MOST: usize = 1_024;

impl RetiredVersions {
    /// Adds a plan. Beyond [`MOST`] names, that with the lowest version is forgotten.
    pub(super) fn add(&mut self, plan: &Plan) {
        let last = self.last(plan).max(plan.version());
        self.by_name.insert(plan.name().as_str().to_owned(), last);
        if self.by_name.len() > MOST
            && let Some(lowest) = self.by_name.iter().min_by_key(|(_, version)| **version).map(|(name, _)| name.clone())
        {
            self.others = self.by_name.remove(&lowest).unwrap_or(0).max(self.others);
        }
    }

    /// Returns a version that no removed plan of this name exceeds.
    pub(super) fn last(&self, plan: &Plan) -> u64 {
        self.by_name.get(plan.name().as_str()).copied().unwrap_or(self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_end_take_bounded_memory() {
        let (mut retired, mut random) = (RetiredVersions::default(), fastrand::Rng::with_seed(1));
        let mut book = BTreeMap::<String, u64>::new();
        for number in 0..20_000 {
            let name = format!("plan {}", random.u64(..=number));
            let version = retired.last(&Plan::new(&name)) + 1;
            assert!(book.insert(name.clone(), version).is_none_or(|before| before < version), "{name}");
            retired.add(&Plan::new(&name).numbered(version));
            assert!(retired.by_name.len() <= MOST);
        }
        assert!(book.values().any(|version| *version > 3));
    }
}
