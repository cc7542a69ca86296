//! The loop that makes a simulated node hold the copies that the control log gives it: the daemon's own
//! decisions ([`crate::daemon::plan`]), for the mailbox databases. The control group's copies and the
//! first start of all are the run's own business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use active_manager::control::ControlState;
use dag_types::{DatabaseId, NodeId, ReplicaId};
use openraft_rt::AsyncRuntime;
use replication::{Group, Member, Role};
use seeding::SeedFault;
use seeding::install::{self, InstallOrder};
use seeding::target::seed_folder;
use storage::copy_directory::{CopyDirectory, OpenFault};
use storage::state::{StateEngine, applied};
use tokio::time::Instant;

use crate::daemon::plan::{self, Action, Place, Running, Situation};
use crate::formation::Formation;
use crate::giver::content;
use crate::node::{Assigned, Rt, Shared, store};
use crate::seeds::SeedNote;
use crate::world::lock;

/// How often it is looked at what the control log says.
const LOOK: Duration = Duration::from_millis(10);
/// How long a step that needs a quorum may take.
const STEP: Duration = Duration::from_millis(1_500);
/// How long a copy that could not be opened for a passing reason is left alone.
const AGAIN: Duration = Duration::from_millis(100);

/// Drives a node until its life ends.
pub async fn keep(shared: Arc<Shared>) {
    let mut driver = Driver { shared, changing: Arc::default(), not_before: BTreeMap::new() };
    loop {
        tokio::time::sleep(LOOK).await;
        let control = driver.shared.state().control.clone();
        if let Some(control) = control {
            driver.act(&control).await;
        }
    }
}

struct Driver {
    shared: Arc<Shared>,
    /// Databases whose members a task is changing.
    changing: Arc<Mutex<BTreeSet<DatabaseId>>>,
    /// When a copy is tried again.
    not_before: BTreeMap<DatabaseId, Instant>,
}

/// What of a group's members changes.
enum Change {
    Learners(BTreeMap<ReplicaId, Member>),
    Voters(BTreeSet<ReplicaId>),
    Removed(BTreeSet<ReplicaId>),
}

