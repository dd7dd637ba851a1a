//! Explorer: visits every state that two writers, their callers and a database can reach.

mod mutations;
mod reported;
mod setting;
mod settings;
mod world;

use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
    rc::Rc,
    sync::Arc,
};

use setting::{Faults, Setting, Want, want};
use world::{Action, World};

/// Result of a search.
#[derive(Debug)]
struct Found {
    states: usize,
    ends: usize,
    violation: Option<Violation>,
}

#[derive(Debug)]
struct Violation {
    what: String,
    trace: Vec<Action>,
}

/// Actions that led to a state.
struct Trail {
    action: Action,
    before: Option<Rc<Trail>>,
}

/// Nearest states first, so that traces are short, or farthest first, so that few states wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    Nearest,
    Farthest,
}

fn explore(setting: Setting, search: Search, most: usize) -> Found {
    let setting = Arc::new(setting);
    let mut found = Found { states: 0, ends: 0, violation: None };
    let mut seen = HashSet::new();
    let mut waiting = VecDeque::from([(World::new(&setting), None::<Rc<Trail>>)]);
    let violated = |what, trail: Option<Rc<Trail>>| {
        let steps = std::iter::successors(trail.as_deref(), |trail| trail.before.as_deref());
        let mut trace: Vec<_> = steps.map(|trail| trail.action).collect();
        trace.reverse();
        Some(Violation { what, trace })
    };
    while let Some((world, trail)) = if search == Search::Nearest { waiting.pop_front() } else { waiting.pop_back() } {
        let mut moved = false;
        for action in world.actions() {
            let on = || Some(Rc::new(Trail { action, before: trail.clone() }));
            match world.after(action) {
                None => {}
                Some(Ok(next)) => {
                    moved = true;
                    if seen.insert(digest(&next)) {
                        if let Err(what) = next.check_served() {
                            found.violation = violated(what, on());
                            found.states = seen.len();
                            return found;
                        }
                        waiting.push_back((next, on()));
                    }
                }
                Some(Err(what)) => {
                    found.violation = violated(what, on());
                    found.states = seen.len();
                    return found;
                }
            }
        }
        if !moved {
            found.ends += 1;
            if let Err(what) = world.check_end() {
                found.violation = violated(what, trail);
                break;
            }
        }
        if seen.len() >= most {
            break;
        }
    }
    found.states = seen.len();
    found
}

/// 128 bits, so that no two states among millions are taken for one.
fn digest(world: &World) -> u128 {
    use siphasher::sip128::{Hasher128, SipHasher13};
    let mut hasher = SipHasher13::new();
    world.hash(&mut hasher);
    let hash = hasher.finish128();
    u128::from(hash.h1) << 64 | u128::from(hash.h2)
}
