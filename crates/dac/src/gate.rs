//! The holder's end of the lease: one gate per data node, closed at every start.
//!
//! ```text
//!                    grant for an opening request
//!        ┌────────┐ ─────────────────────────────► ┌──────┐ ◄─┐ grant for a renewal:
//!   ───► │ Closed │                                │ Open │ ──┘ until = its sending + ttl
//!  start └────────┘ ◄───────────────────────────── └──────┘
//!          lease end, newer lineage, site stopped, clock jump,
//!          store failed, FORKED, promise of an unfenced activation
//! ```
//!
//! - The lease counts from the sending of the request that the grant answers. Each request has a
//!   number; closing forgets all of them, so an answer that was on its way opens nothing.
//! - Nothing but a grant opens or extends: not a peer, not a file, not the gate's own memory.
//! - It asks only after its own applied control log shows this disk and this start registered.
//! - Time is the node's BOOTTIME clock, which counts while the machine sleeps. A reading of the
//!   MONOTONIC clock, which does not, beside it shows a sleep, and closes the gate.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use dag_types::{
    ActivationId, Boot, DatabaseId, GrantId, Kinship, Lineage, LineageChain, LineageKind, Millis,
    Mutant, NodeId, Registry,
};

use crate::closed::{Closed, NoPart};
use crate::message::{Answer, Grant, Holder, NotGranted, Question, Refusal, Renewal};
use crate::permit::MountPermit;
use crate::times::LeaseTimes;

/// Requests whose answers may still come; the oldest is forgotten when one more is sent.
const OUTSTANDING_MAX: usize = 8;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time passed.
    Tick,
    /// Both clocks were read at one moment; `now` of the step is BOOTTIME.
    Clocks {
        /// MONOTONIC, which stands still while the machine sleeps.
        monotonic: Millis,
    },
    /// Who leads the control group, as far as this node knows.
    ControlLeader(Option<NodeId>),
    /// The node applied the control log up to a point that says this.
    Applied(Registry),
    /// A grant arrived.
    Grant(Grant),
    /// A refusal arrived.
    Refusal(Refusal),
    /// A control leader asks.
    Question(Question),
    /// A frame of another node came; its lineage, and what is left of its own grant.
    Peer {
        /// Who.
        node: NodeId,
        /// The last link that it knows.
        lineage: Lineage,
        /// What it says of its own gate. Shown to people, believed by nobody.
        open_for: Option<Millis>,
    },
    /// A peer sent its whole chain, all links of it complete.
    Chain(LineageChain),
    /// [`Action::SaveLineage`] is on the disk.
    LineageSaved(Lineage),
    /// An operator asks this node to take part in an unfenced activation of its site.
    TakePart {
        /// Which one.
        activation: ActivationId,
        /// Everybody who would take part, this node among them.
        participants: Vec<NodeId>,
    },
    /// [`Action::SavePromise`] is on the disk.
    PromiseSaved(ActivationId),
    /// The activation was called off, and more than half of the site fsynced that.
    PromiseVoid(ActivationId),
    /// The node's disk failed; the gate stays closed until the node starts again.
    StoreFailed,
}

/// What the shell has to do, in this order: save first, then send.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Fsync the chain, then say [`Input::LineageSaved`].
    SaveLineage(LineageChain),
    /// Fsync the promise, then say [`Input::PromiseSaved`].
    SavePromise(ActivationId),
    /// Refuse to take part; every reason.
    RefusePart(Vec<NoPart>),
    /// Send a request to the control leader.
    Request(NodeId, Renewal),
    /// Answer a question.
    Answer(NodeId, Answer),
    /// Ask a node for its whole chain.
    AskChain(NodeId),
    /// For the journal: the gate opened.
    Opened {
        /// The opening that the control log names.
        grant: GrantId,
        /// By this node's clock.
        until: Millis,
    },
    /// For the journal: the lease goes on.
    Extended {
        /// By this node's clock.
        until: Millis,
    },
    /// The gate closed: dismount, and answer nothing more.
    Closed(Closed),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Closed { since: Millis, why: Closed },
    Open { since: Millis, grant: GrantId, until: Millis },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sent {
    request: u64,
    at: Millis,
}

/// The word given with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Word {
    to: NodeId,
    until: Millis,
}

/// What a node remembers over a start, read from its disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Saved {
    /// The newest complete lineage.
    pub chain: LineageChain,
    /// A promise to take part in an unfenced activation that is neither complete nor void.
    pub promise: Option<ActivationId>,
}

