//! The control leader's end of the lease: who is granted, when, and until when it may matter.
//!
//! One granter lives as long as one term of office: a new term makes a new one that has heard
//! nothing. A request is checked twice, once to refuse early and once on state applied to the read
//! index of a quorum round that began after it arrived; a new opening is recorded in the control log
//! between that check and the grant, and checked again on the state that has the record.
//!
//! **Confirmation.** A quorum alone does not prove that no site was activated elsewhere: after a
//! power cut the quorum may be the side that was given up. So a leader grants only at moments when
//! answers to its own questions of less than one lease time ago say that
//! (a) a data node holds a grant of this lineage that has not run out, or
//! (b) at least half of the data nodes of **every** started site stand in this lineage.
//! An unfenced activation needs *more* than half of a site, so the two always meet in one node, and
//! that node's answer binds it for two lease times.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dag_types::{
    Boot, GrantId, Lineage, Millis, Mutant, NodeId, RegisteredNode, RegisteredSite, Registry,
};

use crate::message::{Answer, Grant, Holder, NotGranted, Question, QuestionId, Refusal, Renewal};
use crate::times::LeaseTimes;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time passed.
    Tick,
    /// A request arrived.
    Renewal(Renewal),
    /// The quorum round of [`Action::Round`] is done, and the registry of this step is applied to
    /// its read index.
    RoundDone {
        /// Who had asked.
        node: NodeId,
        /// Which of its requests.
        request: u64,
    },
    /// The record of [`Action::Record`] is committed, and the registry of this step holds it.
    Recorded(GrantId),
    /// A data node answered a question.
    Answer(Answer),
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Ask a data node how it stands.
    Ask(NodeId, Question),
    /// Begin a quorum round now, then say [`Input::RoundDone`].
    Round {
        /// Who asked.
        node: NodeId,
        /// Which of its requests.
        request: u64,
    },
    /// Propose the record of an opening, then say [`Input::Recorded`].
    Record(Opening),
    /// Send a grant.
    Send(NodeId, Grant),
    /// Send a refusal.
    Refuse(NodeId, Refusal),
}

/// What the control log holds of each opening of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Opening {
    /// Which.
    pub grant: GrantId,
    /// Whose.
    pub holder: Holder,
    /// In which lineage.
    pub lineage: Lineage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Heard {
    /// When the question was sent.
    asked: Millis,
    lineage: Lineage,
    boot: Boot,
    /// When its grant ends at the earliest by this clock, counted from the sending.
    holds_until: Option<Millis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Waiting {
    renewal: Renewal,
    arrived: Millis,
    opening: Option<GrantId>,
}

/// How one started site is heard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SiteVoice {
    /// Which site.
    pub site: String,
    /// Data nodes that answered in this lineage within the time that counts.
    pub heard: Vec<NodeId>,
    /// Data nodes that did not.
    pub silent: Vec<NodeId>,
    /// At least half of every list of the site's nodes was heard.
    pub enough: bool,
}

/// Whether the leader may grant now, and what that rests on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Confirmation {
    /// A data node that holds a grant of this lineage now.
    pub holder: Option<NodeId>,
    /// Each started site.
    pub sites: Vec<SiteVoice>,
}

impl Confirmation {
    /// Whether the leader may grant now.
    pub fn holds(&self) -> bool {
        self.holder.is_some() || self.sites.iter().all(|site| site.enough)
    }

    /// For people: what is missing, and what helps.
    pub fn words(&self) -> String {
        if self.holds() {
            return "confirmed".into();
        }
        let mut words = String::new();
        for site in self.sites.iter().filter(|site| !site.enough) {
            let silent: Vec<String> = site.silent.iter().map(|node| format!("{node}")).collect();
            words += &format!(
                "site {}: {} of {} data nodes heard, silent: {}; ",
                site.site,
                site.heard.len(),
                site.heard.len() + site.silent.len(),
                silent.join(", ")
            );
        }
        words + "start one of them, or mend what lies between: the gates open by themselves then"
    }
}

/// Whether the sites that were left out can no longer serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fence {
    /// Every gate there is closed by now.
    Passed,
    /// A grant may still be open there.
    Wait {
        /// By the leader's clock.
        until: Millis,
    },
}

/// The granter of one term of office.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Granter {
    own: NodeId,
    term: u64,
    times: LeaseTimes,
    in_office_since: Millis,
    next_ask: Millis,
    next_question: u64,
    next_grant: u64,
    asked: BTreeMap<u64, (NodeId, Millis)>,
    heard: BTreeMap<NodeId, Heard>,
    waiting: BTreeMap<NodeId, Waiting>,
    /// When this leader last granted a node anything.
    granted: BTreeMap<NodeId, Millis>,
}

