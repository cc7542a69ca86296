//! Messages about gates: from `dac` to the wire and back.
//!
//! Who sent a message is what its stream opened with, never what the message says: a renewal or an
//! answer is taken as that node's, of that disk and that start.

use bytes::Bytes;
use dac::message::{Answer, Grant, Holder, NotGranted, Question, QuestionId, Refusal, Renewal};
use dag_api::peer::v1 as pb;
use dag_api::peer::v1::GateRefusalReason as Reason;
use dag_api::peer::v1::gate_message::Message;
use dag_format::links;
use dag_types::{ActivationId, Boot, GrantId, Lineage, LineageChain, Millis, NodeId, StoreId};
use replication::peer::PeerIdentity;

/// A message that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    Renewal(Renewal),
    Grant(Grant),
    Refusal(Refusal),
    Question(Question),
    Answer(Answer),
    AskLineage,
    Lineage(LineageChain),
}

/// Reads a message of this sender; none for one that is malformed or of a newer version.
pub fn read(from: &PeerIdentity, message: pb::GateMessage) -> Option<Read> {
    let holder = Holder { node: from.node, store: from.store, boot: from.boot };
    Some(match message.message? {
        Message::Renewal(renewal) => Read::Renewal(Renewal {
            request: renewal.request,
            holder,
            lineage: lineage(renewal.lineage)?,
            holds: renewal.opening.map(grant_id),
        }),
        Message::Grant(grant) => Read::Grant(read_grant(grant)?),
        Message::Refusal(refusal) => Read::Refusal(read_refusal(refusal)?),
        Message::Question(question) => Read::Question(Question {
            id: QuestionId { term: question.control_term, number: question.number },
            from: from.node,
            lineage: lineage(question.lineage)?,
        }),
        Message::Answer(answer) => Read::Answer(Answer {
            id: QuestionId { term: answer.control_term, number: answer.number },
            holder,
            lineage: lineage(answer.lineage)?,
            held: answer.left_ms.map(Millis),
        }),
        Message::AskLineage(_) => Read::AskLineage,
        Message::Lineage(chain) => {
            Read::Lineage(links::chain_of(lineage(chain.last)?, &chain.links).ok()?)
        }
    })
}

fn read_grant(grant: pb::GateGrant) -> Option<Grant> {
    Some(Grant {
        request: grant.request,
        // Set to the reader by whoever reads it: see `addressed`.
        holder: Holder {
            node: NodeId::default(),
            store: StoreId::from_slice(&grant.store)?,
            boot: Boot { counter: grant.boot_counter, id: grant.boot_id },
        },
        lineage: lineage(grant.lineage)?,
        grant: grant_id(grant.opening?),
        ttl: Millis(grant.ttl_ms),
    })
}

/// A grant that arrived at this node. The disk and the start that it names stay as they came.
pub fn addressed(grant: Grant, own: NodeId) -> Grant {
    Grant { holder: Holder { node: own, ..grant.holder }, ..grant }
}

fn read_refusal(refusal: pb::GateRefusal) -> Option<Refusal> {
    let node = NodeId(refusal.node);
    let detail = refusal.detail.clone();
    let boot =
        |boot: Option<pb::GateBoot>| boot.map(|boot| Boot { counter: boot.counter, id: boot.id });
    let why = match refusal.reason() {
        Reason::Unspecified => return None,
        Reason::UnknownNode => NotGranted::UnknownNode(node),
        Reason::UnknownStore => NotGranted::UnknownStore(node),
        Reason::BootNotRegistered => NotGranted::BootNotRegistered {
            node,
            asked: boot(refusal.asked_boot)?,
            registered: boot(refusal.registered_boot)?,
        },
        Reason::OtherLineage => NotGranted::OtherLineage {
            asked: lineage(refusal.asked_lineage)?,
            current: lineage(refusal.lineage)?,
        },
        Reason::SiteStopped => NotGranted::SiteStopped(detail),
        Reason::NotConfirmed => NotGranted::NotConfirmed(detail),
        Reason::NotTheLastOpening => NotGranted::NotTheLastOpening(grant_id(refusal.opening?)),
    };
    Some(Refusal { request: refusal.request, why })
}

pub fn renewal(renewal: &Renewal) -> pb::GateMessage {
    envelope(Message::Renewal(pb::GateRenewal {
        request: renewal.request,
        lineage: wire_lineage(renewal.lineage),
        opening: renewal.holds.map(wire_grant),
    }))
}

pub fn grant(grant: &Grant) -> pb::GateMessage {
    envelope(Message::Grant(pb::GateGrant {
        request: grant.request,
        lineage: wire_lineage(grant.lineage),
        opening: Some(wire_grant(grant.grant)),
        ttl_ms: grant.ttl.0,
        store: Bytes::copy_from_slice(&grant.holder.store.0),
        boot_counter: grant.holder.boot.counter,
        boot_id: grant.holder.boot.id,
    }))
}

pub fn refusal(refusal: &Refusal) -> pb::GateMessage {
    let mut wire = pb::GateRefusal { request: refusal.request, ..pb::GateRefusal::default() };
    let boot = |boot: &Boot| Some(pb::GateBoot { counter: boot.counter, id: boot.id });
    let reason = match &refusal.why {
        NotGranted::UnknownNode(node) => {
            wire.node = node.0;
            Reason::UnknownNode
        }
        NotGranted::UnknownStore(node) => {
            wire.node = node.0;
            Reason::UnknownStore
        }
        NotGranted::BootNotRegistered { node, asked, registered } => {
            (wire.node, wire.asked_boot) = (node.0, boot(asked));
            wire.registered_boot = boot(registered);
            Reason::BootNotRegistered
        }
        NotGranted::OtherLineage { asked, current } => {
            wire.asked_lineage = wire_lineage(*asked);
            wire.lineage = wire_lineage(*current);
            Reason::OtherLineage
        }
        NotGranted::SiteStopped(site) => {
            wire.detail.clone_from(site);
            Reason::SiteStopped
        }
        NotGranted::NotConfirmed(words) => {
            wire.detail.clone_from(words);
            Reason::NotConfirmed
        }
        NotGranted::NotTheLastOpening(grant) => {
            wire.opening = Some(wire_grant(*grant));
            Reason::NotTheLastOpening
        }
    };
    wire.reason = reason.into();
    envelope(Message::Refusal(wire))
}