/// One node's gate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DacGate {
    holder: Holder,
    times: LeaseTimes,
    chain: LineageChain,
    /// A newer chain that is not on the disk yet. Nothing is asked or answered meanwhile.
    saving: Option<LineageChain>,
    promise: Option<ActivationId>,
    state: State,
    openings: u64,
    sent: Vec<Sent>,
    next_request: u64,
    next_send: Millis,
    leader: Option<NodeId>,
    /// The applied control log names this disk and this start.
    registered: bool,
    /// The applied control log says that this node's site is stopped.
    site_stopped: Option<alloc::string::String>,
    store_failed: bool,
    forked: Option<Lineage>,
    refused: Option<NotGranted>,
    started_at: Millis,
    now: Millis,
    /// BOOTTIME minus MONOTONIC, when both were last read.
    asleep: Option<Millis>,
    words: Vec<Word>,
    heard: BTreeMap<NodeId, Millis>,
}

impl DacGate {
    /// The gate of a node that starts at `now`: closed, whatever it was before.
    ///
    /// # Panics
    /// Where the times do not satisfy [`LeaseTimes::problems`].
    pub fn at_boot(now: Millis, holder: Holder, times: LeaseTimes, saved: Saved) -> Self {
        times.assert_sound();
        let mut gate = Self {
            holder,
            times,
            chain: saved.chain,
            saving: None,
            promise: saved.promise,
            state: State::Closed { since: now, why: Closed::NeverOpened },
            openings: 0,
            sent: Vec::new(),
            next_request: 1,
            next_send: now,
            leader: None,
            registered: false,
            site_stopped: None,
            store_failed: false,
            forked: None,
            refused: None,
            started_at: now,
            now,
            asleep: None,
            words: Vec::new(),
            heard: BTreeMap::new(),
        };
        if Mutant::GateOpenAtBoot.planted() {
            gate.open(GrantId::default(), now + times.lease, &mut Vec::new());
        }
        gate
    }

