//! Threads for work that mail does not wait for: copies that are given to others and built here, what is
//! read through, tidied and kept.
//!
//! They yield the processor to the thread that serves mail. On a machine with few processors a copy that
//! moves at the speed of the disk would otherwise make every delivery wait for its turn.

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::gettid;
use tokio::runtime::{Builder, Runtime};

/// Of Linux' nice values, -20 to 19: a tenth of an equal share where both have work to do, and all of it
/// where mail has none.
const NICE: i32 = 10;

/// Copies that are given or built, and ranges of them that are read, at the same time.
const THREADS: usize = 32;

/// A runtime of such threads: one that moves bytes, and others that may wait for the disk.
pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(THREADS)
        .thread_name("bulk")
        .on_thread_start(yield_to_mail)
        .enable_all()
        .build()
}

/// From now on this thread, and every one that it starts, yields to others.
pub fn yield_to_mail() {
    let thread = Some(gettid());
    let yielding = getpriority_process(thread).and_then(|nice| match nice < NICE {
        true => setpriority_process(thread, NICE),
        false => Ok(()),
    });
    if let Err(error) = yielding {
        tracing::debug!(%error, "this thread does not yield to mail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_threads_yield_and_those_that_start_it_do_not() {
        let nice = || getpriority_process(Some(gettid())).expect("a nice value");
        let own = nice();
        let bulk = runtime().expect("a runtime");
        let expected = NICE.max(own);
        assert_eq!(bulk.block_on(bulk.spawn(async move { nice() })).expect("no panic"), expected);
        let below = bulk.spawn_blocking(move || std::thread::spawn(nice).join());
        assert_eq!(bulk.block_on(below).expect("no panic").expect("no panic"), expected);
        assert_eq!(nice(), own);
    }
}
