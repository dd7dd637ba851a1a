//! Property: a database bills the sums of a naive book, over random histories.

use std::collections::BTreeMap;

use proptest::{prelude::Strategy, strategy::ValueTree, test_runner::TestRunner};

use super::*;
use crate::ledger::{
    sql::{ChargePath, SqlDatabase},
    writer::tests::bills::{Case, History, cases, nonzero},
};

/// Number of histories on one database; each has its own tenant.
const HISTORIES: usize = 200;

pub(in crate::ledger) async fn are_sums_of_the_book<S: ChargePath>(database: &SqlDatabase<S>) {
    let (mut runner, mut plain) = (TestRunner::deterministic(), Vec::new());
    let mut session = database.connect().await.unwrap();
    for number in 0..HISTORIES {
        let case = cases(8).new_tree(&mut runner).unwrap().current();
        let tenant = format!("tenant {number}");
        let mut history = History::new(&case, &tenant);
        for batch in case.batches() {
            let asked = history.next(batch);
            if asked.commands.is_empty() {
                continue;
            }
            let loaded = session.begin(&history.reads(&asked.commands)).await.unwrap();
            let writes = history.decide(asked, loaded);
            session.write(&writes, history.now).await.unwrap();
            session.commit().await.unwrap();
        }
        agrees(database, &case, &history, 0).await;
        let periods = history.periods(&case);
        let sealed = periods[periods.len() / 2].0;
        let mut periods = database.finished(&tenant, sealed).await.unwrap();
        while !periods.is_empty() {
            database.archive(&tenant, &mut periods).await.unwrap();
        }
        agrees(database, &case, &history, sealed).await;
        if case.is_plain() {
            plain.push(tenant);
        }
    }
    let (_, drifts) = database.drifts(usize::MAX >> 2).await.unwrap();
    assert!(!drifts.iter().any(|drift| plain.contains(&drift.tenant)), "{drifts:?}");
}

/// Compares all periods that begin at `from` or later.
async fn agrees<S: ChargePath>(database: &SqlDatabase<S>, case: &Case, history: &History, from: u64) {
    for (from, until) in history.periods(case).into_iter().filter(|period| period.0 >= from) {
        let sums = database.sums(history.tenant(), from, until).await.unwrap();
        let billed = nonzero(sums.into_iter().map(|sum| (sum.kind, sum.amount)));
        assert_eq!(billed, history.book(from, until), "{} from {from} until {until}: {case:?}", history.tenant());
        assert_eq!(billed, history.by_rule(from, until), "{} from {from} until {until}: {case:?}", history.tenant());
        let Some(used) = history.used(from) else { continue };
        let past = database.past(history.tenant(), from).await.unwrap();
        let past: BTreeMap<_, _> = nonzero(past.into_iter().map(|it| (it.limit, i128::from(it.used))));
        assert_eq!(past, used, "{} at {from}: {case:?}", history.tenant());
    }
}
