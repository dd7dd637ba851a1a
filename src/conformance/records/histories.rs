//! Random histories of a record store beside a naive model: owners, a clock, lost replies and operators.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::EmptyRecords;
use crate::{
    key_value::{AfterLease, Answer, Begun, Claim, Completion, Owner, Ownership, RecordKey, RecordStore},
    time::FakeClock,
};

/// Histories, and the calls of each.
const HISTORIES: u64 = 16;
const CALLS: usize = 300;

/// The simplest record store.
#[derive(Default)]
struct NaiveRecords {
    records: BTreeMap<RecordKey, NaiveRecord>,
    now: Duration,
}

struct NaiveRecord {
    owner: Option<Owner>,
    attempt: u32,
    fingerprint: Option<[u8; 16]>,
    hold: bool,
    lease_until: Duration,
    /// Life that counts from the end of the lease, or from completion.
    ends: Option<Duration>,
    first_at: Duration,
    completion: Option<Completion>,
}

impl NaiveRecords {
    fn present(&mut self, key: RecordKey) -> Option<&mut NaiveRecord> {
        if self.records.get(&key).is_some_and(|record| record.ends.is_some_and(|ends| ends <= self.now)) {
            self.records.remove(&key);
        }
        self.records.get_mut(&key)
    }

    /// Returns the running record of an owner.
    fn run_by(&mut self, key: RecordKey, owner: Owner) -> Option<&mut NaiveRecord> {
        self.present(key).filter(|record| record.completion.is_none() && record.owner == Some(owner))
    }

    fn is_unknown(&mut self, key: RecordKey) -> bool {
        let now = self.now;
        let unknown =
            |record: &mut NaiveRecord| record.completion.is_none() && record.hold && record.lease_until <= now;
        self.present(key).is_some_and(unknown)
    }

    fn begin(&mut self, claim: &Claim) -> Begun {
        let now = self.now;
        let (mut attempt, mut first_at, mut fingerprint) = (1, now, claim.fingerprint);
        if let Some(record) = self.present(claim.key) {
            if record.fingerprint.is_some() && claim.fingerprint.is_some() && record.fingerprint != claim.fingerprint {
                return Begun::Mismatch;
            }
            match &record.completion {
                Some(Completion::Answered(answer)) => {
                    return Begun::Done { answer: answer.clone(), first_at: record.first_at };
                }
                Some(Completion::NotRetained) => return Begun::NotRetained,
                None => {}
            }
            if record.owner == Some(claim.owner) {
                attempt = record.attempt;
            } else if record.lease_until > now {
                return Begun::Running { left: record.lease_until - now };
            } else if record.hold {
                return Begun::Unknown;
            } else {
                attempt = record.attempt + 1;
            }
            first_at = record.first_at;
            fingerprint = fingerprint.or(record.fingerprint);
        }
        let hold = claim.after_lease == AfterLease::Hold;
        let lease_until = now + claim.lease;
        let record = NaiveRecord {
            owner: Some(claim.owner),
            attempt,
            fingerprint,
            hold,
            lease_until,
            ends: (!hold).then(|| lease_until + claim.life),
            first_at,
            completion: None,
        };
        self.records.insert(claim.key, record);
        Begun::Started { attempt }
    }

    fn renew(&mut self, claim: &Claim, lease: Duration) -> Ownership {
        let now = self.now;
        let Some(record) = self.run_by(claim.key, claim.owner) else { return Ownership::Lost };
        let life = record.ends.map(|ends| ends - record.lease_until);
        record.lease_until = now + lease;
        record.ends = life.map(|life| record.lease_until + life);
        Ownership::Held
    }

    fn complete(&mut self, claim: &Claim, completion: &Completion, life: Duration) -> Ownership {
        let ends = self.now + life;
        if let Some(record) = self.run_by(claim.key, claim.owner) {
            record.completion = Some(completion.clone());
            record.ends = Some(ends);
            return Ownership::Held;
        }
        match self.present(claim.key) {
            Some(record) if record.owner == Some(claim.owner) => Ownership::Held,
            Some(_) | None => Ownership::Lost,
        }
    }

    fn abandon(&mut self, claim: &Claim) -> Ownership {
        if self.run_by(claim.key, claim.owner).is_none() {
            return Ownership::Lost;
        }
        self.records.remove(&claim.key);
        Ownership::Held
    }

