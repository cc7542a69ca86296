//! Where work that may wait for a disk is done.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Production does it on threads beside the runtime, so that one slow copy holds up nobody else;
/// a simulation does it in place, so that the same seed gives the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// On tokio's blocking threads.
    #[default]
    Threads,
    /// In place, on the runtime's own thread.
    InPlace,
}

impl Offload {
    /// Runs `work` to its end.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        match self {
            Self::InPlace => work(),
            Self::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(value) => value,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => panic!("the runtime ended while work was under way"),
            },
        }
    }

    /// The same for work in which a broken rule panics: the words of the panic come back, so that
    /// the copy can be failed with them instead of hanging.
    pub(crate) async fn run_caught<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        // What the work leaves behind half done is not used any more: the copy fails.
        self.run(move || catch_unwind(AssertUnwindSafe(work)).map_err(|panic| words(&*panic))).await
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a rule was broken: {}", text.unwrap_or("a panic without words"))
}