pub fn question(question: &Question) -> pb::GateMessage {
    envelope(Message::Question(pb::GateQuestion {
        control_term: question.id.term,
        number: question.id.number,
        lineage: wire_lineage(question.lineage),
    }))
}

pub fn answer(answer: &Answer) -> pb::GateMessage {
    envelope(Message::Answer(pb::GateAnswer {
        control_term: answer.id.term,
        number: answer.id.number,
        lineage: wire_lineage(answer.lineage),
        left_ms: answer.held.map(|left| left.0),
    }))
}

pub fn ask_lineage() -> pb::GateMessage {
    envelope(Message::AskLineage(pb::LineageAsk {}))
}

pub fn chain(chain: &LineageChain) -> pb::GateMessage {
    let (last, links) = (wire_lineage(chain.last()), links::beside(chain));
    envelope(Message::Lineage(pb::LineageChain { last, links }))
}

fn envelope(message: Message) -> pb::GateMessage {
    pb::GateMessage { message: Some(message) }
}

fn grant_id(wire: pb::GrantId) -> GrantId {
    GrantId { term: wire.term, number: wire.number }
}

fn wire_grant(grant: GrantId) -> pb::GrantId {
    pb::GrantId { term: grant.term, number: grant.number }
}

fn lineage(wire: Option<pb::Lineage>) -> Option<Lineage> {
    let wire = wire?;
    let activation = ActivationId::from_slice(&wire.activation)?;
    Some(Lineage { epoch: wire.epoch, activation })
}

fn wire_lineage(lineage: Lineage) -> Option<pb::Lineage> {
    let activation = Bytes::copy_from_slice(&lineage.activation.0);
    Some(pb::Lineage { epoch: lineage.epoch, activation })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAGE: Lineage = Lineage { epoch: 1, activation: ActivationId([4; 16]) };
    const BOOT: Boot = Boot { counter: 3, id: 33 };
    const GRANT: GrantId = GrantId { term: 9, number: 2 };

    fn sender() -> PeerIdentity {
        let (node, store) = (NodeId(2), StoreId([2; 16]));
        PeerIdentity { lineage: LINEAGE, node, store, boot: BOOT, ..PeerIdentity::default() }
    }

    fn holder() -> Holder {
        Holder { node: NodeId(2), store: StoreId([2; 16]), boot: BOOT }
    }

    fn back(message: pb::GateMessage) -> Read {
        read(&sender(), message).expect("readable")
    }

    #[test]
    fn what_holder_and_granter_say_survives_the_wire() {
        for holds in [None, Some(GRANT)] {
            let said = Renewal { request: 5, holder: holder(), lineage: LINEAGE, holds };
            assert_eq!(back(renewal(&said)), Read::Renewal(said));
        }
        let id = QuestionId { term: 9, number: 7 };
        let said = Question { id, from: NodeId(2), lineage: LINEAGE };
        assert_eq!(back(question(&said)), Read::Question(said));
        for held in [None, Some(Millis(0)), Some(Millis(5))] {
            let said = Answer { id, holder: holder(), lineage: LINEAGE, held };
            assert_eq!(back(answer(&said)), Read::Answer(said));
        }
        let said = Grant {
            request: 5,
            holder: holder(),
            lineage: LINEAGE,
            grant: GRANT,
            ttl: Millis(8000),
        };
        let Read::Grant(read) = back(grant(&said)) else { panic!("a grant") };
        assert_eq!(addressed(read, NodeId(2)), said);
        let said = LineageChain::first(LINEAGE.activation);
        assert_eq!(back(chain(&said)), Read::Lineage(said));
        assert_eq!(back(ask_lineage()), Read::AskLineage);
    }

    #[test]
    fn every_refusal_survives_the_wire_with_its_facts() {
        let other = Lineage { epoch: 2, activation: ActivationId([5; 16]) };
        let registered = Boot { counter: 4, id: 44 };
        for why in [
            NotGranted::UnknownNode(NodeId(2)),
            NotGranted::UnknownStore(NodeId(2)),
            NotGranted::BootNotRegistered { node: NodeId(2), asked: BOOT, registered },
            NotGranted::OtherLineage { asked: LINEAGE, current: other },
            NotGranted::SiteStopped("alpha".into()),
            NotGranted::NotConfirmed("site beta is silent".into()),
            NotGranted::NotTheLastOpening(GRANT),
        ] {
            let said = Refusal { request: 5, why };
            assert_eq!(back(refusal(&said)), Read::Refusal(said));
        }
    }

    #[test]
    fn a_message_without_its_facts_says_nothing() {
        let empty = [
            Message::Renewal(pb::GateRenewal::default()),
            Message::Grant(pb::GateGrant::default()),
            Message::Refusal(pb::GateRefusal::default()),
            Message::Question(pb::GateQuestion::default()),
            Message::Answer(pb::GateAnswer::default()),
            Message::Lineage(pb::LineageChain::default()),
        ];
        for message in empty {
            assert_eq!(read(&sender(), envelope(message)), None);
        }
        assert_eq!(read(&sender(), pb::GateMessage::default()), None);
    }
}
