//! What each event does to the sites, and what nodes in contact say to one another in a step.

use super::*;

impl World {
    pub(super) fn first() -> Self {
        let chain = LineageChain::first(ActivationId([1; 16]));
        let gate = |node: usize| {
            let saved = Saved { chain: chain.clone(), promise: None };
            DacGate::at_boot(Millis(0), holder(node, 1), TIMES, saved)
        };
        let node = |node: usize| {
            Shared::new(Node {
                link: 0,
                group: 0,
                length: 1,
                boots: 1,
                generation: 0,
                gate: Some(gate(node)),
                paused: false,
                forked: false,
                allowed_until: Millis(0),
                granted: None,
                asked: None,
            })
        };
        let log = Log {
            length: 1,
            link: 0,
            stopped: [false; 2],
            boots: [1; DATA],
            grants: [None; DATA],
            fencing: false,
        };
        let mut world = Self {
            now: BEGIN,
            net: Net::Whole,
            nodes: [node(0), node(1), node(2), node(3), node(4)],
            groups: vec![Shared::new(Group {
                members: ALL,
                term: 0,
                leader: None,
                granter: None,
                log,
            })],
            links: vec![Shared::new(Link {
                chain,
                parent: 0,
                unfenced: false,
                site: 0,
                group: 0,
                held_until: Millis(0),
            })],
            generations: vec![FIRST_VOTERS],
            counted: 0,
            faults: 0,
            commands: 0,
            broken: None,
        };
        world.look_for_acknowledgements();
        world
    }

