//! `holdfastd` as a process: real disks, real sockets on loopback, killed and started again.
//!
//! | file | what it proves |
//! | --- | --- |
//! | `creation` | nothing makes itself a DAG; creation may be repeated; what does not fit is refused |
//! | `mail` | a mail's way in and out, and what bad input gets |
//! | `front_end` | folders, copies, rights, search, sections, changes, watches |
//! | `failure` | kills, restarts, and what was acknowledged |
//! | `large` | messages in many entries, killed between two of them |
//! | `tls` | who is let in with TLS, and who is not |
//! | `limits` | admission, a full disk, deadlines |
//! | `told` | what a node says of itself: the journal, and the log for people |

mod cluster;
mod creation;
mod failure;
mod front_end;
mod large;
mod limits;
mod mail;
mod tls;
mod told;
