//! Failures of the connection to the server at the worst moments.

mod on_a_server {
    use std::{sync::Arc, time::Duration};

    use tokio::{task::JoinSet, time::Instant};
    use tollgate::{JobRun, Quotas, Reason};

    use crate::{
        line::{Fault, Line},
        place::{BRIEF, PATIENT, Place, answered, audit, is_trouble, job, job_at_last, quotas, until, wait},
        support::postgres::Postgres,
    };

    struct Behind {
        place: Place,
        ledger: tollgate::Ledger,
        quotas: Quotas,
        line: Line,
    }

    async fn a_ledger_behind_a_line() -> Behind {
        let server = Postgres::shared();
        let url = server.database();
        let line = Line::to(server.port()).await;
        let ledger = tollgate::Ledger::postgres(line.url(&url)).open().await.unwrap().deadline(PATIENT);
        let quotas = quotas(&ledger, 1_000);
        assert_eq!(job(&quotas, "acme", "the first").await.unwrap(), JobRun::Done(()));
        Behind { place: Place::Server(url), ledger, quotas, line }
    }

    impl Behind {
        /// Makes the next commit fail. Ends of earlier jobs have commits of their own, which are awaited.
        async fn next_commit(&self, fault: Fault) {
            self.ledger.flush().await;
            self.line.fails_next(fault);
        }

        /// Asserts that a number of jobs is charged, each once.
        async fn has_charged(&self, jobs: usize) {
            let server = self.place.open().await; // not over the line
            let charged = audit(&self.place, &server, |_, _| 1_000).await;
            let count = charged.values().filter(|tokens| **tokens != 0).count();
            assert_eq!((count, charged.values().sum::<i64>()), (jobs, i64::try_from(jobs).unwrap()), "{charged:?}");
        }

        /// Sends ten jobs, each three times at once; returns the outcome of each.
        async fn thirty_ask(&self, name: &str) -> (usize, usize) {
            let mut asked = JoinSet::new();
            for number in 0..30 {
                let (quotas, id) = (self.quotas.clone(), format!("{name} {}", number % 10));
                asked.spawn(async move { answered(job(&quotas, "acme", &id)).await });
            }
            let answers = asked.join_all().await;
            let done = answers.iter().filter(|answer| matches!(answer, Ok(JobRun::Done(())))).count();
            let trouble = answers.iter().filter(|answer| is_trouble(answer)).count();
            assert!(done <= 10, "{answers:?}");
            (done, trouble)
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn commit_with_a_lost_reply_is_reported_as_done() {
        let behind = a_ledger_behind_a_line().await;
        for round in 0..10 {
            behind.next_commit(Fault::CutBehind).await;
            assert_eq!(behind.thirty_ask(&format!("job {round}")).await, (10, 0));
            assert!(behind.line.has_failed());
        }
        behind.has_charged(101).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn commit_that_never_arrived_is_repeated() {
        let behind = a_ledger_behind_a_line().await;
        for round in 0..10 {
            behind.next_commit(Fault::CutBefore).await;
            assert_eq!(behind.thirty_ask(&format!("job {round}")).await, (10, 0));
            assert!(behind.line.has_failed());
        }
        behind.has_charged(101).await;
    }

    /// The writer looks for its commit on another connection, and the server makes it wait for the first.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn late_commit_is_awaited() {
        let behind = a_ledger_behind_a_line().await;
        behind.next_commit(Fault::Keep).await;
        wait(&behind.ledger, BRIEF);
        let connected = behind.line.connections();
        let (done, trouble) = behind.thirty_ask("late").await;
        assert!(done == 0 && trouble > 0, "no caller waits for the commit: {done} {trouble}");
        until("the writer looks for its commit", async || behind.line.connections() > connected).await;
        assert!(behind.line.has_failed());
        behind.line.release();
        wait(&behind.ledger, PATIENT);
        let answers = futures_util::future::join_all((0..10).map(|number| {
            let quotas = behind.quotas.clone();
            async move { job_at_last(&quotas, "acme", &format!("late {number}")).await }
        }));
        for answer in answers.await {
            assert!(answer.is_ok() || answer.as_ref().is_err_and(|it| it.reason() == Reason::JobRunning), "{answer:?}");
        }
        until("all is written", async || behind.ledger.backlog() == 0).await;
        behind.has_charged(11).await;
    }

    /// Both ends believe that the other is connected, and the first transaction holds the account.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn lost_commit_is_resolved() {
        let behind = a_ledger_behind_a_line().await;
        behind.next_commit(Fault::Lose).await;
        wait(&behind.ledger, BRIEF);
        let mut number = 0;
        // Repeats until a caller still waits when its commit is sent.
        let lost = loop {
            let id = format!("lost {number}");
            match answered(job(&behind.quotas, "acme", &id)).await.unwrap_err().reason() {
                Reason::Indeterminate => break id,
                reason => assert_eq!((reason, behind.line.has_failed()), (Reason::Unavailable, false)),
            }
            number += 1;
        };
        until("the commit is lost", async || behind.line.has_failed()).await;
        wait(&behind.ledger, PATIENT);
        assert!(job_at_last(&behind.quotas, "acme", &lost).await.is_ok());
        until("all is written", async || behind.ledger.backlog() == 0).await;
        behind.has_charged(2).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn silent_server_blocks_no_caller() {
        const SILENT: usize = 20;
        let behind = Arc::new(a_ledger_behind_a_line().await);
        behind.line.be_silent(true);
        // Once the server is known to be down, callers are refused at once; none waits for its deadline.
        for number in 0..SILENT {
            let answer = answered(job(&behind.quotas, "acme", &format!("silent {number}"))).await;
            assert!(is_trouble(&answer), "{answer:?}");
        }
        behind.line.be_silent(false);
        for number in 0..SILENT {
            assert!(job_at_last(&behind.quotas, "acme", &format!("silent {number}")).await.is_ok());
        }
        until("all is written", async || behind.ledger.backlog() == 0).await;
        behind.has_charged(1 + SILENT).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn slow_connection_only_delays() {
        let behind = a_ledger_behind_a_line().await;
        behind.line.be_slow(Duration::from_millis(40));
        let since = Instant::now();
        assert_eq!(behind.thirty_ask("slow").await, (10, 0));
        assert!(since.elapsed() >= Duration::from_millis(80), "two trips: {:?}", since.elapsed());
        behind.has_charged(11).await;
    }
}
