//! One node's part in all of it: its gate, and the granter while it leads the control group. Pure.
//!
//! ```text
//!  what came, what was seen ──► work, in its order ──► gate, granter ──► what the shell does
//!                                  ▲                         │
//!                                  └── what this node says to itself
//! ```
//! Who is fed what, and in which order, decides about safety as much as the rules of gate and
//! granter do, so it stands here, once, for the daemon and for every simulation of it. The shell
//! reads clocks, asks the disk and the control group, and sends; it does what a step says before it
//! takes the next one.
//!
//! The gate itself stands beside the keeper, because groups ask it at any time: the shell lends it
//! for each step.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use dag_types::{ActivationId, GrantId, Lineage, LineageChain, Millis, NodeId, Registry};

use crate::closed::{Closed, NoPart};
use crate::gate::{self, DacGate};
use crate::granter::{self, Confirmation, Granter, Opening};
use crate::message::{Grant, Holder, Message};
use crate::times::LeaseTimes;

/// Sending times that are remembered; far more than requests are ever under way.
const REMEMBERED: usize = 64;

/// Nanoseconds of a millisecond.
const NANOS: u64 = 1_000_000;

/// What the shell sees of the node before each turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Who leads the control group, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The term in which this node leads it.
    pub office: Option<u64>,
    /// The node's disk failed.
    pub store_failed: bool,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A message of another node, whose stream was admitted with this lineage.
    Message {
        /// Who sent it.
        from: NodeId,
        /// The last link that the sender knows.
        lineage: Lineage,
        /// What it says.
        message: Message,
    },
    /// The control log was applied up to a point that says this.
    Applied(Registry),
    /// Another node refused this one and named its own chain.
    Chain(LineageChain),
    /// The quorum round of [`Action::Round`] is done.
    Round {
        /// As it was asked for.
        term: u64,
        /// Who had asked.
        node: NodeId,
        /// Which of its requests.
        request: u64,
        /// The control state at the round's read index.
        registry: Registry,
    },
    /// The record of [`Action::Record`] is committed.
    Recorded {
        /// As it was asked for.
        term: u64,
        /// Which opening.
        grant: GrantId,
        /// The control state that holds it.
        registry: Registry,
    },
    /// [`Action::SaveLineage`] is on the disk.
    LineageSaved(Lineage),
    /// [`Action::SavePromise`] is on the disk.
    PromiseSaved(ActivationId),
    /// The disk did not take one of them.
    StoreFailed,
}

/// What the shell has to do, in this order and before the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Fsync the chain, then say [`Heard::LineageSaved`].
    SaveLineage(LineageChain),
    /// Fsync the promise, then say [`Heard::PromiseSaved`].
    SavePromise(ActivationId),
    /// Tell whoever asked why this node does not take part in an activation.
    RefusePart(Vec<NoPart>),
    /// Send a message to another node. It may be lost.
    Tell(NodeId, Message),
    /// Begin a quorum round of the control group now, then say [`Heard::Round`].
    Round {
        /// In which term; what comes back in another one is for nobody.
        term: u64,
        /// Who asked.
        node: NodeId,
        /// Which of its requests.
        request: u64,
    },
    /// Propose the record of an opening, then say [`Heard::Recorded`].
    Record {
        /// In which term.
        term: u64,
        /// The record.
        opening: Opening,
    },
    /// The gate opened, by a lease that the journal names before any group may serve.
    Opened(GrantId, Option<Lease>),
    /// The lease goes on.
    Extended(Option<Lease>),
    /// The gate closed: dismount, and answer nothing more.
    Closed(Closed),
}

/// What the journal says of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Which opening.
    pub grant: GrantId,
    /// The control leader that gave it.
    pub granter: NodeId,
    /// When its request was sent, in nanoseconds of the holder's BOOTTIME.
    pub sent: u64,
    /// How long it is, from there.
    pub ttl: Millis,
    /// When it ends.
    pub until: Millis,
}

/// What is to be fed, in its order.
#[derive(Debug)]
enum Work {
    Gate(gate::Input),
    /// A grant, and who gave it.
    Grant(NodeId, Grant),
    /// A node asks for the chain.
    ShowChain(NodeId),
    Granter(granter::Input),
}

/// One node's part in the protocol of the gate.
#[derive(Debug)]
pub struct Keeper {
    holder: Holder,
    times: LeaseTimes,
    granter: Option<Granter>,
    /// The newest control state that was seen.
    registry: Option<Registry>,
    work: VecDeque<Work>,
    /// When each request left, in nanoseconds; what the journal says of a lease rests on it.
    sent: BTreeMap<u64, u64>,
    leader: Option<NodeId>,
    store_failed: bool,
    open: bool,
}

