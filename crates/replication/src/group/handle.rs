//! The group as others hold it: a plain type, whatever runtime its Raft runs on.
//!
//! openraft is generic over its runtime, and what is generic is compiled once more in every crate
//! that makes use of it. So the type of the runtime ends here, behind a table of functions: openraft
//! is compiled once for tokio in this crate, and once where a simulation brings its own runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use dag_types::{Candidacy, LogId, ReplicaId};
use futures::future::BoxFuture;
use openraft::AsyncRuntime;
use storage::state::StateRead;
use tokio::time::Instant;

use super::{
    Committed, Confirmed, GroupSpec, GroupStatus, InitializeError, LeaderHint, MembersError,
    NotActive, ProposeError, RaftGroup, ReadError, Serving, StartError, TransferError,
};
use crate::event::Role;
use crate::machine::MachineFault;
use crate::state_machine::DigestAt;
use crate::types::Member;

/// A handle to a copy's group. Clones are the same group.
///
/// Its calls may be made from any task of the runtime that the [`Registry`](crate::Registry) was
/// made for.
#[derive(Clone)]
pub struct Group(Arc<dyn Calls>);

type Members = BTreeMap<ReplicaId, Member>;
type Replicas = BTreeSet<ReplicaId>;
type Future<'a, T, E> = BoxFuture<'a, Result<T, E>>;

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Group").field(&self.spec()).finish()
    }
}

impl Group {
    /// Which copy this is.
    pub fn spec(&self) -> GroupSpec {
        self.0.spec()
    }

    /// The copy's id.
    pub fn replica(&self) -> ReplicaId {
        self.spec().replica
    }

    /// The end of this copy's log, durable or not.
    pub fn last(&self) -> Option<LogId> {
        self.0.last()
    }

    /// The state as it is now, unchanged by what is applied later. Linearizable after
    /// [`Group::read_barrier`], else as old as this copy is behind. A view that is taken while a
    /// snapshot replaces the state gives errors; it never happens on a copy that serves. Views are
    /// held briefly, because a snapshot waits for them.
    pub fn view(&self) -> Arc<dyn StateRead> {
        self.0.view()
    }

    /// The state as it was where the mark at this index was applied. Copies keep it for a while at a
    /// mark whose number ends with [`KEEP_STATE`](crate::KEEP_STATE).
    pub fn kept_view(&self, index: u64) -> Option<Arc<dyn StateRead>> {
        self.0.kept_view(index)
    }

    /// The digests at the last marks, to be compared with those of other copies.
    pub fn digest_marks(&self) -> Result<Vec<DigestAt>, MachineFault> {
        self.0.digest_marks()
    }

    /// Who leads, as far as this copy knows.
    pub fn leader(&self) -> Option<LeaderHint> {
        self.0.leader()
    }

    /// How this copy stands.
    pub fn status(&self) -> GroupStatus {
        self.0.status()
    }

    /// Whether this copy may ask for votes now.
    pub fn may_campaign(&self) -> bool {
        self.0.may_campaign()
    }

    /// How far it strives for leadership from now on. A leadership that is there does not end by it, nor
    /// a mount: see [`Group::demote`].
    pub fn stand(&self, candidacy: Candidacy) {
        self.0.stand(candidacy);
    }

    /// Opens or closes the way to serving; closing ends it at once on this node.
    pub fn allow_mount(&self, allowed: bool) {
        self.0.allow_mount(allowed);
    }

    /// Keeps as much log as for a follower that lags, or no longer: a copy that is seeded goes on
    /// from where its seed was taken.
    pub fn keep_log(&self, keep: bool) {
        self.0.keep_log(keep);
    }

    /// Ends a leadership: closes the way to it and replaces the Raft instance, because openraft
    /// has no step-down. The other voters elect another leader after their timeout.
    pub async fn demote(&self) -> Result<(), StartError> {
        self.0.demote().await
    }

    /// Ends a leadership, where there is one, and leaves the way to it as it is.
    pub async fn step_down(&self) -> Result<(), StartError> {
        self.0.step_down().await
    }

    /// Its role and term, by what it knows. Never a proof.
    pub fn role(&self) -> (Role, u64) {
        self.0.role()
    }

    /// Under what this copy serves now, by what it knows. Never a proof alone.
    pub fn serving(&self) -> Result<Serving, NotActive> {
        self.0.serving()
    }