impl Driver {
    async fn act(&mut self, control: &ControlState) {
        let seeded = |group: &Group| {
            let database = group.spec().database;
            control.seeds.iter().any(|seed| seed.database() == database)
        };
        self.shared.groups().iter().for_each(|group| group.keep_log(seeded(group)));
        let running = self.running();
        let failed = self.failed();
        let actions = plan::decide(&Situation {
            node: NodeId(self.shared.node),
            store: store(self.shared.node),
            formation: &Formation,
            control: Some(control),
            read_in: 0,
            running: &running,
            failed: &failed,
            held: &BTreeSet::new(),
            seen: &BTreeMap::new(),
        });
        for action in actions {
            self.perform(action).await;
        }
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::Start { database, generation, replica, seeded, .. } if is_mail(database) => {
                let due = self.not_before.get(&database).is_none_or(|at| *at <= Instant::now());
                if due {
                    let assigned = Assigned { replica, generation, born: true };
                    self.start(database, assigned, seeded).await;
                }
            }
            Action::Stop { database } if is_mail(database) => {
                self.shared.close(database).await;
                let mut state = self.shared.state();
                state.failed.remove(&database);
                state.barred.remove(&database);
            }
            Action::AddLearners { database, learners } if is_mail(database) => {
                let member = |place: &Place| (place.replica, Member { node: place.node });
                self.change(database, Change::Learners(learners.iter().map(member).collect()));
            }
            Action::ChangeVoters { database, voters } if is_mail(database) => {
                self.change(database, Change::Voters(voters));
            }
            Action::RemoveLearners { database, learners } if is_mail(database) => {
                self.change(database, Change::Removed(learners));
            }
            // Groups are formed, and starts registered, elsewhere in a run.
            _ => {}
        }
    }

    async fn start(&mut self, database: DatabaseId, assigned: Assigned, seeded: bool) {
        let Some(place) = self.shared.place() else { return };
        let Assigned { replica, generation, .. } = assigned;
        if !seeded {
            let born = place.root.remembered(database, replica).is_some();
            return self.shared.open(database, Assigned { born, ..assigned }).await;
        }
        let identity = place.root.copy_identity(database, generation, replica);
        let copies = place.of(database);
        let staged = seed_folder(&copies.folder, replica);
        let order = InstallOrder { place: copies, identity, staged, vote: None };
        match install_copy(&order, &*place.engine) {
            Ok((directory, installed)) => {
                if installed {
                    let rows = directory.state.snapshot();
                    let at = applied(&*rows).ok().flatten().map(|(at, _)| at);
                    let digest = content(&*rows);
                    self.shared.trace_seed(database, SeedNote::Installed { replica, at, digest });
                }
                let how = (installed, true);
                self.shared.run(&place, database, assigned, directory, how).await;
            }
            Err(fault) if passes(&fault) => {
                self.not_before.insert(database, Instant::now() + AGAIN);
            }
            Err(fault) => {
                self.shared.tell(format!("db {database} replica {replica} not opened: {fault}"));
                self.shared.note_failed(database, replica, fault.to_string());
            }
        }
    }

    /// Changes a group's members; one change at a time.
    fn change(&self, database: DatabaseId, change: Change) {
        let Some(group) = self.shared.group(database) else { return };
        if !lock(&self.changing).insert(database) {
            return;
        }
        let changing = self.changing.clone();
        let _changing = Rt::spawn(async move {
            let by = Instant::now() + STEP;
            let _ = match change {
                Change::Learners(learners) => group.add_learners(&learners, by).await,
                Change::Voters(voters) => group.change_voters(&voters, by).await,
                Change::Removed(learners) => group.remove_learners(&learners, by).await,
            };
            // A refused step is decided anew, and not faster than this.
            tokio::time::sleep(LOOK).await;
            lock(&changing).remove(&database);
        });
    }

    fn running(&self) -> BTreeMap<DatabaseId, Running> {
        let state = self.shared.groups().into_iter().map(|group| {
            let status = group.status();
            let opened = self.shared.state().opened.get(&status.database).cloned();
            let vote = opened.and_then(|opened| opened.copy.log().vote());
            let voters = status.members.iter().filter(|member| member.voter);
            let running = Running {
                replica: status.replica,
                blank: status.last.is_none() && vote.is_none(),
                leads: status.role == Role::Leader,
                term: status.term,
                members: status.members.iter().map(|member| member.replica).collect(),
                voters: voters.map(|member| member.replica).collect(),
                joint: status.joint,
            };
            (status.database, running)
        });
        state.collect()
    }

    /// Copies that are not started again: those that could not be opened, and those that a fault stopped.
    fn failed(&self) -> BTreeMap<DatabaseId, ReplicaId> {
        let groups = self.shared.groups();
        let stopped = groups.iter().map(Group::status).filter(|status| status.failed.is_some());
        let mut failed: BTreeMap<DatabaseId, ReplicaId> =
            stopped.map(|status| (status.database, status.replica)).collect();
        let state = self.shared.state();
        failed.extend(state.failed.iter().map(|(database, (replica, _))| (*database, *replica)));
        failed
    }
}

/// Opens a copy that was built, or puts it in its place first. What was never built is missing.
fn install_copy(
    order: &InstallOrder,
    engine: &dyn StateEngine,
) -> Result<(CopyDirectory, bool), SeedFault> {
    let there = install::is_installed(&order.place, &order.identity)?;
    let disk = order.place.volume.disk();
    if !there && !disk.exists(&order.staged).unwrap_or(false) {
        let folder = install::copy_folder(&order.place, &order.identity).display().to_string();
        return Err(OpenFault::Missing { folder }.into());
    }
    Ok((install::install(order, engine)?, !there))
}

/// Whether it may be over in a moment.
fn passes(fault: &SeedFault) -> bool {
    let folder_in_use = matches!(fault, SeedFault::InUse { .. });
    let copy =
        matches!(fault, SeedFault::Copy(OpenFault::InUse { .. } | OpenFault::NoSpace { .. }));
    folder_in_use || copy
}

fn is_mail(database: DatabaseId) -> bool {
    database >= DatabaseId::FIRST_MAILBOX_DATABASE
}
