//! Ten thousand concurrent callers for a remaining amount.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::{
    task::JoinSet,
    time::{Duration, Instant},
};
use tollgate::{JobRun, Quotas, Reason};

use super::place::{Place, answered, audit, job, quotas, until};

const ASKED: usize = 10_000;
const LIMIT: usize = 3_000;

/// In three of ten cases another caller sends the same id.
async fn ten_thousand_callers_take_exactly_the_limit(place: &Place) {
    let ledger = place.open().await;
    let quotas = quotas(&ledger, LIMIT as u64);
    let mut asked = JoinSet::new();
    for number in 0..ASKED {
        let same = fastrand::usize(..10) < 3;
        let id = format!("job {}", if same { fastrand::usize(..=number) } else { number });
        let quotas = quotas.clone();
        asked.spawn(async move { (answered(job(&quotas, "acme", &id)).await, id) });
    }
    let (mut done, mut refused) = (HashSet::new(), HashSet::new());
    for (answer, id) in asked.join_all().await {
        match answer {
            Ok(JobRun::Done(())) => assert!(done.insert(id.clone()), "{id} was done twice"),
            Ok(_) => {}
            Err(refusal) if refusal.reason() == Reason::RateLimited => drop(refused.insert(id)),
            Err(refusal) => assert_eq!(refusal.reason(), Reason::JobRunning),
        }
    }
    until("all is written", async || ledger.backlog() == 0).await;
    assert!(refused.is_disjoint(&done), "{:?}", refused.intersection(&done).next());
    assert_eq!(done.len(), LIMIT);
    assert!(job(&quotas, "acme", "one more").await.is_err());
    let charged = audit(place, &ledger, |_, limit| if limit == "tokens" { LIMIT as u64 } else { 1_000_000 }).await;
    let charged: HashSet<_> = charged.into_iter().filter(|(_, tokens)| *tokens == 1).map(|((_, id), _)| id).collect();
    assert_eq!(charged, done);
}

/// A call: the time of its request and of its answer, and the answer.
#[derive(Debug)]
struct Asked {
    id: usize,
    from: Instant,
    until: Instant,
    told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Done,
    Before,
    Refused,
}

async fn ask(quotas: &Quotas, tenant: &str, id: usize) -> Asked {
    let from = Instant::now();
    let answer = answered(job(quotas, tenant, &format!("job {id}"))).await;
    let until = Instant::now();
    let told = match answer {
        Ok(JobRun::Done(())) => Told::Done,
        Ok(_) => Told::Before,
        Err(refusal) if refusal.reason() == Reason::JobRunning => Told::Before,
        Err(refusal) => {
            assert_eq!(refusal.reason(), Reason::RateLimited);
            Told::Refused
        }
    };
    Asked { id, from, until, told }
}

/// Returns whether the answers to one tenant are linearizable: some order of the calls, each at a moment between its
/// request and its answer, gives the same answers on a counter of jobs of one unit with a limit.
///
/// Such a counter only grows, so there is an order if and only if
/// - the number of done jobs is the limit if a call is refused, and never more;
/// - no call is done that was sent after another was refused: the counter was full by then;
/// - each id is done once, and no call reports a duplicate before the call that did it was sent;
/// - no call is refused for an id that is done: before, the counter had room, and afterwards the call is a duplicate.
///
/// Then this order violates no interval: all done calls in the order of their requests, each followed by its
/// duplicates, and all refusals at the end. A done call may take place as early as its request; a duplicate and a
/// refusal may take place as late as their answers.
fn check(history: &[Asked], limit: usize) {
    let done: HashMap<_, _> = history.iter().filter(|it| it.told == Told::Done).map(|it| (it.id, it)).collect();
    let count = history.iter().filter(|it| it.told == Told::Done).count();
    assert_eq!(done.len(), count, "an id is done once");
    let refused: Vec<_> = history.iter().filter(|it| it.told == Told::Refused).collect();
    assert!(if refused.is_empty() { count <= limit } else { count == limit }, "{count} done of {limit}");
    let full = refused.iter().map(|it| it.until).min();
    for one in done.values() {
        assert!(full.is_none_or(|full| one.from <= full), "{one:?} is done, but was asked after a refusal at {full:?}");
    }
    for other in history.iter().filter(|it| it.told == Told::Before) {
        let first = done.get(&other.id).unwrap_or_else(|| panic!("{other:?} was never done"));
        assert!(other.until >= first.from, "{other:?} reports {first:?} before it was sent");
    }
    for one in refused {
        assert!(!done.contains_key(&one.id), "{one:?} is refused, and done as {:?}", done[&one.id]);
    }
}

async fn answers_are_linearizable(place: &Place) {
    let ledger = place.open().await;
    for round in 0..8 {
        let (limit, tenant): (usize, Arc<str>) = (fastrand::usize(20..200), format!("tenant {round}").into());
        let quotas = quotas(&ledger, limit as u64);
        let mut tasks = JoinSet::new();
        for _ in 0..24 {
            let (quotas, tenant) = (quotas.clone(), Arc::clone(&tenant));
            tasks.spawn(async move {
                let mut asked = Vec::new();
                for _ in 0..14 {
                    asked.push(ask(&quotas, &tenant, fastrand::usize(..300)).await);
                    tokio::time::sleep(Duration::from_micros(fastrand::u64(..3_000))).await;
                }
                asked
            });
        }
        let history: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        check(&history, limit);
    }
    assert!(ledger.reconcile().await.unwrap().drifts.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_take_exactly_the_limit_on_a_file() {
    let (place, _directory) = Place::file();
    ten_thousand_callers_take_exactly_the_limit(&place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_linearizable_on_a_file() {
    let (place, _directory) = Place::file();
    answers_are_linearizable(&place).await;
}

mod on_a_server {
    use super::*;
    use crate::support::postgres::Postgres;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn ten_thousand_callers_take_exactly_the_limit() {
        super::ten_thousand_callers_take_exactly_the_limit(&Place::Server(Postgres::shared().database())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn answers_are_linearizable() {
        super::answers_are_linearizable(&Place::Server(Postgres::shared().database())).await;
    }
}

mod the_check {
    use super::*;

    fn asked(id: usize, from: u64, until: u64, told: Told) -> Asked {
        let zero = *ZERO;
        Asked { id, from: zero + Duration::from_secs(from), until: zero + Duration::from_secs(until), told }
    }

    static ZERO: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

    #[test]
    fn accepts_answers_that_have_an_order() {
        let (done, before, refused) = (Told::Done, Told::Before, Told::Refused);
        check(&[asked(1, 0, 3, done), asked(1, 1, 2, before), asked(2, 2, 5, refused), asked(3, 1, 6, done)], 2);
    }

    #[test]
    #[should_panic(expected = "was asked after a refusal")]
    fn finds_room_after_a_refusal() {
        check(&[asked(1, 0, 1, Told::Refused), asked(2, 2, 3, Told::Done)], 1);
    }

    #[test]
    #[should_panic(expected = "done of")]
    fn finds_a_refusal_with_room_left() {
        check(&[asked(1, 0, 1, Told::Done), asked(2, 2, 3, Told::Refused)], 2);
    }

    #[test]
    #[should_panic(expected = "and done as")]
    fn finds_a_duplicate_that_is_refused() {
        check(&[asked(1, 0, 1, Told::Done), asked(1, 0, 1, Told::Refused)], 1);
    }
}
