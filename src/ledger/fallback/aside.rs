//! Records that are set aside: those that the ledger rejects for good, and those whose jobs are older than it remembers.
//!
//! A line in the file beside the spool sets a record aside. After a crash, a record of the spool that has a line is not
//! merged again.

use std::{
    collections::{HashSet, VecDeque},
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::spool_queue::SpoolQueue;
use crate::{
    identity::Client,
    ledger::{
        report::Json,
        writer::{Command, CommandKind, LAPSES, Reply, SettleKind},
    },
    quota::store::StoreEvent,
    time::{Instant, from_1970},
};

/// Ids of the charges that were set aside last, so that their settlements follow them.
#[derive(Debug, Default)]
pub(super) struct AsideIds {
    all: HashSet<u128>,
    order: VecDeque<u128>,
    /// Whether the last records to be set aside stayed in the spool.
    stay: bool,
}

/// Greatest number of ids; they take about 3 MB.
const MOST: usize = 1 << 16;

impl AsideIds {
    pub(super) fn add(&mut self, id: u128) {
        if self.all.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    /// Returns why a record is set aside after this reply; `None` if it is not. `round` has the records that are about to
    /// be set aside.
    pub(super) fn reason(&self, command: &Command, reply: &Reply, round: &HashSet<u128>) -> Option<Arc<str>> {
        match (&command.kind, reply) {
            (CommandKind::SettleOf { of, .. }, _) if self.all.contains(of) || round.contains(of) => {
                Some("the charge that it settles was set aside".into())
            }
            (CommandKind::SettleOf { .. }, Reply::Rejected(why)) => {
                Some(format!("the database rejects it for good: {why}{LAPSES}").into())
            }
            (_, Reply::Rejected(why)) => Some(format!("the database rejects it for good: {why}").into()),
            (_, Reply::Stale) => {
                Some("its job is older than the ledger remembers and may have been charged before".into())
            }
            _ => None,
        }
    }
}

impl SpoolQueue {
    /// Appends records to the file of those that are set aside, and notifies of each; `false` if it cannot be written or
    /// would be larger than the spool may be, which it notifies of once until it can. It waits for the disk.
    pub(super) fn set_aside(&self, records: &[(Command, Arc<str>)]) -> bool {
        let (path, most) = (aside_path(&self.path), self.lock().most);
        let lines: String = records.iter().map(|(command, why)| line(command, why)).collect();
        let stays = match append(&path, lines, most) {
            Ok(true) => None,
            Ok(false) => Some("it would be larger than the spool may be".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        let stayed = std::mem::replace(&mut self.lock().aside.stay, stays.is_some());
        if let Some(stays) = stays {
            if let Some((command, why)) = records.first().filter(|_| !stayed) {
                let path = path.display();
                let why = format!("a record stays in the spool, because {path} cannot be written ({stays}): {why}");
                let client = Client::named(Arc::clone(&command.key.tenant));
                self.notify(&StoreEvent::Rejected { client, why: why.into() });
            }
            return false;
        }
        for (command, why) in records {
            self.lock().aside.add(command.id);
            let client = Client::named(Arc::clone(&command.key.tenant));
            let why = format!("a record of the spool was moved to {}: {why}", path.display()).into();
            self.notify(&StoreEvent::Rejected { client, why });
        }
        true
    }
}

/// Returns the path of the file of records that are set aside.
fn aside_path(spool: &Path) -> PathBuf {
    let mut name = spool.as_os_str().to_owned();
    name.push(".aside");
    name.into()
}

/// Appends whole lines or none. Returns whether there is room for them.
fn append(path: &Path, lines: String, most: u64) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    #[cfg(unix)] // charges are private
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if end > 0 {
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut last)?;
    }
    // A crash has cut the last line short, perhaps behind a brace.
    let lines = if last == *b"\n" { lines } else { format!(" (cut short)\n{lines}") };
    if end + lines.len() as u64 > most {
        return Ok(false);
    }
    let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        file.set_len(end)?;
    }
    // The name of the file must be durable too.
    if let Some(directory) = path.parent().filter(|_| cfg!(unix) && end == 0) {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        File::open(directory)?.sync_all()?;
    }
    written.map(|()| true)
}

/// Returns the ids of the records that were set aside from the spool at this path.
pub(super) fn ids_aside(spool: &Path) -> io::Result<HashSet<u128>> {
    let file = match File::open(aside_path(spool)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashSet::new()),
        file => file?,
    };
    let mut ids = HashSet::new();
    let (mut file, mut line) = (BufReader::new(file), Vec::new());
    while file.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let id = text.strip_prefix(r#"{"id":""#).filter(|_| text.ends_with("}}\n")).and_then(|rest| rest.get(..32));
        ids.extend(id.and_then(|id| u128::from_str_radix(id, 16).ok()));
        line.clear();
    }
    Ok(ids)
}

