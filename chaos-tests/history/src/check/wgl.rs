//! A search for an order of operations that explains all their answers (Wing and Gong's, with
//! Lowe's memory of what was tried).
//!
//! Operations that overlap in time may have happened in either order. The search takes any
//! operation that no other one must precede, tries its effect on the model, and goes on; where
//! nothing fits it goes back. What makes it fast enough is the memory: a set of operations done,
//! together with the state they led to, is never looked at twice.

use std::collections::HashSet;
use std::hash::Hash;

use crate::Nanos;

/// What an operation does to a state, if its answer fits.
pub trait Model {
    /// The state.
    type State: Clone + Eq + Hash;
    /// An operation with its answer.
    type Call;

    /// The state after the call, or `None` where the call's answer does not fit the state.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// A call and the time in which it took effect.
#[derive(Debug, Clone)]
pub struct Timed<C> {
    /// When it was called.
    pub invoked: Nanos,
    /// When it was over; `None` where it may take effect at any later time, or never.
    pub returned: Option<Nanos>,
    /// The call.
    pub call: C,
}

/// What the search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// An order that explains everything.
    Order,
    /// There is none.
    NoOrder,
    /// The budget ran out first.
    GaveUp,
}

/// Searches with at most `budget` steps.
pub fn search<M: Model>(
    model: &M,
    start: M::State,
    calls: &[Timed<M::Call>],
    budget: u64,
) -> Found {
    let mut search = Search::new(calls);
    let mut tried: HashSet<(Vec<u64>, M::State)> = HashSet::new();
    let mut path: Vec<(usize, usize, M::State)> = Vec::new();
    let mut state = start;
    let mut next = 0;
    for _ in 0..budget {
        if search.is_done() {
            return Found::Order;
        }
        match search.candidate(next) {
            Some(position) => {
                next = position + 1;
                let call = search.order[position];
                let Some(after) = model.step(&state, &calls[call].call) else { continue };
                search.take(call);
                if tried.insert((search.taken.clone(), after.clone())) {
                    path.push((position, call, std::mem::replace(&mut state, after)));
                    next = search.first;
                } else {
                    search.put_back(call);
                }
            }
            None => {
                let Some((position, call, before)) = path.pop() else { return Found::NoOrder };
                search.put_back(call);
                state = before;
                next = position + 1;
            }
        }
    }
    Found::GaveUp
}

/// Which calls are taken, and which may come next.
struct Search {
    /// Calls by the time they were called.
    order: Vec<usize>,
    /// Where each call stands in `order`.
    position: Vec<usize>,
    invoked: Vec<Nanos>,
    returned: Vec<Nanos>,
    /// Calls that must be in the order and are not taken, by the time they were over.
    must: std::collections::BTreeSet<(Nanos, usize)>,
    taken: Vec<u64>,
    /// Before this position of `order` all is taken.
    first: usize,
}

impl Search {
    fn new<C>(calls: &[Timed<C>]) -> Self {
        let mut order: Vec<usize> = (0..calls.len()).collect();
        order.sort_by_key(|&call| calls[call].invoked);
        let mut position = vec![0; calls.len()];
        order.iter().enumerate().for_each(|(place, &call)| position[call] = place);
        let over = calls.iter().enumerate();
        Self {
            order,
            position,
            invoked: calls.iter().map(|timed| timed.invoked).collect(),
            returned: calls.iter().map(|timed| timed.returned.unwrap_or(Nanos::MAX)).collect(),
            must: over.filter_map(|(call, t)| t.returned.map(|at| (at, call))).collect(),
            taken: vec![0; calls.len().div_ceil(64)],
            first: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.must.is_empty()
    }

    fn is_taken(&self, call: usize) -> bool {
        self.taken[call / 64] & (1 << (call % 64)) != 0
    }

    /// The first call at or after `from` that is not taken and that no untaken one must precede.
    fn candidate(&self, from: usize) -> Option<usize> {
        let latest = self.must.first().map_or(Nanos::MAX, |&(at, _)| at);
        (from..self.order.len())
            .take_while(|&position| self.invoked[self.order[position]] <= latest)
            .find(|&position| !self.is_taken(self.order[position]))
    }

    fn take(&mut self, call: usize) {
        self.taken[call / 64] |= 1 << (call % 64);
        self.must.remove(&(self.returned[call], call));
        while self.order.get(self.first).is_some_and(|&call| self.is_taken(call)) {
            self.first += 1;
        }
    }

    fn put_back(&mut self, call: usize) {
        self.taken[call / 64] &= !(1 << (call % 64));
        if self.returned[call] != Nanos::MAX {
            self.must.insert((self.returned[call], call));
        }
        self.first = self.first.min(self.position[call]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Register;

    #[derive(Clone, Copy)]
    enum Call {
        Write(u8),
        Read(u8),
    }

    impl Model for Register {
        type State = u8;
        type Call = Call;
        fn step(&self, state: &u8, call: &Call) -> Option<u8> {
            match call {
                Call::Write(value) => Some(*value),
                Call::Read(value) => (value == state).then_some(*state),
            }
        }
    }

    fn at(invoked: Nanos, returned: impl Into<Option<Nanos>>, call: Call) -> Timed<Call> {
        Timed { invoked, returned: returned.into(), call }
    }

    #[test]
    fn overlapping_writes_may_have_happened_in_either_order() {
        for last in [1, 2] {
            let calls = [
                at(0, 10, Call::Write(1)),
                at(0, 10, Call::Write(2)),
                at(11, 12, Call::Read(last)),
            ];
            assert_eq!(search(&Register, 0, &calls, 1000), Found::Order);
        }
    }

    #[test]
    fn a_read_of_what_was_overwritten_before_it_has_no_order() {
        let calls = [at(0, 1, Call::Write(1)), at(2, 3, Call::Write(2)), at(4, 5, Call::Read(1))];
        assert_eq!(search(&Register, 0, &calls, 1000), Found::NoOrder);
    }

    #[test]
    fn a_write_of_unknown_outcome_may_take_effect_late_or_never() {
        let late = [at(0, None, Call::Write(1)), at(4, 5, Call::Read(0)), at(6, 7, Call::Read(1))];
        assert_eq!(search(&Register, 0, &late, 1000), Found::Order);
        let never = [at(0, None, Call::Write(1)), at(4, 5, Call::Read(0))];
        assert_eq!(search(&Register, 0, &never, 1000), Found::Order);
        let undone =
            [at(0, None, Call::Write(1)), at(4, 5, Call::Read(1)), at(6, 7, Call::Read(0))];
        assert_eq!(search(&Register, 0, &undone, 1000), Found::NoOrder);
    }

    #[test]
    fn a_search_that_runs_out_of_budget_says_so() {
        let calls: Vec<_> = (0..20).map(|n| at(0, 10, Call::Write(n))).collect();
        assert_eq!(search(&Register, 0, &calls, 3), Found::GaveUp);
    }

    #[test]
    fn ten_thousand_calls_of_eight_clients_are_ordered_within_the_budget() {
        let mut calls = Vec::new();
        for n in 0..10_000_u64 {
            let begin = n * 10;
            let value = (n % 250) as u8;
            calls.push(at(begin, begin + 45, Call::Write(value)));
        }
        assert_eq!(search(&Register, 0, &calls, 1_000_000), Found::Order);
    }
}