    /// Proposes a command, and waits until it is applied.
    ///
    /// `Ok` means: committed, applied, and this copy still serves under what it served before.
    pub async fn propose(
        &self,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        self.0.propose(command, deadline).await
    }

    /// Lets all copies note the digest of their content at one entry.
    pub async fn mark_digest(
        &self,
        mark: u64,
        deadline: Instant,
    ) -> Result<DigestAt, ProposeError> {
        self.0.mark_digest(mark, deadline).await
    }

    /// Waits until a read from [`Group::view`] is linearizable; gives the position that the view
    /// will at least have.
    pub async fn read_barrier(&self, deadline: Instant) -> Result<LogId, ReadError> {
        self.confirm_read(deadline).await.map(|read| read.at)
    }

    /// The same for an answer that leaves later: what is given is shown to [`Group::still_read`]
    /// right before.
    pub async fn confirm_read(&self, deadline: Instant) -> Result<Confirmed, ReadError> {
        self.0.confirm_read(deadline).await
    }

    /// Whether a confirmed read may still be answered.
    pub fn still_read(&self, read: &Confirmed) -> Result<(), ReadError> {
        self.0.still_read(read)
    }

    /// Makes this copy the first of a new group, with these voters.
    ///
    /// The first entry has the smallest term of the generation, so that every later term, and
    /// every vote, carries it.
    pub async fn initialize(&self, voters: &Members) -> Result<(), InitializeError> {
        self.0.initialize(voters).await
    }

    /// Adds copies that receive the log and do not vote.
    pub async fn add_learners(
        &self,
        learners: &Members,
        deadline: Instant,
    ) -> Result<(), MembersError> {
        self.0.add_learners(learners, deadline).await
    }

    /// Makes exactly these members the voters, in one joint change; former voters stay learners.
    pub async fn change_voters(
        &self,
        voters: &Replicas,
        deadline: Instant,
    ) -> Result<(), MembersError> {
        self.0.change_voters(voters, deadline).await
    }

    /// Takes learners out of the group. Voters are made learners first.
    pub async fn remove_learners(
        &self,
        learners: &Replicas,
        deadline: Instant,
    ) -> Result<(), MembersError> {
        self.0.remove_learners(learners, deadline).await
    }

    /// Sets the whole membership: who is not in `members` leaves, the `voters` among them vote.
    /// Copies that are new join as learners; call again with them as voters when they caught up.
    pub async fn change_members(
        &self,
        members: &Members,
        voters: &Replicas,
        deadline: Instant,
    ) -> Result<(), MembersError> {
        self.add_learners(members, deadline).await?;
        self.change_voters(voters, deadline).await?;
        let leaves = |replica: &ReplicaId| !members.contains_key(replica);
        let status = self.status();
        let gone: Replicas =
            status.members.iter().map(|member| member.replica).filter(leaves).collect();
        if gone.is_empty() { Ok(()) } else { self.remove_learners(&gone, deadline).await }
    }

    /// Hands leadership to another voter. Proposals are refused meanwhile; they go on here where
    /// it fails.
    pub async fn transfer(&self, to: ReplicaId, deadline: Instant) -> Result<(), TransferError> {
        self.0.transfer(to, deadline).await
    }
}

impl<R: AsyncRuntime> From<RaftGroup<R>> for Group {
    fn from(group: RaftGroup<R>) -> Self {
        Self(Arc::new(group))
    }
}

