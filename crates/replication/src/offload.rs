//! Where work that may wait for a disk is done.

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
}
