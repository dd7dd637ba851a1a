//! Records that came too late: their jobs are older than the ledger remembers, so that they may have been charged.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

use super::spool_queue::SpoolQueue;
use crate::{
    identity::Client,
    ledger::{
        report::Json,
        writer::{Command, CommandKind, SettleKind},
    },
    quota::store::StoreEvent,
    time::{Instant, from_1970},
};

impl SpoolQueue {
    /// Appends the pending commands at these places to the file of stale records, and notifies of each; `false` if it
    /// cannot be written. It waits for the disk.
    pub(super) fn keep_aside(&self, places: &[usize]) -> bool {
        let commands: Vec<_> = {
            let state = self.lock();
            places.iter().filter_map(|at| state.pending.get(*at)).cloned().collect()
        };
        let path = self.stale_path();
        let append = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            #[cfg(unix)] // charges are private
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.append(true).create(true).open(&path)?;
            file.write_all(commands.iter().map(line).collect::<String>().as_bytes())?;
            file.sync_all()
        };
        if append().is_err() {
            return false;
        }
        let why = format!(
            "the job is older than the ledger remembers and may have been charged; the record was moved to {}",
            path.display()
        );
        let why = Arc::<str>::from(why);
        for command in commands {
            let client = Client::named(command.key.tenant);
            self.notify(&StoreEvent::Rejected { client, why: Arc::clone(&why) });
        }
        true
    }

    /// Returns the path of the file of stale records.
    fn stale_path(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".stale");
        name.into()
    }
}

/// Returns a record as a line of JSON.
fn line(command: &Command) -> String {
    let (entry, at, amounts) = match &command.kind {
        CommandKind::Spooled { admit, at } => ("charge", *at, &admit.amounts),
        CommandKind::SettleOf { settle, .. } => (
            "settlement",
            settle.since.at,
            match &settle.end {
                SettleKind::Commit(actual) => actual,
                SettleKind::Add | SettleKind::Void => &settle.used,
            },
        ),
        _ => return String::new(),
    };
    let mut line = format!(
        r#"{{"tenant":"{}","job":"{}","entry":"{entry}","passed_at":"{}","amounts":{{"#,
        Json(&command.key.tenant),
        Json(&command.key.job),
        Instant(from_1970(at)),
    );
    for (number, (kind, amount)) in amounts.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        let _ = write!(line, r#"{comma}"{}":{amount}"#, Json(kind.as_str()));
    }
    line + "}}\n"
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::{super::spool_format::Recovered, *};
    use crate::{
        ledger::writer::{AdmitCommand, Key},
        quota::{Plan, store::StoreListener},
    };

    #[test]
    fn stale_record_is_appended_to_its_file_and_reported() {
        let path = std::env::temp_dir().join(format!("tollgate-stale-{}", fastrand::u64(..)));
        let admit = AdmitCommand {
            plan: Arc::new(Plan::new("free")),
            amounts: [("tokens", 5), ("rows", 1)].into(),
            fingerprint: None,
            reserve: None,
            job_lease: None,
            wants_nearest: false,
            usage: false,
            tier: None,
        };
        let key = Key { tenant: "ac\"me".into(), job: "order 17".into() };
        let kind = CommandKind::Spooled { admit, at: 1_782_869_400_000_000_000 };
        let record = Command { key, id: 2, own: false, origin: 0, kind };
        let queue = SpoolQueue::new(&path, Recovered { commands: vec![record], ..Recovered::default() });
        let reported = Arc::new(Mutex::new(Vec::new()));
        let reports = Arc::clone(&reported);
        let listener: StoreListener = Arc::new(move |event| {
            let StoreEvent::Rejected { client, why } = event else { panic!("{event:?}") };
            reports.lock().unwrap().push(format!("{}: {why}", client.name().unwrap()));
        });
        queue.listen(&listener);
        assert!(queue.keep_aside(&[0]) && queue.keep_aside(&[0]));
        let kept = std::fs::read_to_string(queue.stale_path()).unwrap();
        std::fs::remove_file(queue.stale_path()).unwrap();
        let [one, same] = kept.lines().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(one, same);
        let read: serde_json::Value = serde_json::from_str(one).unwrap();
        assert_eq!((read["tenant"].as_str(), read["job"].as_str()), (Some("ac\"me"), Some("order 17")));
        assert_eq!((&read["amounts"]["tokens"], &read["amounts"]["rows"]), (&5.into(), &1.into()));
        assert!(reported.lock().unwrap()[0].starts_with("ac\"me: the job is older"), "{reported:?}");
        let nowhere = SpoolQueue::new(std::path::Path::new("/no/such/directory/spool"), Recovered::default());
        assert!(!nowhere.keep_aside(&[]));
    }
}