impl Granter {
    /// The granter of a leader that took office at `now`. It has heard nothing.
    ///
    /// # Panics
    /// Where the times do not satisfy [`LeaseTimes::problems`].
    pub fn take_office(now: Millis, own: NodeId, term: u64, times: LeaseTimes) -> Self {
        times.assert_sound();
        Self {
            own,
            term,
            times,
            in_office_since: now,
            next_ask: now,
            next_question: 1,
            next_grant: 1,
            asked: BTreeMap::new(),
            heard: BTreeMap::new(),
            waiting: BTreeMap::new(),
            granted: BTreeMap::new(),
        }
    }

    /// Takes in what happened at `now`, on the control state that the leader has applied.
    pub fn step(&mut self, now: Millis, registry: &Registry, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.forget(now);
        match input {
            Input::Tick => {}
            Input::Renewal(renewal) => self.renewal(now, registry, renewal, &mut actions),
            Input::RoundDone { node, request } => {
                self.round_done(now, registry, node, request, &mut actions);
            }
            Input::Recorded(grant) => self.recorded(now, registry, grant, &mut actions),
            Input::Answer(answer) => self.answer(registry, &answer),
        }
        self.ask(now, registry, &mut actions);
        actions
    }

    /// When [`Self::step`] wants to be called again though nothing happened.
    pub fn next_deadline(&self) -> Millis {
        self.next_ask
    }

    /// The term of office.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whether the leader may grant now, and why.
    pub fn confirmation(&self, now: Millis, registry: &Registry) -> Confirmation {
        let current = registry.chain.last();
        let holds = |(node, heard): (&NodeId, &Heard)| {
            let fresh = self.is_fresh(now, heard) && heard.lineage == current;
            let open = heard.holds_until.is_some_and(|end| now < end);
            (fresh && open).then_some(*node)
        };
        let holder = self.heard.iter().find_map(holds);
        let started = registry.sites.iter().filter(|site| site.started);
        let sites = started.map(|site| self.voice(now, site, current)).collect();
        Confirmation { holder, sites }
    }

    /// Whether nothing of what was granted to these nodes, by this leader or by one before it, can
    /// still be open.
    pub fn fence(&self, now: Millis, nodes: &[NodeId]) -> Fence {
        let granted = nodes.iter().filter_map(|node| self.granted.get(node)).copied();
        let last = granted.fold(self.in_office_since, Millis::max);
        let until = last + self.times.takeover_wait();
        if now >= until { Fence::Passed } else { Fence::Wait { until } }
    }

    // --- Hearing --------------------------------------------------------------------------------

    fn ask(&mut self, now: Millis, registry: &Registry, actions: &mut Vec<Action>) {
        if now < self.next_ask {
            return;
        }
        self.next_ask = now + self.times.renewal;
        for node in &registry.nodes {
            let number = self.next_question;
            self.next_question += 1;
            self.asked.insert(number, (node.node, now));
            let id = QuestionId { term: self.term, number };
            let question = Question { id, from: self.own, lineage: registry.chain.last() };
            actions.push(Action::Ask(node.node, question));
        }
    }

    /// An answer counts from the sending of its own question, and only in the leader's own term.
    fn answer(&mut self, registry: &Registry, answer: &Answer) {
        let Some(&(node, asked)) = self.asked.get(&answer.id.number) else { return };
        let own_question = answer.id.term == self.term && node == answer.holder.node;
        let registered = registry.node(node).is_some_and(|known| {
            known.store == answer.holder.store && known.boot.counter <= answer.holder.boot.counter
        });
        if !own_question || !registered {
            return;
        }
        self.asked.remove(&answer.id.number);
        if self.heard.get(&node).is_some_and(|heard| heard.asked >= asked) {
            return;
        }
        let holds_until = answer.held.map(|left| (asked + left).saturating_sub(self.times.margin));
        let (lineage, boot) = (answer.lineage, answer.holder.boot);
        self.heard.insert(node, Heard { asked, lineage, boot, holds_until });
    }

    fn is_fresh(&self, now: Millis, heard: &Heard) -> bool {
        Mutant::ConfirmationNeverLapses.planted() || now < heard.asked + self.times.confirmation()
    }

    fn voice(&self, now: Millis, site: &RegisteredSite, current: Lineage) -> SiteVoice {
        let is_heard = |node: &NodeId| {
            let heard = self.heard.get(node);
            heard.is_some_and(|heard| self.is_fresh(now, heard) && heard.lineage == current)
        };
        let half = |list: &alloc::collections::BTreeSet<NodeId>| {
            2 * list.iter().filter(|node| is_heard(node)).count() >= list.len()
        };
        let all: alloc::collections::BTreeSet<NodeId> =
            site.lists.iter().flatten().copied().collect();
        let (heard, silent) = all.into_iter().partition(|node| is_heard(node));
        let enough = site.lists.iter().all(half);
        SiteVoice { site: site.name.clone(), heard, silent, enough }
    }