impl Keeper {
    /// The keeper of a node that starts.
    pub fn new(holder: Holder, times: LeaseTimes) -> Self {
        Self {
            holder,
            times,
            granter: None,
            registry: None,
            work: VecDeque::new(),
            sent: BTreeMap::new(),
            leader: None,
            store_failed: false,
            open: false,
        }
    }

    /// Who leads the control group, as it was last seen.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// The granter, while the control group is led here.
    pub fn granter(&self) -> Option<&Granter> {
        self.granter.as_ref()
    }

    /// While the control group is led here: whether it may grant, and why.
    pub fn confirmation(&self, now: Millis) -> Option<Confirmation> {
        let (granter, registry) = (self.granter.as_ref()?, self.registry.as_ref()?);
        Some(granter.confirmation(now, registry))
    }

    /// When the next turn is due though nothing happens.
    pub fn next_deadline(&self, gate: &DacGate) -> Option<Millis> {
        let granter = self.granter.as_ref().map(Granter::next_deadline);
        [gate.next_deadline(), granter].into_iter().flatten().min()
    }

    // --- Taking in ------------------------------------------------------------------------------

    /// Takes in what is seen at the beginning of a turn. True: this node took office with this turn.
    pub fn look(&mut self, now: Millis, seen: Seen) -> bool {
        if seen.leader != self.leader {
            self.leader = seen.leader;
            self.feed(gate::Input::ControlLeader(seen.leader));
        }
        if seen.store_failed && !self.store_failed {
            self.store_failed = true;
            self.feed(gate::Input::StoreFailed);
        }
        let term = self.granter.as_ref().map(Granter::term);
        if seen.office == term {
            return false;
        }
        // A granter is as old as its term of office and knows nothing of earlier ones.
        let (own, times) = (self.holder.node, self.times);
        self.granter = seen.office.map(|term| Granter::take_office(now, own, term, times));
        self.granter.is_some()
    }

    /// Takes in what came. [`Self::step`] feeds it.
    pub fn take_in(&mut self, heard: Heard) {
        let term = self.granter.as_ref().map(Granter::term);
        match heard {
            Heard::Message { from, lineage, message } => self.message(from, lineage, message),
            Heard::Applied(registry) => {
                self.registry = Some(registry.clone());
                self.feed(gate::Input::Applied(registry));
            }
            Heard::Chain(chain) => self.feed(gate::Input::Chain(chain)),
            Heard::Round { term: of, node, request, registry } if Some(of) == term => {
                self.registry = Some(registry);
                self.ask_granter(granter::Input::RoundDone { node, request });
            }
            Heard::Recorded { term: of, grant, registry } if Some(of) == term => {
                self.registry = Some(registry);
                self.ask_granter(granter::Input::Recorded(grant));
            }
            // Of an earlier term: for nobody.
            Heard::Round { .. } | Heard::Recorded { .. } => {}
            Heard::LineageSaved(lineage) => self.feed(gate::Input::LineageSaved(lineage)),
            Heard::PromiseSaved(activation) => self.feed(gate::Input::PromiseSaved(activation)),
            Heard::StoreFailed => self.feed(gate::Input::StoreFailed),
        }
    }

    /// Time passed. Fed behind everything that came in this turn.
    pub fn tick(&mut self) {
        self.feed(gate::Input::Tick);
        if self.granter.is_some() {
            self.ask_granter(granter::Input::Tick);
        }
    }

    fn message(&mut self, from: NodeId, lineage: Lineage, message: Message) {
        // What a peer says of its own gate is shown to people and opens nothing.
        self.feed(gate::Input::Peer { node: from, lineage, open_for: None });
        let work = match message {
            Message::Renewal(renewal) => Work::Granter(granter::Input::Renewal(renewal)),
            Message::Answer(answer) => Work::Granter(granter::Input::Answer(answer)),
            Message::Grant(grant) => Work::Grant(from, grant),
            Message::Refusal(refusal) => Work::Gate(gate::Input::Refusal(refusal)),
            Message::Question(question) => Work::Gate(gate::Input::Question(question)),
            Message::Lineage(chain) => Work::Gate(gate::Input::Chain(chain)),
            Message::AskLineage => Work::ShowChain(from),
        };
        self.work.push_back(work);
    }

    fn feed(&mut self, input: gate::Input) {
        self.work.push_back(Work::Gate(input));
    }

    fn ask_granter(&mut self, input: granter::Input) {
        self.work.push_back(Work::Granter(input));
    }

