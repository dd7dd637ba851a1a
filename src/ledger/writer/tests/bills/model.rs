//! The property over the model.

use super::{super::model::Store, *};

fn run(case: &Case) -> Result<(), TestCaseError> {
    let (mut history, mut store) = (History::new(case, "acme"), Store::default());
    for batch in case.batches() {
        let asked = history.next(batch);
        let loaded = store.load(&history.reads(&asked.commands), history.now);
        let writes = history.decide(asked, loaded);
        prop_assert!(!writes.rows.iter().any(|row| store.has(row)), "the unique index keeps out {writes:?}");
        store.apply(&writes);
    }
    if case.is_plain() {
        store.adds_up().map_err(TestCaseError::fail)?;
    }
    for (from, until) in history.periods(case) {
        prop_assert_eq!(history.by_rule(from, until), history.book(from, until), "from {} until {}", from, until);
        if let Some(used) = history.used(from) {
            prop_assert_eq!(history.used_by_rows(from), used, "at {}", from);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invoices_are_the_sums_of_the_book(case in cases(10)) {
        run(&case)?;
    }
}