    pub(super) fn break_rule(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    // --- Who is there ---------------------------------------------------------------------------

    pub(super) fn runs(&self, node: usize) -> bool {
        self.nodes[node].gate.is_some() && !self.nodes[node].paused
    }

    /// The running nodes that a running node is in contact with, itself among them.
    pub(super) fn contacts(&self, node: usize) -> u8 {
        if !self.runs(node) {
            return 0;
        }
        bits(self.net.hears(node)).filter(|other| self.runs(*other)).fold(0, |m, n| m | 1 << n)
    }

    pub(super) fn speaks_for(&self, node: usize, group: usize) -> bool {
        let Node { group: own, link, forked, .. } = *self.nodes[node];
        own == group && self.links[link].group == group && !forked
    }

    pub(super) fn members_heard(&self, node: usize, group: usize) -> u8 {
        let here = bits(self.contacts(node) & self.groups[group].members);
        here.filter(|other| self.speaks_for(*other, group)).fold(0, |m, n| m | 1 << n)
    }

    pub(super) fn has_majority(&self, node: usize, group: usize) -> bool {
        is_majority(self.members_heard(node, group), self.groups[group].members)
    }

    /// The leader, where it runs and has a majority.
    pub(super) fn leader(&self, group: usize) -> Option<usize> {
        let leader = self.groups[group].leader?;
        let leads = self.runs(leader) && self.speaks_for(leader, group);
        (leads && self.has_majority(leader, group)).then_some(leader)
    }

    /// Whether a link comes from another one, by how they were really made.
    pub(super) fn comes_from(&self, mut link: usize, ancestor: usize) -> bool {
        loop {
            if link == ancestor {
                return true;
            }
            if link == 0 {
                return false;
            }
            link = self.links[link].parent;
        }
    }

    pub(super) fn registry(&self, group: usize) -> Registry {
        let log = &self.groups[group].log;
        let node = |node: usize| {
            let Holder { node: id, store, boot } = holder(node, log.boots[node]);
            let (site, grant) = (SITES[site_of(node)].to_owned(), log.grants[node]);
            RegisteredNode { node: id, site, store, boot, grant }
        };
        let site = |site: usize| RegisteredSite {
            name: SITES[site].to_owned(),
            started: !log.stopped[site],
            lists: vec![bits(SITE[site]).map(number).collect::<BTreeSet<NodeId>>()],
        };
        Registry {
            chain: self.links[log.link].chain.clone(),
            sites: vec![site(0), site(1)],
            nodes: (0..DATA).map(node).collect(),
        }
    }

    // --- Gates ----------------------------------------------------------------------------------

    /// Hands something to a node's gate and carries out what comes back, but for what goes out.
    pub(super) fn gate(&mut self, node: usize, input: gate::Input) -> Vec<gate::Action> {
        let now = self.now;
        let Some(gate) = self.nodes[node].gate.as_mut() else { return Vec::new() };
        let mut out = Vec::new();
        let mut actions = gate.step(now, input);
        while !actions.is_empty() {
            let Node { gate: Some(gate), asked, .. } = &mut *self.nodes[node] else { return out };
            let mut more = Vec::new();
            let mut saved = None;
            for action in actions.drain(..) {
                match action {
                    gate::Action::SaveLineage(chain) => {
                        more.extend(gate.step(now, gate::Input::LineageSaved(chain.last())));
                        saved = Some(chain);
                    }
                    gate::Action::SavePromise(activation) => {
                        more.extend(gate.step(now, gate::Input::PromiseSaved(activation)));
                    }
                    gate::Action::Request(to, renewal) => *asked = Some((to, renewal)),
                    other => out.push(other),
                }
            }
            if let Some(chain) = saved {
                self.chain_saved(node, &chain);
            }
            actions = more;
        }
        self.note_fork(node);
        out
    }

    pub(super) fn note_fork(&mut self, node: usize) {
        let gate = self.nodes[node].gate.as_ref();
        let forked =
            gate.and_then(DacGate::silent_because).is_some_and(|why| why.contains("FORKED"));
        self.nodes[node].forked |= forked;
    }

    pub(super) fn chain_saved(&mut self, node: usize, chain: &LineageChain) {
        let known = self.links.iter().position(|link| link.chain == *chain);
        let link = known.expect("only links that were made travel");
        if !self.comes_from(link, self.nodes[node].link) {
            self.break_rule(Broken::LineageLeft);
        }
        self.nodes[node].link = link;
    }

    /// Everything that must hold of every gate at every moment.
    pub(super) fn look_at_gates(&mut self) {
        for node in 0..NODES {
            let Node { gate, allowed_until, granted, .. } = &*self.nodes[node];
            let Some(gate) = gate.as_ref().filter(|gate| gate.closed(self.now).is_none()) else {
                continue;
            };
            let opening = gate.opening().map(|(grant, _)| grant);
            if opening != *granted {
                self.break_rule(Broken::WithoutGrant);
            } else if self.now >= *allowed_until {
                self.break_rule(Broken::PastLease);
            }
        }
    }

    /// Whoever can acknowledge does.
    pub(super) fn look_for_acknowledgements(&mut self) {
        for node in 0..DATA {
            if !self.can_acknowledge(node) {
                continue;
            }
            let link = self.nodes[node].link;
            let newer = (0..self.links.len()).filter(|newer| {
                *newer != link && self.counted & (1 << newer) != 0 && self.comes_from(*newer, link)
            });
            // An unfenced activation is a declared fork: what both sides acknowledged is reported.
            let fenced = newer.filter(|newer| !self.declared_fork_between(link, *newer)).count();
            if fenced > 0 {
                self.break_rule(Broken::OlderCounted);
            }
            self.counted |= 1 << link;
        }
    }

    pub(super) fn declared_fork_between(&self, older: usize, mut newer: usize) -> bool {
        while newer != older {
            if self.links[newer].unfenced {
                return true;
            }
            newer = self.links[newer].parent;
        }
        false
    }

    pub(super) fn can_acknowledge(&self, node: usize) -> bool {
        let Node { gate: Some(gate), generation, link, forked: false, .. } = &*self.nodes[node]
        else {
            return false;
        };
        let voters = self.generations[*generation];
        if !self.runs(node) || voters & (1 << node) == 0 {
            return false;
        }
        let agree = bits(self.contacts(node) & voters).filter(|other| {
            self.nodes[*other].generation == *generation && self.nodes[*other].link == *link
        });
        let agree = agree.fold(0, |m, n| m | 1 << n);
        is_majority(agree, voters) && gate.permit(self.now, DatabaseId(16), None).is_ok()
    }

    // --- Messages -------------------------------------------------------------------------------

    pub(super) fn talk(&mut self) {
        for node in 0..NODES {
            if self.runs(node) {
                self.gate(node, gate::Input::Tick);
            }
        }
        self.compare_lineages();
        for group in 0..self.groups.len() {
            self.elect(group);
            self.lead(group);
        }
        // What was asked of somebody who does not answer is lost.
        for node in self.nodes.iter_mut().filter(|node| node.asked.is_some()) {
            node.asked = None;
        }
        self.look_at_gates();
        self.look_for_acknowledgements();
    }

    pub(super) fn compare_lineages(&mut self) {
        for node in 0..NODES {
            for other in bits(self.contacts(node) & !(1 << node)) {
                let peer = self.nodes[other].gate.as_ref().expect("it runs");
                let open_for = peer.opening().map(|(_, until)| until.saturating_sub(self.now));
                let chain = peer.chain().clone();
                let (id, lineage) = (number(other), chain.last());
                let asked = self.gate(node, gate::Input::Peer { node: id, lineage, open_for });
                if asked.contains(&gate::Action::AskChain(id)) {
                    self.gate(node, gate::Input::Chain(chain));
                }
                let gate = self.nodes[node].gate.as_ref().expect("it runs");
                if gate.closed(self.now).is_none() && self.nodes[node].granted.is_none() {
                    self.break_rule(Broken::WithoutGrant);
                }
            }
        }
    }

    /// A leader that lost its majority stays until another one is elected: openraft never steps
    /// down by itself.
    pub(super) fn elect(&mut self, group: usize) {
        if self.leader(group).is_some() {
            return;
        }
        let candidates = bits(self.groups[group].members).filter(|node| {
            let heard = self.members_heard(*node, group);
            let votes =
                bits(heard).filter(|voter| self.nodes[*voter].length <= self.nodes[*node].length);
            let votes = votes.fold(0, |m, n| m | 1 << n);
            self.runs(*node)
                && self.speaks_for(*node, group)
                && is_majority(votes, self.groups[group].members)
        });
        // The witness leads only where nobody else can.
        let Some(elected) = candidates.min_by_key(|node| (*node == WITNESS, *node)) else { return };
        let Group { term, leader, granter, .. } = &mut *self.groups[group];
        *term += 1;
        *leader = Some(elected);
        *granter = Some(Granter::take_office(self.now, number(elected), *term, TIMES));
    }

    pub(super) fn lead(&mut self, group: usize) {
        let Some(leader) = self.leader(group) else { return };
        self.commit(group, leader, |_| {});
        self.register_starts(group, leader);
        self.granter(group, leader, granter::Input::Tick);
        for node in bits(self.contacts(leader) & (SITE[0] | SITE[1])) {
            if !self.speaks_for(node, group) {
                continue;
            }
            self.gate(node, gate::Input::ControlLeader(Some(number(leader))));
            self.gate(node, gate::Input::Applied(self.registry(group)));
            if let Some((to, renewal)) = self.nodes[node].asked
                && place(to) == leader
            {
                self.nodes[node].asked = None;
                self.granter(group, leader, granter::Input::Renewal(renewal));
            }
        }
        self.end_fence(group, leader);
    }

    /// Commits a change on every node in contact.
    pub(super) fn commit(&mut self, group: usize, leader: usize, change: impl FnOnce(&mut Log)) {
        let before = self.groups[group].log;
        change(&mut self.groups[group].log);
        let log = &mut self.groups[group].log;
        if *log != before {
            log.length += 1;
        }
        let (length, registry) = (log.length, self.registry(group));
        for node in bits(self.contacts(leader)).collect::<Vec<_>>() {
            if self.speaks_for(node, group) {
                self.nodes[node].length = length;
                // The witness has no gate in the registry; it learns lineages in the same way.
                let out = self.gate(node, gate::Input::Applied(registry.clone()));
                drop(out);
            }
        }
    }

    pub(super) fn register_starts(&mut self, group: usize, leader: usize) {
        for node in bits(self.contacts(leader) & (SITE[0] | SITE[1])).collect::<Vec<_>>() {
            let boots = self.nodes[node].boots;
            if self.speaks_for(node, group) && boots > self.groups[group].log.boots[node] {
                self.commit(group, leader, |log| {
                    log.boots[node] = boots;
                    log.grants[node] = None;
                });
            }
        }
    }

    /// Hands something to the granter and carries out what comes back, to the end.
    pub(super) fn granter(&mut self, group: usize, leader: usize, input: granter::Input) {
        let mut todo = vec![input];
        while let Some(input) = todo.pop() {
            let (now, registry) = (self.now, self.registry(group));
            let Some(granter) = self.groups[group].granter.as_mut() else { return };
            for action in granter.step(now, &registry, input) {
                match action {
                    granter::Action::Ask(node, question) => {
                        let node = place(node);
                        if self.contacts(leader) & (1 << node) == 0 {
                            continue;
                        }
                        for answer in self.gate(node, gate::Input::Question(question)) {
                            if let gate::Action::Answer(_, answer) = answer {
                                todo.push(granter::Input::Answer(answer));
                            }
                        }
                    }
                    granter::Action::Round { node, request } => {
                        todo.push(granter::Input::RoundDone { node, request });
                    }
                    granter::Action::Record(opening) => {
                        let node = place(opening.holder.node);
                        self.commit(group, leader, |log| log.grants[node] = Some(opening.grant));
                        todo.push(granter::Input::Recorded(opening.grant));
                    }
                    granter::Action::Send(node, grant) => self.granted(place(node), grant),
                    granter::Action::Refuse(node, refusal) => {
                        self.gate(place(node), gate::Input::Refusal(refusal));
                    }
                }
            }
        }
    }

    pub(super) fn granted(&mut self, node: usize, grant: Grant) {
        let link = &mut self.links[self.nodes[node].link];
        let all_ended = link.held_until <= self.now;
        link.held_until = self.now + grant.ttl;
        self.nodes[node].granted = Some(grant.grant);
        self.nodes[node].allowed_until = self.now + grant.ttl;
        let out = self.gate(node, gate::Input::Grant(grant));
        let opened = out.iter().any(|action| matches!(action, gate::Action::Opened { .. }));
        if opened && all_ended {
            self.check_cold_opening(node);
        }
    }

    /// Nodes with an open gate in a lineage.
    pub(super) fn open_in(&self, link: usize) -> u8 {
        let open = (0..DATA).filter(|node| {
            let Node { gate, link: own, .. } = &*self.nodes[*node];
            *own == link && gate.as_ref().is_some_and(|gate| gate.closed(self.now).is_none())
        });
        open.fold(0, |m, n| m | 1 << n)
    }

    /// Where all leases of a lineage have ended, nothing may open in it any more once another site
    /// was activated out of it.
    pub(super) fn check_cold_opening(&mut self, node: usize) {
        let link = self.nodes[node].link;
        let group = self.links[link].group;
        let stopped = self.groups[group].log.stopped;
        let given_up = (link + 1..self.links.len()).any(|other| {
            let Link { unfenced, site, .. } = *self.links[other];
            unfenced && !stopped[site] && !self.comes_from(link, other)
        });
        if given_up {
            self.break_rule(Broken::ColdOpening);
        }
    }

    // --- Activations ----------------------------------------------------------------------------

    pub(super) fn new_link(
        &mut self,
        parent: usize,
        kind: LineageKind,
        site: usize,
        group: usize,
    ) -> usize {
        let chain = &self.links[parent].chain;
        let id = ActivationId([self.links.len() as u8 + 1; 16]);
        let lineage = Lineage { epoch: chain.last().epoch + 1, activation: id };
        let link = LineageStep { lineage, kind, rejected: Vec::new() };
        let chain = chain.extended(link).expect("epochs count up");
        let unfenced = kind == LineageKind::ActivateUnfenced;
        let held_until = Millis(0);
        let link = Link { chain, parent, unfenced, site, group, held_until };
        self.links.push(Shared::new(link));
        self.links.len() - 1
    }

    pub(super) fn activate_fenced(&mut self, site: usize) -> Option<()> {
        let group = (0..self.groups.len()).find(|group| self.leader(*group).is_some())?;
        let leader = self.leader(group)?;
        let log = self.groups[group].log;
        let other = 1 - site;
        let heard = self.contacts(leader);
        // Refused while a node of the other site is heard: it would be stopped instead.
        let silent = heard & SITE[other] == 0;
        if log.stopped != [false; 2] || !silent || heard & SITE[site] == 0 {
            return None;
        }
        let link = self.new_link(log.link, LineageKind::ActivateFenced, site, group);
        self.groups[group].members &= !SITE[other];
        self.commit(group, leader, |log| {
            log.link = link;
            log.stopped[other] = true;
            log.fencing = true;
        });
        Some(())
    }

    /// No re-forming before the fence has passed.
    pub(super) fn end_fence(&mut self, group: usize, leader: usize) {
        let log = self.groups[group].log;
        if !log.fencing {
            return;
        }
        let site = self.links[log.link].site;
        let others: Vec<NodeId> = bits(SITE[1 - site]).map(number).collect();
        let granter = self.groups[group].granter.as_ref().expect("a leader has one");
        if granter.fence(self.now, &others) != Fence::Passed {
            return;
        }
        let survivors = self.contacts(leader) & SITE[site];
        let survivors =
            bits(survivors).filter(|n| self.nodes[*n].link == log.link).fold(0, |m, n| m | 1 << n);
        if survivors != 0 {
            self.re_form(survivors);
            self.commit(group, leader, |log| log.fencing = false);
        }
    }

    pub(super) fn re_form(&mut self, voters: u8) {
        self.generations.push(voters);
        for node in bits(voters) {
            self.nodes[node].generation = self.generations.len() - 1;
        }
    }

    pub(super) fn activate_unfenced(&mut self, site: usize) -> Option<()> {
        let first = bits(SITE[site]).find(|node| self.runs(*node) && !self.nodes[*node].forked)?;
        let parts: Vec<usize> =
            bits(self.contacts(first)).filter(|node| !self.nodes[*node].forked).collect();
        let mask = parts.iter().fold(0, |m, n| m | 1 << n);
        if !is_majority(mask, SITE[site]) || self.groups.len() > 2 {
            return None;
        }
        // With a control majority the fenced verb is the one to use.
        let majority = (0..self.groups.len()).any(|group| {
            let members = parts.iter().filter(|node| self.speaks_for(**node, group));
            let members = members.fold(0, |m, n| m | 1 << n);
            is_majority(members, self.groups[group].members)
        });
        let activation = ActivationId([self.links.len() as u8 + 1; 16]);
        let ids: Vec<NodeId> = parts.iter().map(|node| number(*node)).collect();
        let refused = parts.iter().any(|node| {
            let gate = self.nodes[*node].gate.as_ref().expect("it runs");
            !gate.reasons_against_part(self.now, activation, &ids).is_empty()
        });
        let newest = parts.iter().map(|node| self.nodes[*node].link).max()?;
        let apart = parts.iter().any(|node| !self.comes_from(newest, self.nodes[*node].link));
        if majority || refused || apart {
            return None;
        }
        self.complete_unfenced(site, newest, &parts, activation, ids);
        Some(())
    }

    pub(super) fn complete_unfenced(
        &mut self,
        site: usize,
        parent: usize,
        parts: &[usize],
        activation: ActivationId,
        ids: Vec<NodeId>,
    ) {
        for node in parts {
            let participants = ids.clone();
            self.gate(*node, gate::Input::TakePart { activation, participants });
        }
        let group = self.groups.len();
        let link = self.new_link(parent, LineageKind::ActivateUnfenced, site, group);
        let members = parts.iter().fold(0, |m, n| m | 1 << n);
        let mut stopped = [true; 2];
        stopped[site] = false;
        let log = Log {
            length: 1,
            link,
            stopped,
            boots: core::array::from_fn(|node| self.nodes[node].boots),
            grants: [None; DATA],
            fencing: false,
        };
        self.groups.push(Shared::new(Group { members, term: 0, leader: None, granter: None, log }));
        let chain = self.links[link].chain.clone();
        for node in parts {
            self.gate(*node, gate::Input::Chain(chain.clone()));
            self.nodes[*node].group = group;
            self.nodes[*node].length = 1;
        }
        self.re_form(members & SITE[site]);
    }

    pub(super) fn start_site(&mut self, site: usize) -> Option<()> {
        let group = (0..self.groups.len()).find(|group| self.leader(*group).is_some())?;
        let leader = self.leader(group)?;
        let log = self.groups[group].log;
        let back = bits(self.contacts(leader) & SITE[site])
            .filter(|node| self.nodes[*node].link == log.link && !self.nodes[*node].forked);
        let back = back.fold(0, |m, n| m | 1 << n);
        if !log.stopped[site] || log.fencing || !is_majority(back, SITE[site]) {
            return None;
        }
        let link = self.new_link(log.link, LineageKind::Start, self.links[log.link].site, group);
        for node in bits(back) {
            self.nodes[node].group = group;
        }
        self.groups[group].members |= back;
        self.commit(group, leader, |log| {
            log.link = link;
            log.stopped = [false; 2];
        });
        Some(())
    }

    // --- Faults ---------------------------------------------------------------------------------

    pub(super) fn power_lost(&mut self, mask: u8) {
        for node in bits(mask) {
            let Node { gate, paused, granted, allowed_until, .. } = &mut *self.nodes[node];
            *gate = None;
            *paused = false;
            *granted = None;
            *allowed_until = Millis(0);
            for group in &mut self.groups {
                if group.leader == Some(node) {
                    group.leader = None;
                    group.granter = None;
                }
            }
        }
    }

    pub(super) fn started(&mut self, mask: u8) {
        for node in bits(mask) {
            self.nodes[node].boots += 1;
            let Node { link, boots, .. } = *self.nodes[node];
            let saved = Saved { chain: self.links[link].chain.clone(), promise: None };
            let gate = DacGate::at_boot(self.now, holder(node, boots), TIMES, saved);
            if gate.closed(self.now).is_none() {
                self.break_rule(Broken::OpenAtStart);
            }
            self.nodes[node].gate = Some(gate);
        }
    }

    pub(super) fn time_passes(&mut self, halves: u64) {
        for _ in 0..halves {
            self.now = self.now + STEP;
            self.talk();
        }
    }
}