    /// Takes in what happened at `now` (BOOTTIME), and says what to do about it.
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.pass_time(now, &mut actions);
        match input {
            Input::Tick => {}
            Input::Clocks { monotonic } => self.compare_clocks(monotonic, &mut actions),
            Input::ControlLeader(leader) => self.follow(leader),
            Input::Applied(registry) => self.applied(&registry, &mut actions),
            Input::Grant(grant) => self.granted(&grant, &mut actions),
            Input::Refusal(refusal) => self.refusal(refusal),
            Input::Question(question) => self.question(&question, &mut actions),
            Input::Peer { node, lineage, open_for } => {
                self.peer(node, lineage, open_for, &mut actions);
            }
            Input::Chain(chain) => self.adopt(chain, &mut actions),
            Input::LineageSaved(lineage) => self.lineage_saved(lineage),
            Input::TakePart { activation, participants } => {
                self.take_part(activation, &participants, &mut actions);
            }
            Input::PromiseSaved(activation) => self.promise = Some(activation),
            Input::PromiseVoid(activation) => {
                if self.promise == Some(activation) {
                    self.promise = None;
                }
            }
            Input::StoreFailed => {
                self.store_failed = true;
                self.close(Closed::StoreFailed, &mut actions);
            }
        }
        self.ask(&mut actions);
        actions
    }

    /// When [`Self::step`] wants to be called again though nothing happened.
    pub fn next_deadline(&self) -> Option<Millis> {
        let send = self.may_ask().then(|| self.next_send.max(self.now));
        let end = match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed { .. } => None,
        };
        [send, end].into_iter().flatten().min()
    }

    // --- What others ask of the gate ------------------------------------------------------------

    /// Why nothing may be served at `now`; none: the gate is open.
    ///
    /// Time alone closes the gate here, without a step, so a node that was paused and wakes up
    /// inside a request finds it closed.
    pub fn closed(&self, now: Millis) -> Option<Closed> {
        match &self.state {
            State::Closed { why, .. } => Some(why.clone()),
            State::Open { .. } if now < self.now => Some(Closed::ClockJump(self.now - now)),
            State::Open { until, .. } if now >= *until => Some(Closed::LeaseEnded),
            State::Open { .. } => None,
        }
    }

    /// Leave to serve one request of a database. A longer or missing deadline is shortened to the
    /// attempt; the gate must be open past it.
    pub fn permit(
        &self,
        now: Millis,
        database: DatabaseId,
        deadline: Option<Millis>,
    ) -> Result<MountPermit, Closed> {
        if let Some(why) = self.closed(now) {
            return Err(why);
        }
        let State::Open { grant, until, .. } = self.state else {
            unreachable!("a gate that is not closed is open");
        };
        let attempt = now + self.times.attempt;
        let deadline = deadline.map_or(attempt, |deadline| deadline.min(attempt));
        if deadline <= now {
            return Err(Closed::Deadline);
        }
        if deadline > until {
            return Err(Closed::TooShort { left: until - now, wanted: deadline - now });
        }
        let lineage = self.chain.last();
        Ok(MountPermit { database, lineage, grant, opening: self.openings, deadline })
    }

    /// Whether an answer may still go out under a permit: the same opening, still open, in time.
    ///
    /// An error here, after a proposal, is an unknown outcome and neither success nor refusal.
    pub fn upholds(&self, now: Millis, permit: &MountPermit) -> Result<(), Closed> {
        if permit.opening != self.openings || permit.lineage != self.chain.last() {
            return Err(Closed::AnotherOpening);
        }
        match self.closed(now) {
            Some(why) => Err(why),
            None => permit.check_time(now),
        }
    }

    /// The newest complete lineage that is on this node's disk.
    pub fn chain(&self) -> &LineageChain {
        &self.chain
    }

    /// Who holds this gate.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// The opening and its end by this node's clock, while the gate is open.
    pub fn opening(&self) -> Option<(GrantId, Millis)> {
        match self.state {
            State::Open { grant, until, .. } => Some((grant, until)),
            State::Closed { .. } => None,
        }
    }

    /// Since when the gate is as it is.
    pub fn since(&self) -> Millis {
        match self.state {
            State::Open { since, .. } | State::Closed { since, .. } => since,
        }
    }

    /// What the control leader said last instead of granting.
    pub fn refused(&self) -> Option<&NotGranted> {
        self.refused.as_ref()
    }

    /// Why the gate does not even ask for a grant; none: it asks.
    pub fn silent_because(&self) -> Option<&'static str> {
        if self.store_failed {
            Some("its store failed: replace the disk and join the node as a new store")
        } else if self.forked.is_some() {
            Some("it is FORKED, and stays closed until a person chooses a branch")
        } else if self.promise.is_some() {
            Some("it takes part in an unfenced activation that is not complete")
        } else if self.saving.is_some() {
            Some("a newer lineage is being written to its disk")
        } else if self.site_stopped.is_some() {
            Some("its site is stopped, and stays closed until the site is started again")
        } else if !self.registered {
            Some("this start is not in its control log yet: is there a control majority?")
        } else if self.leader.is_none() {
            Some("it knows no control leader: is there a control majority?")
        } else {
            None
        }
    }

    /// Every reason against taking part in an unfenced activation; empty: it takes part.
    pub fn reasons_against_part(
        &self,
        now: Millis,
        activation: ActivationId,
        participants: &[NodeId],
    ) -> Vec<NoPart> {
        let mut reasons = Vec::new();
        let needed = self.times.promise();
        if self.forked.is_some() {
            reasons.push(NoPart::Forked);
        }
        if let Some(other) = self.promise.filter(|other| *other != activation) {
            reasons.push(NoPart::OtherPromise(other));
        }
        let ago = now.saturating_sub(self.started_at);
        if ago < needed {
            reasons.push(NoPart::JustStarted { ago, needed });
        }
        for word in self.words.iter().filter(|word| now < word.until) {
            if !participants.contains(&word.to) {
                reasons.push(NoPart::WordGiven { leader: word.to, left: word.until - now });
            }
        }
        for (node, at) in &self.heard {
            let ago = now.saturating_sub(*at);
            if ago < needed && !participants.contains(node) {
                reasons.push(NoPart::Heard { node: *node, ago });
            }
        }
        reasons
    }

    // --- Time -----------------------------------------------------------------------------------

    fn pass_time(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if let State::Open { .. } = self.state
            && let Some(why) = self.closed(now)
        {
            self.close(why, actions);
        }
        // A clock that went back is not followed back: what was sent would look younger.
        self.now = self.now.max(now);
        let now = self.now;
        self.words.retain(|word| now < word.until);
        let listened = self.times.promise();
        self.heard.retain(|_, at| now.saturating_sub(*at) < listened);
        self.sent.retain(|sent| now.saturating_sub(sent.at) < self.times.lease);
    }

    /// The two clocks run apart only while the machine sleeps, or where one of them is broken.
    fn compare_clocks(&mut self, monotonic: Millis, actions: &mut Vec<Action>) {
        let asleep = self.now.saturating_sub(monotonic);
        let before = self.asleep.replace(asleep).unwrap_or(asleep);
        let jump = Millis(asleep.0.abs_diff(before.0));
        if jump > self.times.margin {
            self.close(Closed::ClockJump(jump), actions);
        }
    }

    // --- Opening and closing --------------------------------------------------------------------

    fn open(&mut self, grant: GrantId, until: Millis, actions: &mut Vec<Action>) {
        self.openings += 1;
        self.state = State::Open { since: self.now, grant, until };
        self.refused = None;
        actions.push(Action::Opened { grant, until });
    }

    /// Closes at once. Requests that are under way are forgotten: their answers open nothing.
    fn close(&mut self, why: Closed, actions: &mut Vec<Action>) {
        self.sent.clear();
        if let State::Open { .. } = self.state {
            actions.push(Action::Closed(why.clone()));
            self.state = State::Closed { since: self.now, why };
            self.next_send = self.now;
        } else if let State::Closed { why: known, .. } = &mut self.state {
            *known = why;
        }
    }

    fn granted(&mut self, grant: &Grant, actions: &mut Vec<Action>) {
        let place = self.sent.iter().position(|sent| sent.request == grant.request);
        let Some(place) = place else { return };
        let sent = self.sent.remove(place);
        let fits = grant.holder == self.holder && grant.lineage == self.chain.last();
        if !fits || !self.registered || self.saving.is_some() {
            return;
        }
        let ttl = grant.ttl.min(self.times.lease);
        let until = self.lease_start(sent) + ttl;
        if until <= self.now {
            return;
        }
        match &mut self.state {
            State::Closed { .. } => self.open(grant.grant, until, actions),
            State::Open { grant: open, until: end, .. } if *open == grant.grant => {
                if until > *end {
                    *end = until;
                    actions.push(Action::Extended { until });
                }
            }
            // A second opening that was on its way when the first one came: never mixed.
            State::Open { .. } => {}
        }
    }

    /// The lease counts from the sending of the request that was answered, and of no other.
    fn lease_start(&self, answered: Sent) -> Millis {
        if Mutant::LeaseFromReceipt.planted() {
            return self.now;
        }
        if Mutant::LatestSendingTime.planted() {
            return self.sent.iter().map(|sent| sent.at).fold(answered.at, Millis::max);
        }
        answered.at
    }

    fn refusal(&mut self, refusal: Refusal) {
        let known = self.sent.iter().any(|sent| sent.request == refusal.request);
        if known {
            self.sent.retain(|sent| sent.request != refusal.request);
            self.refused = Some(refusal.why);
            self.next_send = self.now + self.times.renewal;
        }
    }

    // --- Asking ---------------------------------------------------------------------------------

    fn follow(&mut self, leader: Option<NodeId>) {
        if self.leader != leader {
            self.leader = leader;
            // What the old leader was asked may never be answered.
            self.next_send = self.now;
        }
    }

    fn may_ask(&self) -> bool {
        self.silent_because().is_none()
    }

    fn ask(&mut self, actions: &mut Vec<Action>) {
        if !self.may_ask() || self.now < self.next_send {
            return;
        }
        let leader = self.leader.expect("a gate without a control leader is silent");
        let (holds, again) = match self.state {
            State::Open { grant, .. } => (Some(grant), self.times.renewal),
            // Each opening is a record in the control log, so one request at a time.
            State::Closed { .. } => (None, self.times.attempt),
        };
        if holds.is_none() {
            self.sent.clear();
        }
        let request = self.next_request;
        self.next_request += 1;
        self.next_send = self.now + again;
        if self.sent.len() == OUTSTANDING_MAX {
            self.sent.remove(0);
        }
        self.sent.push(Sent { request, at: self.now });
        let (holder, lineage) = (self.holder, self.chain.last());
        actions.push(Action::Request(leader, Renewal { request, holder, lineage, holds }));
    }

    // --- Answering ------------------------------------------------------------------------------

    fn question(&mut self, question: &Question, actions: &mut Vec<Action>) {
        self.heard.insert(question.from, self.now);
        if question.lineage != self.chain.last() {
            if !self.chain.contains(question.lineage) {
                actions.push(Action::AskChain(question.from));
            }
            return;
        }
        if self.promise.is_some() || self.saving.is_some() || self.forked.is_some() {
            return;
        }
        let until = self.now + self.times.promise();
        self.words.retain(|word| word.to != question.from);
        self.words.push(Word { to: question.from, until });
        let held = match self.state {
            State::Open { until, .. } => Some(until.saturating_sub(self.now)),
            State::Closed { .. } => None,
        };
        let (id, holder, lineage) = (question.id, self.holder, self.chain.last());
        actions.push(Action::Answer(question.from, Answer { id, holder, lineage, held }));
    }

    // --- Lineage --------------------------------------------------------------------------------

    fn peer(
        &mut self,
        node: NodeId,
        lineage: Lineage,
        open_for: Option<Millis>,
        actions: &mut Vec<Action>,
    ) {
        self.heard.insert(node, self.now);
        if !self.chain.contains(lineage) {
            actions.push(Action::AskChain(node));
        }
        if Mutant::PeerOpensGate.planted()
            && let (State::Closed { .. }, Some(left)) = (&self.state, open_for)
            && lineage == self.chain.last()
        {
            self.open(GrantId::default(), self.now + left.max(self.times.lease), actions);
        }
    }

    fn applied(&mut self, registry: &Registry, actions: &mut Vec<Action>) {
        self.adopt(registry.chain.clone(), actions);
        let own = registry.node(self.holder.node);
        self.registered =
            own.is_some_and(|own| own.store == self.holder.store && own.boot == self.holder.boot);
        let site = own.and_then(|own| registry.site(&own.site));
        self.site_stopped = site.filter(|site| !site.started).map(|site| site.name.clone());
        if !self.registered && own.is_some_and(|own| superseded(own.boot, self.holder.boot)) {
            self.close(Closed::Superseded, actions);
        }
        if let Some(site) = self.site_stopped.clone() {
            self.close(Closed::SiteStopped(site), actions);
        }
    }

    /// A newer complete chain closes the gate now and counts once it is on the disk.
    fn adopt(&mut self, chain: LineageChain, actions: &mut Vec<Action>) {
        let newest = self.saving.as_ref().unwrap_or(&self.chain);
        match newest.kinship(&chain) {
            Kinship::Same | Kinship::Older => {}
            Kinship::Forked => self.fork(chain.last(), actions),
            Kinship::Newer if self.is_disputed_by(&chain) => self.fork(chain.last(), actions),
            Kinship::Newer => {
                self.close(Closed::NewerLineage(chain.last()), actions);
                actions.push(Action::SaveLineage(chain.clone()));
                self.saving = Some(chain);
            }
        }
    }

    /// A person said "that site is down" and this node serves: two sides may have acknowledged.
    fn is_disputed_by(&self, newer: &LineageChain) -> bool {
        let known = self.chain.links().len();
        let open = matches!(self.state, State::Open { .. });
        let new = newer.links().get(known..).unwrap_or_default();
        open && new.iter().any(|link| link.kind == LineageKind::ActivateUnfenced)
            && !new.iter().any(|link| link.kind == LineageKind::Accept)
    }

    fn fork(&mut self, other: Lineage, actions: &mut Vec<Action>) {
        self.forked = Some(other);
        self.close(Closed::Forked(other), actions);
    }

    fn lineage_saved(&mut self, lineage: Lineage) {
        let Some(chain) = self.saving.take_if(|chain| chain.last() == lineage) else { return };
        self.chain = chain;
        // Only a complete activation, or a person's choice, ends what was pending or in dispute.
        self.promise = None;
        self.forked = None;
        self.next_send = self.now;
    }

    fn take_part(
        &mut self,
        activation: ActivationId,
        participants: &[NodeId],
        actions: &mut Vec<Action>,
    ) {
        let reasons = self.reasons_against_part(self.now, activation, participants);
        if !reasons.is_empty() {
            return actions.push(Action::RefusePart(reasons));
        }
        self.close(Closed::Promised(activation), actions);
        // Held from here on: between the asking and the fsync nothing may be answered.
        self.promise = Some(activation);
        actions.push(Action::SavePromise(activation));
    }
}

/// Whether the registered start replaces this one: the disk was turned back, or cloned.
fn superseded(registered: Boot, own: Boot) -> bool {
    registered.counter > own.counter
        || (registered.counter == own.counter && registered.id != own.id)
}

#[cfg(test)]
#[path = "gate_test.rs"]
mod tests;