/// What a group is asked, as functions without types.
trait Calls: Send + Sync {
    fn spec(&self) -> GroupSpec;
    fn last(&self) -> Option<LogId>;
    fn view(&self) -> Arc<dyn StateRead>;
    fn kept_view(&self, index: u64) -> Option<Arc<dyn StateRead>>;
    fn digest_marks(&self) -> Result<Vec<DigestAt>, MachineFault>;
    fn leader(&self) -> Option<LeaderHint>;
    fn status(&self) -> GroupStatus;
    fn may_campaign(&self) -> bool;
    fn stand(&self, candidacy: Candidacy);
    fn allow_mount(&self, allowed: bool);
    fn keep_log(&self, keep: bool);
    fn serving(&self) -> Result<Serving, NotActive>;
    fn demote(&self) -> Future<'_, (), StartError>;
    fn step_down(&self) -> Future<'_, (), StartError>;
    fn role(&self) -> (Role, u64);
    fn propose(&self, command: Bytes, by: Instant) -> Future<'_, Committed, ProposeError>;
    fn mark_digest(&self, mark: u64, by: Instant) -> Future<'_, DigestAt, ProposeError>;
    fn confirm_read(&self, by: Instant) -> Future<'_, Confirmed, ReadError>;
    fn still_read(&self, read: &Confirmed) -> Result<(), ReadError>;
    fn initialize<'a>(&'a self, voters: &'a Members) -> Future<'a, (), InitializeError>;
    fn add_learners<'a>(&'a self, who: &'a Members, by: Instant) -> Future<'a, (), MembersError>;
    fn change_voters<'a>(&'a self, to: &'a Replicas, by: Instant) -> Future<'a, (), MembersError>;
    fn remove_learners<'a>(
        &'a self,
        who: &'a Replicas,
        by: Instant,
    ) -> Future<'a, (), MembersError>;
    fn transfer(&self, to: ReplicaId, by: Instant) -> Future<'_, (), TransferError>;
}

/// Each call goes to the method of the same name; a future is boxed once per call.
impl<R: AsyncRuntime> Calls for RaftGroup<R> {
    fn spec(&self) -> GroupSpec {
        Self::spec(self)
    }

    fn last(&self) -> Option<LogId> {
        Self::last(self)
    }

    fn view(&self) -> Arc<dyn StateRead> {
        Self::view(self)
    }

    fn kept_view(&self, index: u64) -> Option<Arc<dyn StateRead>> {
        Self::kept_view(self, index)
    }

    fn digest_marks(&self) -> Result<Vec<DigestAt>, MachineFault> {
        Self::digest_marks(self)
    }

    fn leader(&self) -> Option<LeaderHint> {
        Self::leader(self)
    }

    fn status(&self) -> GroupStatus {
        Self::status(self)
    }

    fn may_campaign(&self) -> bool {
        Self::may_campaign(self)
    }

    fn stand(&self, candidacy: Candidacy) {
        Self::stand(self, candidacy);
    }

    fn allow_mount(&self, allowed: bool) {
        Self::allow_mount(self, allowed);
    }

    fn keep_log(&self, keep: bool) {
        Self::keep_log(self, keep);
    }

    fn serving(&self) -> Result<Serving, NotActive> {
        Self::serving(self)
    }

    fn demote(&self) -> Future<'_, (), StartError> {
        Box::pin(Self::demote(self))
    }

    fn step_down(&self) -> Future<'_, (), StartError> {
        Box::pin(Self::step_down(self))
    }

    fn role(&self) -> (Role, u64) {
        Self::role(self)
    }

    fn propose(&self, command: Bytes, by: Instant) -> Future<'_, Committed, ProposeError> {
        Box::pin(Self::propose(self, command, by))
    }

    fn mark_digest(&self, mark: u64, by: Instant) -> Future<'_, DigestAt, ProposeError> {
        Box::pin(Self::mark_digest(self, mark, by))
    }

    fn confirm_read(&self, by: Instant) -> Future<'_, Confirmed, ReadError> {
        Box::pin(Self::confirm_read(self, by))
    }

    fn still_read(&self, read: &Confirmed) -> Result<(), ReadError> {
        Self::still_read(self, read)
    }

    fn initialize<'a>(&'a self, voters: &'a Members) -> Future<'a, (), InitializeError> {
        Box::pin(Self::initialize(self, voters))
    }

    fn add_learners<'a>(&'a self, who: &'a Members, by: Instant) -> Future<'a, (), MembersError> {
        Box::pin(Self::add_learners(self, who, by))
    }

    fn change_voters<'a>(&'a self, to: &'a Replicas, by: Instant) -> Future<'a, (), MembersError> {
        Box::pin(Self::change_voters(self, to, by))
    }

    fn remove_learners<'a>(
        &'a self,
        who: &'a Replicas,
        by: Instant,
    ) -> Future<'a, (), MembersError> {
        Box::pin(Self::remove_learners(self, who, by))
    }

    fn transfer(&self, to: ReplicaId, by: Instant) -> Future<'_, (), TransferError> {
        Box::pin(Self::transfer(self, to, by))
    }
}
