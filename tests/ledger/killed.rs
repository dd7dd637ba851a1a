//! A process is killed during an outage of the ledger; the next process merges its spool once.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use tollgate::JobRun;

use super::{outage::Scene, *};
use crate::support::directory::Directory;

/// Directory of a child's files. A process with this variable is a child.
const DIRECTORY: &str = "TOLLGATE_KILLED_IN";

/// Runs jobs during an outage and prints each, until it is killed.
#[tokio::test]
async fn child_that_spools_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let scene = Scene::in_directory(Directory(directory.into())).await;
    let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
    let _away = scene.away().await;
    for job in 0.. {
        let charge = quotas.run_job(&acme(), &format!("job {job}"), ("tokens", 3), async {}).await;
        assert_eq!(charge.unwrap(), JobRun::Done(()));
        let held = quotas.reserve(&acme(), ("tokens", 50)).await.unwrap();
        held.commit(("tokens", 1));
        println!("\npassed {job}");
    }
}

#[tokio::test]
async fn spool_of_a_killed_process_is_charged_once() {
    let mut directory = Directory::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::child_that_spools_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, &directory.0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut passed = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(job) = line.strip_prefix("passed ") {
            passed = job.parse::<u64>().unwrap() + 1;
        }
        if passed == 25 {
            break;
        }
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert_eq!(passed, 25);

    let mut total = 0;
    for restart in 0..2 {
        let scene = Scene::in_directory(directory).await;
        let spool = scene.spool();
        assert_eq!(spool.pending() > 0, restart == 0);
        let quotas = scene.quotas(tokens(100), OnFailure::FailOpen);
        let again = quotas.run_job(&acme(), "job 7", ("tokens", 3), async {}).await;
        assert_eq!(again.unwrap(), JobRun::Replayed, "also before the ledger has it");
        Scene::merged(&spool).await;
        let entries = rows(&scene.ledger, "acme").await;
        for job in 0..passed {
            let of_job: Vec<_> = entries.iter().filter(|entry| entry.job == format!("job {job}")).collect();
            assert_eq!(of_job.len(), 1, "{of_job:?}");
            assert!(of_job[0].entry == EntryKind::Charge && of_job[0].amount == 3 && of_job[0].passed_at.is_some());
        }
        let (now, reserved) = counts(&quotas, &acme()).await;
        assert!(now >= passed * 3, "{now}");
        assert!(restart == 0 || now == total, "nothing is charged again");
        assert!(reserved <= 150, "what was not settled before it was killed is settled when its time runs out");
        total = now;
        drop((quotas, spool));
        directory = scene.close(HUNG).await;
    }
}