    // --- Feeding --------------------------------------------------------------------------------

    /// Feeds the next that waits, at a reading of BOOTTIME that was taken for this very step: a
    /// request is never younger than it says. None: nothing waits.
    pub fn step(&mut self, gate: &mut DacGate, now: u64) -> Option<Vec<Action>> {
        let millis = Millis(now / NANOS);
        Some(match self.work.pop_front()? {
            Work::Gate(input) => {
                let said = gate.step(millis, input);
                self.of_gate(said, now, None)
            }
            Work::Grant(granter, grant) => {
                let lease = self.lease(granter, &grant);
                let said = gate.step(millis, gate::Input::Grant(grant));
                self.of_gate(said, now, lease)
            }
            Work::ShowChain(to) => {
                alloc::vec![Action::Tell(to, Message::Lineage(gate.chain().clone()))]
            }
            Work::Granter(input) => self.of_granter(millis, input),
        })
    }

    /// Compares the two clocks of one moment; BOOTTIME in nanoseconds.
    pub fn compare_clocks(
        &mut self,
        gate: &mut DacGate,
        now: u64,
        monotonic: Millis,
    ) -> Vec<Action> {
        let said = gate.step(Millis(now / NANOS), gate::Input::Clocks { monotonic });
        self.of_gate(said, now, None)
    }

    /// What the journal says of the lease that this grant may open or extend.
    fn lease(&self, granter: NodeId, grant: &Grant) -> Option<Lease> {
        let sent = *self.sent.get(&grant.request)?;
        Some(Lease { grant: grant.grant, granter, sent, ttl: grant.ttl, until: Millis(0) })
    }

    fn of_gate(&mut self, said: Vec<gate::Action>, now: u64, lease: Option<Lease>) -> Vec<Action> {
        use gate::Action as A;
        let lease = |until| lease.map(|lease| Lease { until, ..lease });
        let mut actions = Vec::new();
        for action in said {
            actions.push(match action {
                A::SaveLineage(chain) => Action::SaveLineage(chain),
                A::SavePromise(activation) => Action::SavePromise(activation),
                A::RefusePart(reasons) => Action::RefusePart(reasons),
                A::Request(to, renewal) => {
                    self.sent.insert(renewal.request, now);
                    while self.sent.len() > REMEMBERED {
                        self.sent.pop_first();
                    }
                    if to == self.holder.node {
                        self.ask_granter(granter::Input::Renewal(renewal));
                        continue;
                    }
                    Action::Tell(to, Message::Renewal(renewal))
                }
                A::Answer(to, answer) if to == self.holder.node => {
                    self.ask_granter(granter::Input::Answer(answer));
                    continue;
                }
                A::Answer(to, answer) => Action::Tell(to, Message::Answer(answer)),
                A::AskChain(node) => Action::Tell(node, Message::AskLineage),
                A::Opened { grant, until } => Action::Opened(grant, lease(until)),
                A::Extended { until } => Action::Extended(lease(until)),
                A::Closed(why) => Action::Closed(why),
            });
        }
        actions
    }

    fn of_granter(&mut self, now: Millis, input: granter::Input) -> Vec<Action> {
        use granter::Action as A;
        let (Some(granter), Some(registry)) = (&mut self.granter, &self.registry) else {
            return Vec::new();
        };
        let (own, term) = (self.holder.node, granter.term());
        let said = granter.step(now, registry, input);
        let mut actions = Vec::new();
        for action in said {
            let work = match action {
                A::Ask(to, question) if to == own => Work::Gate(gate::Input::Question(question)),
                A::Refuse(to, refusal) if to == own => Work::Gate(gate::Input::Refusal(refusal)),
                A::Send(to, grant) if to == own => Work::Grant(own, grant),
                other => {
                    actions.push(match other {
                        A::Round { node, request } => Action::Round { term, node, request },
                        A::Record(opening) => Action::Record { term, opening },
                        A::Ask(to, question) => Action::Tell(to, Message::Question(question)),
                        A::Refuse(to, refusal) => Action::Tell(to, Message::Refusal(refusal)),
                        A::Send(to, grant) => Action::Tell(to, Message::Grant(grant)),
                    });
                    continue;
                }
            };
            self.work.push_back(work);
        }
        actions
    }

    /// Takes in whether the gate is open now. True: that changed, so every group must be told, and
    /// where it closed, each that leads steps down.
    pub fn turned(&mut self, open: bool) -> bool {
        core::mem::replace(&mut self.open, open) != open
    }
}

#[cfg(test)]
#[path = "keeper_test.rs"]
mod tests;
