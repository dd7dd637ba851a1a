//! Reservations that many callers lose at once.

use std::time::Duration;

use super::{Scene, queries};
use crate::{
    quota::{CloseOutcome, OnExpiry, QuotaLayer, Quotas, ReservationId},
    time::FakeClock,
};

const TTL: Duration = Duration::from_secs(300);

/// Size of the limit. A burst takes up to half of it.
const LIMIT: u64 = 1_000;

/// Random bursts of reservations, each of which is committed, rolled back or lost: after each step the limit has the
/// sum of what is open and what was used, and a charge of exactly the rest is admitted. A store that
/// releases lost reservations in rounds, as ledgers do, does not pass this rule.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
/// quotas::reservations_lost_in_bursts_equal_a_book(async |layer: QuotaLayer, _: FakeClock| layer.handle()).await;
/// # });
/// ```
pub async fn reservations_lost_in_bursts_equal_a_book(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas) {
    for seed in 0..20 {
        let clock = FakeClock::new();
        let layer = QuotaLayer::new(queries(LIMIT)).reservations_last(TTL).on_expiry(OnExpiry::Return);
        let layer = layer.clock(clock.clone());
        let mut bursts = Bursts {
            scene: Scene::of(async |layer| make(layer, clock.clone()).await, layer).await,
            clock,
            random: fastrand::Rng::with_seed(seed),
            now: Duration::ZERO,
            open: Vec::new(),
            used: 0,
        };
        for step in 0..30 {
            bursts.step().await;
            bursts.adds_up(format_args!("step {step} of {seed}")).await;
        }
    }
}

struct Bursts {
    scene: Scene,
    clock: FakeClock,
    random: fastrand::Rng,
    now: Duration,
    /// Expiry and amount of each open reservation.
    open: Vec<(Duration, u64, ReservationId)>,
    used: u64,
}

impl Bursts {
    fn reserved(&self) -> u64 {
        self.open.iter().map(|(_, amount, _)| amount).sum()
    }

    async fn step(&mut self) {
        let Scene { quotas, alice, .. } = &self.scene;
        match self.random.u8(..6) {
            0 | 1 => {
                for _ in 0..self.random.u64(1..LIMIT / 2) {
                    let amount = self.random.u64(1..3);
                    let fits = amount <= LIMIT - self.used - self.reserved();
                    match quotas.reserve(alice, ("queries", amount)).await {
                        Ok(held) => {
                            assert!(fits, "{amount} beside {} and {}", self.used, self.reserved());
                            self.open.push((self.now + TTL, amount, held.detach()));
                        }
                        Err(refusal) => assert!(!fits, "{refusal}"),
                    }
                }
            }
            2 => {
                for _ in 0..self.random.usize(..20).min(self.open.len()) {
                    let (_, _, id) = self.open.swap_remove(self.random.usize(..self.open.len()));
                    let commit = self.random.bool();
                    let closed = match commit {
                        true => quotas.commit(&id, ("queries", 1)).await,
                        false => quotas.roll_back(&id).await,
                    };
                    assert_eq!(closed, Ok(CloseOutcome::Closed));
                    self.used += u64::from(commit);
                }
            }
            _ => {
                let time = Duration::from_secs([1, 60, 150, 300][self.random.usize(..4)]);
                self.clock.advance(time);
                self.now += time;
                self.open.retain(|(expires, ..)| self.now < *expires);
            }
        }
    }

    /// Checks the sums, and that exactly the rest is admitted.
    async fn adds_up(&self, place: std::fmt::Arguments<'_>) {
        let Scene { quotas, alice, .. } = &self.scene;
        let rest = LIMIT - self.used - self.reserved();
        assert!(quotas.check(alice, ("queries", rest + 1)).await.is_err(), "{place}");
        let all = quotas.reserve(alice, ("queries", rest)).await;
        assert_eq!(all.is_ok(), rest > 0, "{place}");
        all.into_iter().for_each(crate::quota::Reservation::roll_back);
        assert_eq!(self.scene.counts(alice).await, [(self.used, self.reserved())], "{place}");
    }
}
