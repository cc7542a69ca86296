//! What an operation carries out that lets a node join, take a lost node's place, or follow the
//! witness: its steps in their order, and what takes them back. From the plan and the record alone.

use active_manager::control::{Operation, OperationKind};
use active_manager::course::{Next, Row, UNDO};
use serde::{Deserialize, Serialize};

use super::plan::list;

/// See [`super::plan::Plan::Join`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Of whoever asked; a repetition finds the operation by it.
    pub request: String,
    pub place: Place,
    pub node: u64,
    pub name: String,
    pub site: String,
    pub witness: bool,
    pub peer_address: String,
    pub client_address: String,
    pub admin_address: String,
    /// Sixteen bytes.
    pub store: Vec<u8>,
    /// Of the gate of the store that is given up: term and number of its last opening.
    pub opening: (u64, u64),
    /// It is a member already, and only copies are missing.
    pub settled: bool,
    /// The nodes that vote in the control group with it; empty: they stay.
    pub voters: Vec<u64>,
    /// Those that voted before.
    pub earlier_voters: Vec<u64>,
    /// Databases that get a copy there, and their names: the directory, and those that the lost
    /// store had.
    pub copies: Vec<(u64, String)>,
}

/// Whose place a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Nobody's.
    New,
    /// That of the same node with a lost store.
    Store,
    /// That of this witness.
    Witness(u64),
}

/// A step of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinStep {
    /// The control log has it, as joining.
    Admit,
    /// It does not join after all.
    Dismiss,
    /// It is told which DAG it belongs to.
    Form,
    /// It has the control log, and its site's list counts with it.
    CatchUp,
    /// These nodes vote in the control group.
    Voters(Vec<u64>),
    /// The witness whose place it took is gone.
    Retire(u64),
    /// It is a member like all others.
    Settle,
    /// It has a copy of this database.
    Copy(u64),
}

impl Join {
    /// What it is on record as.
    pub fn kind(&self) -> OperationKind {
        match self.place {
            Place::New => OperationKind::JoinNode,
            Place::Store => OperationKind::ReplaceNode,
            Place::Witness(_) => OperationKind::ReplaceWitness,
        }
    }

    fn forward(&self) -> Vec<JoinStep> {
        let copies = self.copies.iter().map(|(database, _)| JoinStep::Copy(*database));
        if self.settled {
            return copies.collect();
        }
        let mut steps = vec![JoinStep::Admit, JoinStep::Form, JoinStep::CatchUp];
        if !self.voters.is_empty() {
            steps.push(JoinStep::Voters(self.voters.clone()));
        }
        if let Place::Witness(old) = self.place {
            steps.push(JoinStep::Retire(old));
        }
        steps.push(JoinStep::Settle);
        steps.extend(copies);
        steps
    }

    /// What takes a step back. A store that was given up never comes back, and what is settled stays.
    fn back(&self, step: &JoinStep) -> Option<JoinStep> {
        if self.place == Place::Store {
            return None;
        }
        match step {
            JoinStep::Admit => Some(JoinStep::Dismiss),
            JoinStep::Voters(_) => Some(JoinStep::Voters(self.earlier_voters.clone())),
            _ => None,
        }
    }

    /// A step for people, as its record has it.
    pub fn step_words(&self, step: &JoinStep, undoes: bool) -> String {
        let name = &self.name;
        let undo = if undoes { UNDO } else { "" };
        match step {
            JoinStep::Admit => match self.place {
                Place::Store => format!("give the lost store of {name} up for the new one"),
                Place::New => format!("put {name} on the list of site {}", self.site),
                Place::Witness(old) => {
                    format!("admit {name} as the witness that follows node {old}")
                }
            },
            JoinStep::Dismiss => format!("{undo}take {name} off again"),
            JoinStep::Form => format!("tell {name} which DAG it belongs to"),
            JoinStep::CatchUp => format!("wait until {name} has the control group's log"),
            JoinStep::Voters(nodes) => {
                format!("{undo}make nodes {} the voters of the control group", list(nodes))
            }
            JoinStep::Retire(old) => format!("remove the witness, node {old}"),
            JoinStep::Settle => format!("{name} is a member like all others"),
            JoinStep::Copy(database) => {
                let known = self.copies.iter().find(|(known, _)| known == database);
                let copied = known.map_or("?", |(_, name)| name);
                format!("build a copy of {copied} on {name}")
            }
        }
    }

