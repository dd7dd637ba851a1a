//! A server that ends under load and comes back.

mod on_a_server {
    use std::{
        collections::HashSet,
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tokio::task::{JoinSet, block_in_place};
    use tollgate::{Ledger, Quotas, Reason};

    use crate::{
        place::{Place, answered, audit, is_trouble, job, job_at_last, quotas, until},
        support::postgres::Postgres,
    };

    const LIMIT: u64 = 1_000_000;

    /// Callers that send as fast as they are answered; three of ten calls repeat an earlier id.
    struct Load {
        asking: JoinSet<()>,
        ended: Arc<AtomicBool>,
        heard: Arc<Heard>,
    }

    #[derive(Default)]
    struct Heard {
        done: Mutex<HashSet<String>>,
        troubled: Mutex<HashSet<String>>,
        answers: AtomicUsize,
        refused: AtomicUsize,
    }

    impl Load {
        fn on(quotas: &Quotas) -> Self {
            let (mut asking, ended, heard) = (JoinSet::new(), Arc::<AtomicBool>::default(), Arc::<Heard>::default());
            for task in 0..16 {
                let (quotas, ended, heard) = (quotas.clone(), Arc::clone(&ended), Arc::clone(&heard));
                asking.spawn(async move {
                    for number in 0.. {
                        if ended.load(Ordering::Relaxed) {
                            return;
                        }
                        let again = fastrand::u8(..10) < 3;
                        let id = if again {
                            format!("{} {}", fastrand::usize(..16), fastrand::usize(..=number))
                        } else {
                            format!("{task} {number}")
                        };
                        heard.ask(&quotas, id).await;
                    }
                });
            }
            Self { asking, ended, heard }
        }

        /// Waits for a number of further admissions.
        async fn goes_on(&self) {
            let done = || self.heard.done.lock().unwrap().len();
            let before = done();
            until("the ledger answers", async || done() > before + 50).await;
        }

        /// Stops the callers, repeats each job without a known outcome, and returns the done jobs.
        async fn end(self, quotas: &Quotas) -> HashSet<String> {
            self.ended.store(true, Ordering::Relaxed);
            self.asking.join_all().await;
            let troubled = std::mem::take(&mut *self.heard.troubled.lock().unwrap());
            let mut asked = JoinSet::new();
            for id in troubled {
                let quotas = quotas.clone();
                asked.spawn(async move { job_at_last(&quotas, "acme", &id).await.map(|_| id) });
            }
            let mut done = std::mem::take(&mut *self.heard.done.lock().unwrap());
            done.extend(asked.join_all().await.into_iter().filter_map(Result::ok));
            done
        }
    }

    impl Heard {
        async fn ask(&self, quotas: &Quotas, id: String) {
            let answer = answered(job(quotas, "acme", &id)).await;
            self.answers.fetch_add(1, Ordering::Relaxed);
            match answer {
                Ok(_) => drop(self.done.lock().unwrap().insert(id)),
                answer if is_trouble(&answer) => {
                    self.troubled.lock().unwrap().insert(id);
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await; // as a client would
                }
                answer => assert_eq!(answer.unwrap_err().reason(), Reason::JobRunning),
            }
        }
    }

    async fn all_that_was_told_is_there(place: &Place, ledger: &Ledger, done: &HashSet<String>) {
        until("all is written", async || ledger.backlog() == 0).await;
        let charged = audit(place, ledger, |_, _| LIMIT).await;
        for id in done {
            assert_eq!(charged.get(&("acme".into(), id.clone())), Some(&1), "{id} was reported as done");
        }
        assert!(charged.values().all(|tokens| [0, 1].contains(tokens)));
        println!("{} done, {} charged", done.len(), charged.values().filter(|tokens| **tokens == 1).count());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn killed_server_loses_no_acknowledged_charge() {
        let server = Postgres::start("");
        let place = Place::Server(server.database());
        let ledger = place.open().await;
        let quotas = quotas(&ledger, LIMIT);
        let load = Load::on(&quotas);
        for round in 0..4 {
            load.goes_on().await;
            if round % 2 == 0 {
                block_in_place(|| server.kill());
            } else {
                block_in_place(|| server.stop());
            }
            block_in_place(|| server.again(""));
        }
        load.goes_on().await;
        let done = load.end(&quotas).await;
        all_that_was_told_is_there(&place, &ledger, &done).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn known_outage_is_answered_without_waiting() {
        let server = Postgres::start("");
        let place = Place::Server(server.database());
        let ledger = place.open().await;
        let quotas = quotas(&ledger, LIMIT);
        let load = Load::on(&quotas);
        load.goes_on().await;
        block_in_place(|| server.stop());
        // Their deadline is an hour, so the answer does not come from it.
        let refused = || load.heard.refused.load(Ordering::Relaxed);
        until("callers are refused at once", async || refused() > 200).await;
        assert!(ledger.reconcile().await.is_err());
        block_in_place(|| server.again(""));
        load.goes_on().await;
        let done = load.end(&quotas).await;
        all_that_was_told_is_there(&place, &ledger, &done).await;
    }
}