/// Returns a record as a line of JSON.
fn line(command: &Command, why: &str) -> String {
    let (entry, of, at, amounts) = match &command.kind {
        CommandKind::Spooled { admit, at } => ("charge", None, *at, &admit.amounts),
        CommandKind::SettleOf { of, settle } => match &settle.end {
            SettleKind::Commit(actual) => ("commit", Some(of), settle.since.at, actual),
            SettleKind::Add => ("addition", Some(of), settle.since.at, &settle.used),
            SettleKind::Void => ("void", Some(of), settle.since.at, &settle.used),
        },
        _ => return String::new(),
    };
    let mut line = format!(r#"{{"id":"{:032x}","#, command.id);
    if let Some(of) = of {
        let _ = write!(line, r#""of":"{of:032x}","#);
    }
    let _ = write!(
        line,
        r#""tenant":"{}","job":"{}","entry":"{entry}","passed_at":"{}","why":"{}","amounts":{{"#,
        Json(&command.key.tenant),
        Json(&command.key.job),
        Instant(from_1970(at)),
        Json(why),
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

    use super::{
        super::{
            Spool,
            spool_format::{HEADER, Recovered, frame},
            spool_record::encode,
        },
        *,
    };
    use crate::{
        ledger::writer::{AdmitCommand, AdmittedAt, Key, SettleCommand},
        quota::{Amounts, Plan, store::StoreListener},
    };

    const AT: u64 = 1_782_869_400_000_000_000;

    fn key() -> Key {
        Key { tenant: "ac\"me".into(), job: "order 17".into() }
    }

    fn charge(id: u128) -> Command {
        let admit = AdmitCommand {
            plan: Arc::new(Plan::new("free")),
            amounts: [("tokens", 5), ("rows", 1)].into(),
            fingerprint: None,
            job_lease: None,
            reserve: None,
            wants_nearest: false,
            usage: false,
            tier: None,
        };
        Command { key: key(), id, own: false, origin: 0, kind: CommandKind::Spooled { admit, at: AT } }
    }

    fn commit(id: u128, of: u128) -> Command {
        let since = AdmittedAt { at: AT, epoch: u64::MAX };
        let void = SettleCommand::void(Arc::new(Plan::new("free")), 0, since);
        let settle = SettleCommand { end: SettleKind::Commit(Amounts::from(("tokens", 4))), ..void };
        Command { key: key(), id, own: false, origin: 0, kind: CommandKind::SettleOf { of, settle } }
    }

    struct Scene {
        path: PathBuf,
        queue: SpoolQueue,
        reported: Arc<Mutex<Vec<String>>>,
        _listener: StoreListener,
    }

    fn scene() -> Scene {
        let path = std::env::temp_dir().join(format!("tollgate-aside-{:x}", fastrand::u64(..)));
        let queue = SpoolQueue::new(&path, Recovered::default());
        let reported = Arc::new(Mutex::new(Vec::new()));
        let reports = Arc::clone(&reported);
        let listener: StoreListener = Arc::new(move |event| {
            let StoreEvent::Rejected { client, why } = event else { panic!("{event:?}") };
            reports.lock().unwrap().push(format!("{}: {why}", client.name().unwrap()));
        });
        queue.listen(&listener);
        Scene { path, queue, reported, _listener: listener }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = (std::fs::remove_file(&self.path), std::fs::remove_file(aside_path(&self.path)));
        }
    }

    #[test]
    fn record_set_aside_is_appended_and_reported() {
        let Scene { path, queue, reported, .. } = &scene();
        assert!(queue.set_aside(&[(charge(2), "too \"old\"".into())]));
        assert!(queue.set_aside(&[(commit(4, 2), "follows".into()), (charge(6), "again".into())]));
        let kept = std::fs::read_to_string(aside_path(path)).unwrap();
        let read: Vec<serde_json::Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((read[0]["tenant"].as_str(), read[0]["job"].as_str()), (Some("ac\"me"), Some("order 17")));
        assert_eq!((&read[0]["amounts"]["tokens"], &read[0]["amounts"]["rows"]), (&5.into(), &1.into()));
        assert_eq!((read[0]["why"].as_str(), read[0]["entry"].as_str()), (Some("too \"old\""), Some("charge")));
        assert_eq!((&read[1]["of"], read[1]["entry"].as_str()), (&read[0]["id"], Some("commit")));
        assert_eq!(ids_aside(path).unwrap(), [2, 4, 6].into());
        let reported = reported.lock().unwrap();
        assert!(reported[0].starts_with("ac\"me: a record of the spool was moved to"), "{reported:?}");
        assert!(reported.len() == 3 && reported[0].ends_with(".aside: too \"old\""), "{reported:?}");
    }

    #[test]
    fn line_cut_short_sets_no_record_aside() {
        let Scene { path, queue, .. } = &scene();
        assert!(queue.set_aside(&[(charge(2), "one".into()), (charge(4), "two".into())]));
        let file = OpenOptions::new().write(true).open(aside_path(path)).unwrap();
        file.set_len(file.metadata().unwrap().len() - 9).unwrap();
        assert_eq!(ids_aside(path).unwrap(), [2].into());
        assert!(queue.set_aside(&[(charge(6), "got {{3}}, wanted 2".into())]));
        assert_eq!(ids_aside(path).unwrap(), [2, 6].into());
        // Cut behind the braces of the reason, which lie before its amounts.
        let kept = std::fs::read_to_string(aside_path(path)).unwrap();
        file.set_len(kept.find("{{3}}").unwrap() as u64 + 5).unwrap();
        assert_eq!(ids_aside(path).unwrap(), [2].into());
        assert!(queue.set_aside(&[(charge(8), "four".into())]));
        assert_eq!(ids_aside(path).unwrap(), [2, 8].into());
    }

    #[test]
    fn file_is_no_larger_than_the_spool_may_be() {
        let Scene { path, queue, reported, .. } = &scene();
        queue.lock().most = 300;
        assert!(queue.set_aside(&[(charge(2), "one".into())]));
        let refuses = || assert!(!queue.set_aside(&[(charge(4), "two".into())]));
        refuses();
        refuses();
        let told = std::mem::take(&mut *reported.lock().unwrap());
        assert!(told.len() == 2 && told[1].contains("a record stays in the spool, because "), "{told:?}");
        assert_eq!(ids_aside(path).unwrap(), [2].into());
        queue.lock().most = 600;
        assert!(queue.set_aside(&[(charge(4), "two".into())]));
        queue.lock().most = 300;
        refuses();
        assert_eq!(reported.lock().unwrap().len(), 2, "it is reported again once it had been written");
        let nowhere = SpoolQueue::new(Path::new("/no/such/directory/spool"), Recovered::default());
        assert!(!nowhere.set_aside(&[]));
    }

    #[test]
    fn settlement_follows_its_charge() {
        let (mut ids, none) = (AsideIds::default(), HashSet::new());
        assert_eq!(ids.reason(&commit(4, 2), &Reply::Done, &none), None);
        assert!(ids.reason(&charge(2), &Reply::Rejected("no".into()), &none).unwrap().ends_with(": no"));
        assert!(ids.reason(&charge(2), &Reply::Stale, &none).unwrap().starts_with("its job is older"));
        assert!(ids.reason(&commit(4, 2), &Reply::Done, &[2].into()).is_some(), "in the same round");
        ids.add(2);
        assert!(ids.reason(&commit(4, 2), &Reply::Done, &none).unwrap().contains("was set aside"));
        (3..MOST as u128 + 3).for_each(|id| ids.add(id));
        assert_eq!((ids.reason(&commit(4, 2), &Reply::Done, &none), ids.all.len()), (None, MOST));
    }

    #[test]
    fn restart_merges_no_record_that_was_set_aside() {
        let Scene { path, queue, .. } = &scene();
        let mut file = HEADER.to_vec();
        for (number, record) in [charge(2), charge(4), commit(6, 2)].iter().enumerate() {
            frame(number as u64, &encode(7, record).unwrap(), &mut file);
        }
        std::fs::write(path, file).unwrap();
        assert!(queue.set_aside(&[(charge(2), "one".into())]));
        let spool = Spool::at(path).unwrap();
        let left: Vec<_> = spool.queue().lock().pending.next(9).iter().map(|command| command.id).collect();
        assert_eq!(left, [4, 6]);
        assert!(spool.queue().lock().aside.reason(&commit(6, 2), &Reply::Done, &HashSet::new()).is_some());
    }
}