    fn settle(&mut self, key: RecordKey, completion: &Completion, life: Duration) -> bool {
        let (is_unknown, ends) = (self.is_unknown(key), self.now + life);
        if let Some(record) = self.present(key).filter(|_| is_unknown) {
            (record.owner, record.completion, record.ends) = (None, Some(completion.clone()), Some(ends));
        }
        is_unknown
    }

    fn release(&mut self, key: RecordKey) -> bool {
        let is_unknown = self.is_unknown(key);
        if is_unknown {
            self.records.remove(&key);
        }
        is_unknown
    }
}

/// Random calls of few owners on few operations, each repeated now and then as after a lost reply, with the clock moved in
/// between, are answered as a naive model answers them.
pub async fn histories_equal_a_model(make: impl AsyncFn(FakeClock) -> Arc<dyn RecordStore>) {
    for seed in 0..HISTORIES {
        let EmptyRecords { store, clock } = EmptyRecords::new(&make).await;
        let mut random = fastrand::Rng::with_seed(seed);
        let wall = crate::time::Clock::from(clock.clone()).wall();
        let mut model = NaiveRecords { now: wall, ..NaiveRecords::default() };
        let owners: Vec<_> = (0..4).map(|_| Owner::random()).collect();
        let keys = [RecordKey([1; 16]), RecordKey([2; 16])];
        for call in 0..CALLS {
            let at = format!("seed {seed}, call {call}");
            let (lease, life) = (Duration::from_millis(random.u64(1..4)), Duration::from_millis(random.u64(1..6)));
            let claim = Claim {
                lease,
                life,
                after_lease: if random.bool() { AfterLease::Rerun } else { AfterLease::Hold },
                fingerprint: [None, Some([1; 16]), Some([1; 16]), Some([2; 16])][random.usize(..4)],
                ..Claim::new(keys[random.usize(..keys.len())], owners[random.usize(..owners.len())])
            };
            let completion = match random.u8(..3) {
                0 => Completion::NotRetained,
                body => Completion::Answered(Answer::new(200 + u16::from(body), format!("{at}: {body}"))),
            };
            let (what, times) = (random.u8(..14), if random.u8(..4) == 0 { 2 } else { 1 });
            for _ in 0..times {
                match what {
                    0..=3 => assert_eq!(store.begin(&claim).await.unwrap(), model.begin(&claim), "begin, {at}"),
                    4 | 5 => {
                        let owned = store.renew(&claim.key, &claim.owner, lease).await.unwrap();
                        assert_eq!(owned, model.renew(&claim, lease), "renew, {at}");
                    }
                    6 | 7 => {
                        let owned = store.complete(&claim.key, &claim.owner, &completion, life).await.unwrap();
                        assert_eq!(owned, model.complete(&claim, &completion, life), "complete, {at}");
                    }
                    8 => {
                        let owned = store.abandon(&claim.key, &claim.owner).await.unwrap();
                        assert_eq!(owned, model.abandon(&claim), "abandon, {at}");
                    }
                    9 => {
                        let settled = store.settle(&claim.key, &completion, life).await.unwrap();
                        assert_eq!(settled, model.settle(claim.key, &completion, life), "settle, {at}");
                    }
                    10 => {
                        let released = store.release(&claim.key).await.unwrap();
                        assert_eq!(released, model.release(claim.key), "release, {at}");
                    }
                    11 => {
                        let answer = model.present(claim.key).and_then(|record| match record.completion.clone()? {
                            Completion::Answered(answer) => Some(answer),
                            Completion::NotRetained => None,
                        });
                        assert_eq!(store.find(&claim.key).await.unwrap(), answer, "find, {at}");
                    }
                    _ => {
                        let passed = Duration::from_micros(random.u64(1..2_500));
                        clock.advance(passed);
                        model.now += passed;
                    }
                }
            }
            let listed = store.unknown(None, 9).await.unwrap().records;
            let listed: Vec<_> = listed.iter().map(|record| (record.key, record.attempt, record.first_at)).collect();
            let mut expected = Vec::new();
            for key in keys {
                if model.is_unknown(key) {
                    let record = &model.records[&key];
                    expected.push((key, record.attempt, record.first_at));
                }
            }
            assert_eq!(listed, expected, "unknown, {at}");
        }
    }
}
