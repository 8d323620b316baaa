//! A breadth-first checker of explicit states. Every reachable state is visited once, the nearest
//! first, so that a counterexample is a shortest one.
//!
//! `stateright` 0.31 was considered and rejected. It misses a violated property of the kind
//! "eventually" in a cycle, as its own documentation says. It cannot check whether success stays
//! reachable from every state, which is what "every slice succeeds once the faults stop" means
//! where workers may go in circles. It stores hashes instead of states, and its web server
//! (`tiny_http`) is a mandatory dependency.

use std::collections::{HashMap, VecDeque};
use std::fmt::{Debug, Display, Write as _};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A model with more states than this has lost its bounds. It takes about a minute.
const STATES_MAX: usize = 4_000_000;

/// One step from a state.
pub struct Step<S, A> {
    pub action: A,
    /// Whether it is a fault, or another event that progress must not depend on.
    pub is_fault: bool,
    /// The facts that it shows, one bit each.
    pub facts: u32,
    /// The resulting state.
    pub to: S,
}

/// A system with finitely many states.
pub trait Model {
    type State: Copy + Debug + Eq + Hash;
    /// A step from one state to another.
    type Action: Display;

    /// The first state.
    fn first(&self) -> Self::State;
    /// All possible next steps.
    fn steps(&self, from: &Self::State) -> Vec<Step<Self::State, Self::Action>>;
    /// An invariant that is violated.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
    /// The step's forbidden facts, in words.
    fn forbidden(&self, facts: u32) -> Option<&'static str>;
    /// Whether all is done.
    fn is_done(&self, state: &Self::State) -> bool;
}

/// The result of a check.
#[derive(Debug, Default)]
pub struct Findings {
    /// Reachable states, up to the counterexample if there is one.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// All facts that some step shows.
    pub facts: u32,
    /// The violation, and the steps that lead there.
    pub broken: Option<Broken>,
}

/// A counterexample.
#[derive(Debug)]
pub struct Broken {
    /// The violated property.
    pub what: &'static str,
    /// The steps that lead there, one per line, and the state.
    pub trace: String,
}

/// How a state was first reached: the previous state, and the index of the step.
type Parents = Vec<(u32, u16)>;

/// The standard hasher protects against chosen keys, and takes most of the time in an unoptimised
/// build.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_i8(&mut self, value: i8) {
        self.write_u64(u64::from(value.cast_unsigned()));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// Visits every reachable state until one is broken. Then checks whether each of them can reach a
/// completed state without further faults.
pub fn check<M: Model>(model: &M) -> Findings {
    let mut findings = Findings::default();
    let mut known = HashMap::<_, u32, BuildHasherDefault<Quick>>::default();
    known.insert(model.first(), 0);
    let mut parents: Parents = vec![(0, 0)];
    let mut queue = VecDeque::from([(0_u32, model.first())]);
    let (mut sound, mut done) = (Vec::new(), Vec::new());
    // Each state enters the queue once, and there are at most STATES_MAX.
    while let Some((from, state)) = queue.pop_front() {
        if model.is_done(&state) {
            done.push(from);
        }
        let broken = model.broken(&state);
        if let Some(what) = broken {
            findings.broken = Some(Broken { what, trace: trace(model, &parents, from, None) });
            break;
        }
        let mut forbidden = None;
        for (number, step) in (0_u16..).zip(model.steps(&state)) {
            findings.steps += 1;
            findings.facts |= step.facts;
            forbidden = forbidden.or(model.forbidden(step.facts).map(|what| (what, number)));
            let to = known.get(&step.to).copied().unwrap_or_else(|| {
                let to = u32::try_from(parents.len()).unwrap();
                parents.push((from, number));
                queue.push_back((to, step.to));
                known.insert(step.to, to);
                to
            });
            if !step.is_fault {
                sound.push((from, to));
            }
        }
        if let Some((what, number)) = forbidden {
            let trace = trace(model, &parents, from, Some(number));
            findings.broken = Some(Broken { what, trace });
            break;
        }
        assert!(parents.len() <= STATES_MAX, "the model has lost its bounds");
    }
    findings.states = parents.len();
    if findings.broken.is_none()
        && let Some(lost) = first_lost(parents.len(), &sound, &done)
    {
        let trace = trace(model, &parents, lost, None);
        findings.broken = Some(Broken { what: "success is out of reach", trace });
    }
    findings
}

/// The first state from which no fault-free step leads towards a completed state.
fn first_lost(states: usize, sound: &[(u32, u32)], done: &[u32]) -> Option<u32> {
    let mut before = vec![Vec::new(); states];
    for (from, to) in sound {
        before[*to as usize].push(*from);
    }
    let mut can_end = vec![false; states];
    let mut stack = done.to_vec();
    while let Some(state) = stack.pop() {
        if !std::mem::replace(&mut can_end[state as usize], true) {
            stack.append(&mut before[state as usize]);
        }
    }
    can_end.iter().position(|can_end| !can_end).and_then(|state| u32::try_from(state).ok())
}

/// The steps that lead to a state, and optionally one more.
fn trace<M: Model>(model: &M, parents: &Parents, to: u32, more: Option<u16>) -> String {
    let mut numbers = Vec::from_iter(more);
    let mut at = to;
    while at != 0 {
        let (from, number) = parents[at as usize];
        numbers.push(number);
        at = from;
    }
    let (mut state, mut text) = (model.first(), String::new());
    for number in numbers.into_iter().rev() {
        let step = model.steps(&state).swap_remove(number.into());
        writeln!(text, "  {}", step.action).unwrap();
        state = step.to;
    }
    text + &format!("  {state:?}")
}