    // --- Granting -------------------------------------------------------------------------------

    fn renewal(
        &mut self,
        now: Millis,
        registry: &Registry,
        renewal: Renewal,
        actions: &mut Vec<Action>,
    ) {
        let node = renewal.holder.node;
        if let Err(why) = self.check(now, registry, &renewal) {
            return refuse(&renewal, why, actions);
        }
        self.waiting.insert(node, Waiting { renewal, arrived: now, opening: None });
        actions.push(Action::Round { node, request: renewal.request });
    }

    fn round_done(
        &mut self,
        now: Millis,
        registry: &Registry,
        node: NodeId,
        request: u64,
        actions: &mut Vec<Action>,
    ) {
        let waits = |waiting: &&mut Waiting| {
            waiting.renewal.request == request && waiting.opening.is_none()
        };
        let Some(waiting) = self.waiting.get_mut(&node).filter(waits) else { return };
        let renewal = waiting.renewal;
        if renewal.holds.is_some() {
            self.waiting.remove(&node);
            return match self.check(now, registry, &renewal) {
                Ok(()) => self.grant(now, &renewal, renewal.holds.unwrap_or_default(), actions),
                Err(why) => refuse(&renewal, why, actions),
            };
        }
        let grant = GrantId { term: self.term, number: self.next_grant };
        waiting.opening = Some(grant);
        self.next_grant += 1;
        let (holder, lineage) = (renewal.holder, renewal.lineage);
        match self.check(now, registry, &renewal) {
            Ok(()) => actions.push(Action::Record(Opening { grant, holder, lineage })),
            Err(why) => {
                self.waiting.remove(&node);
                refuse(&renewal, why, actions);
            }
        }
    }

    fn recorded(
        &mut self,
        now: Millis,
        registry: &Registry,
        grant: GrantId,
        actions: &mut Vec<Action>,
    ) {
        let waits = |(_, waiting): &(&NodeId, &Waiting)| waiting.opening == Some(grant);
        let Some((node, waiting)) = self.waiting.iter().find(waits) else { return };
        let (node, renewal) = (*node, waiting.renewal);
        self.waiting.remove(&node);
        let known = registry.node(node).and_then(|known| known.grant) == Some(grant);
        match self.check(now, registry, &renewal) {
            Err(why) => refuse(&renewal, why, actions),
            Ok(()) if !known => refuse(&renewal, NotGranted::NotTheLastOpening(grant), actions),
            Ok(()) => self.grant(now, &renewal, grant, actions),
        }
    }

    fn grant(&mut self, now: Millis, renewal: &Renewal, grant: GrantId, actions: &mut Vec<Action>) {
        let Renewal { request, holder, lineage, .. } = *renewal;
        // The granter's own end counts from here, after the holder's sending.
        self.granted.insert(holder.node, now);
        let grant = Grant { request, holder, lineage, grant, ttl: self.times.lease };
        actions.push(Action::Send(holder.node, grant));
    }

    /// Every condition of a grant, on the control state that is applied now.
    fn check(&self, now: Millis, registry: &Registry, renewal: &Renewal) -> Result<(), NotGranted> {
        let Holder { node, store, boot } = renewal.holder;
        let known: &RegisteredNode = registry.node(node).ok_or(NotGranted::UnknownNode(node))?;
        if known.store != store {
            return Err(NotGranted::UnknownStore(node));
        }
        if known.boot != boot {
            let registered = known.boot;
            return Err(NotGranted::BootNotRegistered { node, asked: boot, registered });
        }
        let current = registry.chain.last();
        if renewal.lineage != current {
            return Err(NotGranted::OtherLineage { asked: renewal.lineage, current });
        }
        if !registry.site(&known.site).is_some_and(|site| site.started) {
            return Err(NotGranted::SiteStopped(known.site.clone()));
        }
        if let Some(grant) = renewal.holds.filter(|grant| known.grant != Some(*grant)) {
            return Err(NotGranted::NotTheLastOpening(grant));
        }
        let confirmation = self.confirmation(now, registry);
        if !confirmation.holds() && !Mutant::ColdStartUnconfirmed.planted() {
            return Err(NotGranted::NotConfirmed(confirmation.words()));
        }
        Ok(())
    }

    /// Requests and questions that nobody waits for any more.
    fn forget(&mut self, now: Millis) {
        let lease = self.times.lease;
        self.asked.retain(|_, (_, at)| now.saturating_sub(*at) < lease);
        self.waiting.retain(|_, waiting| now.saturating_sub(waiting.arrived) < lease);
    }
}

fn refuse(renewal: &Renewal, why: NotGranted, actions: &mut Vec<Action>) {
    let refusal = Refusal { request: renewal.request, why };
    actions.push(Action::Refuse(renewal.holder.node, refusal));
}

#[cfg(test)]
#[path = "granter_test.rs"]
mod tests;
