//! Messages about gates: from `dac` to the wire and back.
//!
//! Who sent a message is what its stream opened with, never what the message says: a renewal or an
//! answer is taken as that node's, of that disk and that start.

use bytes::Bytes;
use dac::message::{
    Answer, Grant, Holder, Message, NotGranted, Question, QuestionId, Refusal, Renewal,
};
use dag_api::peer::v1 as pb;
use dag_api::peer::v1::GateRefusalReason as Reason;
use dag_api::peer::v1::gate_message::Message as Wire;
use dag_format::links;
use dag_types::{ActivationId, Boot, GrantId, Lineage, LineageChain, Millis, NodeId, StoreId};

use crate::peer::PeerIdentity;

/// Reads a message of this sender to the node `own`; none for one that is malformed or of a newer
/// version.
pub fn read(from: &PeerIdentity, own: NodeId, message: pb::GateMessage) -> Option<Message> {
    let holder = Holder { node: from.node, store: from.store, boot: from.boot };
    Some(match message.message? {
        Wire::Renewal(renewal) => Message::Renewal(Renewal {
            request: renewal.request,
            holder,
            lineage: lineage(renewal.lineage)?,
            holds: renewal.opening.map(grant_id),
        }),
        Wire::Grant(grant) => Message::Grant(read_grant(own, grant)?),
        Wire::Refusal(refusal) => Message::Refusal(read_refusal(refusal)?),
        Wire::Question(question) => Message::Question(Question {
            id: QuestionId { term: question.control_term, number: question.number },
            from: from.node,
            lineage: lineage(question.lineage)?,
        }),
        Wire::Answer(answer) => Message::Answer(Answer {
            id: QuestionId { term: answer.control_term, number: answer.number },
            holder,
            lineage: lineage(answer.lineage)?,
            held: answer.left_ms.map(Millis),
        }),
        Wire::AskLineage(_) => Message::AskLineage,
        Wire::Lineage(chain) => {
            Message::Lineage(links::chain_of(lineage(chain.last)?, &chain.links).ok()?)
        }
    })
}

/// A message as it travels.
pub fn write(message: &Message) -> pb::GateMessage {
    let message = match message {
        Message::Renewal(said) => renewal(said),
        Message::Grant(said) => grant(said),
        Message::Refusal(said) => refusal(said),
        Message::Question(said) => question(said),
        Message::Answer(said) => answer(said),
        Message::AskLineage => Wire::AskLineage(pb::LineageAsk {}),
        Message::Lineage(said) => chain(said),
    };
    pb::GateMessage { message: Some(message) }
}

/// A grant that arrived is for the node that it arrived at. The disk and the start that it names stay
/// as they came.
fn read_grant(own: NodeId, grant: pb::GateGrant) -> Option<Grant> {
    Some(Grant {
        request: grant.request,
        holder: Holder {
            node: own,
            store: StoreId::from_slice(&grant.store)?,
            boot: Boot { counter: grant.boot_counter, id: grant.boot_id },
        },
        lineage: lineage(grant.lineage)?,
        grant: grant_id(grant.opening?),
        ttl: Millis(grant.ttl_ms),
    })
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

fn renewal(renewal: &Renewal) -> Wire {
    Wire::Renewal(pb::GateRenewal {
        request: renewal.request,
        lineage: wire_lineage(renewal.lineage),
        opening: renewal.holds.map(wire_grant),
    })
}

fn grant(grant: &Grant) -> Wire {
    Wire::Grant(pb::GateGrant {
        request: grant.request,
        lineage: wire_lineage(grant.lineage),
        opening: Some(wire_grant(grant.grant)),
        ttl_ms: grant.ttl.0,
        store: Bytes::copy_from_slice(&grant.holder.store.0),
        boot_counter: grant.holder.boot.counter,
        boot_id: grant.holder.boot.id,
    })
}

fn refusal(refusal: &Refusal) -> Wire {
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
    Wire::Refusal(wire)
}

fn question(question: &Question) -> Wire {
    Wire::Question(pb::GateQuestion {
        control_term: question.id.term,
        number: question.id.number,
        lineage: wire_lineage(question.lineage),
    })
}

fn answer(answer: &Answer) -> Wire {
    Wire::Answer(pb::GateAnswer {
        control_term: answer.id.term,
        number: answer.id.number,
        lineage: wire_lineage(answer.lineage),
        left_ms: answer.held.map(|left| left.0),
    })
}

fn chain(chain: &LineageChain) -> Wire {
    let (last, links) = (wire_lineage(chain.last()), links::beside(chain));
    Wire::Lineage(pb::LineageChain { last, links })
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

    fn survives(said: Message) {
        assert_eq!(read(&sender(), holder().node, write(&said)), Some(said));
    }

    #[test]
    fn what_holder_and_granter_say_survives_the_wire() {
        for holds in [None, Some(GRANT)] {
            let request = 5;
            let said = Renewal { request, holder: holder(), lineage: LINEAGE, holds };
            survives(Message::Renewal(said));
        }
        let id = QuestionId { term: 9, number: 7 };
        survives(Message::Question(Question { id, from: NodeId(2), lineage: LINEAGE }));
        for held in [None, Some(Millis(0)), Some(Millis(5))] {
            let said = Answer { id, holder: holder(), lineage: LINEAGE, held };
            survives(Message::Answer(said));
        }
        survives(Message::Grant(Grant {
            request: 5,
            holder: holder(),
            lineage: LINEAGE,
            grant: GRANT,
            ttl: Millis(8000),
        }));
        survives(Message::Lineage(LineageChain::first(LINEAGE.activation)));
        survives(Message::AskLineage);
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
            survives(Message::Refusal(Refusal { request: 5, why }));
        }
    }

    #[test]
    fn a_message_without_its_facts_says_nothing() {
        let empty = [
            Wire::Renewal(pb::GateRenewal::default()),
            Wire::Grant(pb::GateGrant::default()),
            Wire::Refusal(pb::GateRefusal::default()),
            Wire::Question(pb::GateQuestion::default()),
            Wire::Answer(pb::GateAnswer::default()),
            Wire::Lineage(pb::LineageChain::default()),
        ];
        let empty = empty.into_iter().map(Some).chain([None]);
        for message in empty.map(|message| pb::GateMessage { message }) {
            assert_eq!(read(&sender(), NodeId(2), message), None);
        }
    }
}