    /// All steps for people, in their order.
    pub fn all_words(&self) -> Vec<String> {
        self.forward().iter().map(|step| self.step_words(step, false)).collect()
    }

    /// What comes next, from the plan and the record alone.
    pub fn next(&self, known: &Operation) -> Next<JoinStep> {
        let settle = [JoinStep::Settle, self.retire()].map(|step| self.step_words(&step, false));
        // Once the old witness is gone, or the node is settled, there is no way back.
        let begun = |what: &String| known.steps.iter().any(|step| step.what == *what);
        let stays = self.settled || settle.iter().any(begun);
        let back = |step: &JoinStep| self.back(step).filter(|_| !stays);
        let row = Row { forward: self.forward(), back, halves: true };
        let name = &self.name;
        let reached = match self.place {
            Place::New => format!("{name} is a member"),
            Place::Store => format!("{name} is back with a new store"),
            Place::Witness(old) => format!("{name} is the witness in the place of node {old}"),
        };
        let unwanted = match stays || self.place == Place::Store {
            true => format!("{name} stays as it is; the same command again goes on"),
            false => format!("{name} does not join"),
        };
        row.next(known, reached, unwanted)
    }

    fn retire(&self) -> JoinStep {
        match self.place {
            Place::Witness(old) => JoinStep::Retire(old),
            Place::New | Place::Store => JoinStep::Settle,
        }
    }
}

#[cfg(test)]
mod tests {
    use active_manager::control::{OperationState, StepRecord};

    use super::*;

    fn planned(place: Place) -> Join {
        Join {
            request: "r".into(),
            place,
            node: 6,
            name: "a6".into(),
            site: "A".into(),
            witness: false,
            peer_address: String::new(),
            client_address: String::new(),
            admin_address: String::new(),
            store: vec![6; 16],
            opening: (0, 0),
            settled: false,
            voters: vec![1, 2, 6],
            earlier_voters: vec![1, 2, 3],
            copies: vec![(2, "directory".into())],
        }
    }

    /// Plays an operation, in which the step with this number fails, to its end.
    fn played(planned: &Join, fails: usize) -> (Vec<String>, OperationState) {
        let mut known = Operation::default();
        loop {
            match planned.next(&known) {
                Next::End { state, .. } => {
                    return (known.steps.into_iter().map(|step| step.what).collect(), state);
                }
                Next::Send { number, step, undoes } => known.steps.push(StepRecord {
                    step: number,
                    what: planned.step_words(&step, undoes),
                    ended_ms: 1,
                    succeeded: number as usize != fails,
                    ..StepRecord::default()
                }),
            }
        }
    }

    #[test]
    fn steps_go_forward_and_are_written_as_they_are_planned() {
        for (place, count) in [(Place::New, 6), (Place::Store, 6), (Place::Witness(5), 7)] {
            let planned = planned(place);
            let (steps, state) = played(&planned, 0);
            assert_eq!((steps.len(), state), (count, OperationState::Done), "{steps:?}");
            assert_eq!(steps, planned.all_words());
        }
    }

    #[test]
    fn what_fails_before_it_is_settled_is_taken_back_and_nothing_after_that() {
        let (steps, state) = played(&planned(Place::New), 4);
        assert_eq!(state, OperationState::Failed);
        let undone: Vec<&String> = steps.iter().filter(|step| step.starts_with(UNDO)).collect();
        assert_eq!(undone.len(), 2, "voters and admission: {steps:?}");
        assert!(undone[0].contains("1, 2, 3") && undone[1].contains("take a6 off"), "{steps:?}");
        for (place, fails) in [(Place::New, 5), (Place::New, 6), (Place::Witness(5), 5)] {
            let (steps, state) = played(&planned(place), fails);
            assert_eq!(state, OperationState::Failed);
            assert_eq!(steps.len(), fails, "the node stays: {steps:?}");
        }
    }

    #[test]
    fn a_lost_store_is_never_taken_back() {
        for fails in 1..=6 {
            let (steps, state) = played(&planned(Place::Store), fails);
            assert_eq!((steps.len(), state), (fails, OperationState::Failed), "{steps:?}");
        }
    }
}
