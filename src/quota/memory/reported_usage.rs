//! Usage of an open charge that was reported before its end.

use crate::quota::{
    Amounts,
    account::{Account, ChargeScope},
    store::Receipt,
};

/// Usage that was reported, each amount with the counters in which it was counted: from there it is returned if the
/// charge is.
///
/// Amounts in the same counters are added up. So there are few, however many windows have passed meanwhile.
#[derive(Debug, Default)]
pub(super) struct ReportedUsage(Vec<(Amounts, ChargeScope)>);

impl ReportedUsage {
    /// Returns the usage that was reported under a receipt.
    pub(super) fn of(receipt: &Receipt) -> &[(Amounts, ChargeScope)] {
        let part = receipt.store_part.as_ref().and_then(|part| part.downcast_ref::<Self>());
        part.map_or(&[], |Self(parts)| parts)
    }

    /// Adds amounts that an account has just counted in its open counters.
    pub(super) fn add(&mut self, amounts: Amounts, account: &Account) {
        self.0.push((amounts, account.scope()));
        self.0.dedup_by(|(amounts, scope), (earlier, of)| {
            let same = account.has_one_part_of(scope, of);
            if same {
                amounts.iter().for_each(|(kind, amount)| earlier.add(kind, amount));
                *of = scope.clone();
            }
            same
        });
    }
}

#[cfg(all(test, not(tollgate_loom)))]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        quota::{Plan, Quota, account::Now},
        time::{Moment, Period, nanos},
    };

    #[test]
    fn stream_of_a_month_keeps_few_parts() {
        let limits = [Period::rolling(Duration::from_secs(60)), Period::hour(), Period::day()]
            .map(|period| Quota::requests(1_000_000).per(period));
        let plan = Arc::new(limits.into_iter().fold(Plan::new("three"), Plan::limit));
        let (mut account, mut reported, mut most) = (Account::new(&plan), ReportedUsage::default(), 0);
        let one = Amounts::from(("requests", 1));
        for minute in 0..60 * 24 * 30_u32 {
            let wall = nanos(Duration::from_secs(60) * minute) + 1;
            let _ = account.record(&one, Now { moment: Moment::from_nanos(wall), wall });
            reported.add(one.clone(), &account);
            most = most.max(reported.0.len());
        }
        assert!(most <= 4, "{most} parts");
        let all: u64 =
            reported.0.iter().map(|(amounts, _)| amounts.get(&crate::kind::Kind::Requests).unwrap_or(0)).sum();
        assert_eq!(all, 60 * 24 * 30);
    }
}
