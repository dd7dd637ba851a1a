//! Compares the table of leases with a list of holders.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn held_slot_is_reclaimed_one_tick_after_its_time() {
    let start = Moment::from_nanos(7);
    let mut slots = Leases::new(1, 10 * SECOND, Duration::MAX);
    let first = slots.acquire(start).unwrap().lease;
    assert_eq!(slots.acquire(start + 10 * SECOND), None);
    let second = slots.acquire(start + 10 * SECOND + Duration::from_nanos(1)).unwrap();
    assert!(second.reclaimed);
    slots.touch(first, start + 100 * SECOND);
    assert!(!slots.release(first), "another holder has the slot");
    assert_eq!(slots.held(), 1);
}

#[test]
fn no_slot_is_reclaimed_without_a_time_limit() {
    let mut slots = Leases::new(1, Duration::MAX, Duration::MAX);
    let _ = slots.acquire(Moment::default());
    assert_eq!(slots.acquire(Moment::MAX), None);
}

#[derive(Clone, Debug)]
enum Step {
    Acquire,
    Touch(usize),
    Unwatch(usize),
    Release(usize),
    Wait(u64),
    Back(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Acquire),
        2 => (0..40_usize).prop_map(Step::Touch),
        1 => (0..40_usize).prop_map(Step::Unwatch),
        2 => (0..40_usize).prop_map(Step::Release),
        2 => (0..8_u64).prop_map(Step::Wait),
        1 => (0..4_u64).prop_map(Step::Back),
    ]
}

proptest! {
    /// Bounds in number and time, and late releases, against a list that is searched from end to end.
    #[test]
    fn table_equals_a_list_of_holders(limit in 0..5_usize, steps in prop::collection::vec(step(), 0..120)) {
        let (hold, stall) = (Duration::from_nanos(12), Duration::from_nanos(5));
        let mut slots = Leases::new(limit, hold, stall);
        let mut given: Vec<Lease> = Vec::new();
        let mut holders: Vec<(Lease, Moment, Moment)> = Vec::new();
        let mut now = Moment::from_nanos(100);
        for step in steps {
            match step {
                Step::Acquire => {
                    let late = |since: Moment, progress: Moment| now.since(since) > hold || now.since(progress) > stall;
                    let overdue = holders.iter().any(|&(_, since, progress)| late(since, progress));
                    let full = holders.len() == limit;
                    let acquired = slots.acquire(now);
                    prop_assert_eq!(acquired.is_some(), !full || overdue);
                    let Some(Acquired { lease, reclaimed, .. }) = acquired else { continue };
                    slots.watch(lease, now);
                    prop_assert_eq!(reclaimed, full);
                    if reclaimed {
                        let lost = holders.iter().position(|(held, ..)| held.slot == lease.slot).unwrap();
                        let (_, since, progress) = holders.remove(lost);
                        prop_assert!(late(since, progress));
                    }
                    prop_assert!(!given.contains(&lease));
                    given.push(lease);
                    holders.push((lease, now, now));
                }
                Step::Touch(which) => {
                    let Some(&lease) = given.get(which) else { continue };
                    slots.touch(lease, now);
                    if let Some(holder) = holders.iter_mut().find(|(held, ..)| *held == lease) {
                        holder.2 = holder.2.max(now);
                    }
                }
                Step::Unwatch(which) => {
                    let Some(&lease) = given.get(which) else { continue };
                    slots.unwatch(lease);
                    if let Some(holder) = holders.iter_mut().find(|(held, ..)| *held == lease) {
                        holder.2 = Moment::MAX;
                    }
                }
                Step::Release(which) => {
                    let Some(&lease) = given.get(which) else { continue };
                    let before = holders.len();
                    holders.retain(|(held, ..)| *held != lease);
                    prop_assert_eq!(slots.release(lease), holders.len() < before);
                }
                Step::Wait(by) => now = now + Duration::from_nanos(by),
                Step::Back(by) => now = now - Duration::from_nanos(by),
            }
            prop_assert_eq!(slots.held(), holders.len());
            prop_assert!(slots.held() <= limit);
        }
        for (lease, ..) in holders {
            slots.release(lease);
        }
        prop_assert_eq!(slots.held(), 0);
    }
}

#[test]
fn lowered_number_of_slots_takes_those_that_are_overdue() {
    let (start, mut slots) = (Moment::from_nanos(7), Leases::new(100, 10 * SECOND, Duration::MAX));
    let held: Vec<_> = (0..100).map(|n| slots.acquire(start + n * SECOND).unwrap().lease).collect();
    slots.resize(30);
    let late = |n: u32| start + n * SECOND + 10 * SECOND + Duration::from_nanos(1);
    assert_eq!((slots.acquire(late(69)), slots.held()), (None, 100), "70 are overdue, and one more is needed");
    let acquired = slots.acquire(late(70)).unwrap();
    assert_eq!((acquired.reclaimed, slots.held()), (true, 30));
    let kept = held.into_iter().filter(|lease| slots.release(*lease)).count();
    assert_eq!((kept, slots.held()), (29, 1), "the others have theirs");
}
