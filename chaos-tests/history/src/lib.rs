//! What was asked, what was answered, what the nodes say about themselves, and whether all of it
//! fits the promises of Holdfast.
//!
//! Every test that claims "nothing lost, nothing doubled, one writer" writes the same kind of
//! history and is judged by the same checkers, whether it ran in the simulator, on a laptop or on
//! real machines. A history is a text file with one JSON object per line:
//!
//! | line | written by | read as |
//! | --- | --- | --- |
//! | `run` | the harness, first | what the run promised: faults, copies, gates ([`event::Run`]) |
//! | `invoke`, `return` | the recorder, around each operation of a client | [`op::Operation`] |
//! | `fault`, `phase` | the harness | when which fault really happened |
//! | `digest` | the harness, from each copy at one mark | [`event::CopyDigest`] |
//! | `journal` | each node about itself | [`journal::Entry`] |
//!
//! The checkers are named after the rules they check (`M1` to `M9` about mailboxes, `I1` to `I15`
//! about who may serve, `V1` about the run itself); [`check::judge`] applies all of them. A verdict
//! is `held`, `violated`, `unknown` or `not promised`, and only a run in which every promised rule
//! held counts: an unknown verdict fails a run like a violation does.
//!
//! [`minimise`] cuts a violation down to the operations that it needs, and [`timeline`] draws them
//! beside what the nodes were doing.

pub mod check;
pub mod event;
pub mod history;
pub mod journal;
mod lineage_text;
pub mod minimise;
pub mod op;
pub mod recorder;
pub mod timeline;

pub use check::{Report, Rule, Verdict, Violation, judge};
pub use history::History;
pub use recorder::Recorder;

/// Nanoseconds of one clock that all writers of a history share: the machine's BOOTTIME for real
/// processes, virtual time for simulated ones.
pub type Nanos = u64;
