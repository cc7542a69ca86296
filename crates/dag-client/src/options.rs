//! How patient a client is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::tls::Tls;

/// Where the randomness of pauses comes from: any number, every one as likely as another.
#[derive(Clone)]
pub struct Jitter(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Jitter {
    /// Takes the numbers from a source of the caller's, so that a simulation repeats itself.
    pub fn from_source(source: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// A span between half of the given one and all of it.
    pub(crate) fn spread(&self, span: Duration) -> Duration {
        let half = span / 2;
        let micros = half.as_micros() as u64;
        half + Duration::from_micros((self.0)() % (micros + 1))
    }
}

/// The system's random numbers.
impl Default for Jitter {
    fn default() -> Self {
        Self::from_source(|| uuid::Uuid::new_v4().as_u64_pair().0)
    }
}

impl fmt::Debug for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jitter")
    }
}

/// Time and room that a client allows itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// One attempt, from sending to the counted answer. Nodes shorten more than two seconds.
    pub attempt: Duration,
    /// One operation with all its attempts.
    pub patience: Duration,
    /// Making one connection.
    pub connect: Duration,
    /// The first pause between attempts; it doubles with each.
    pub pause_first: Duration,
    /// The longest pause between attempts.
    pub pause_max: Duration,
    /// Spreads pauses, so that clients do not come back all at once.
    pub jitter: Jitter,
    /// Bytes of unanswered messages in one session; a message counts as at least 4 KiB.
    pub session_bytes: usize,
    /// What an upload of more than one frame is granted on top of the attempt: its size at this
    /// rate.
    pub upload_bytes_per_second: u64,
    /// For a DAG with TLS. Endpoints are `https` then, and no hint leads to one that is not.
    pub tls: Option<Tls>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            attempt: Duration::from_millis(1_500),
            patience: Duration::from_secs(30),
            connect: Duration::from_millis(500),
            pause_first: Duration::from_millis(10),
            pause_max: Duration::from_millis(250),
            jitter: Jitter::default(),
            session_bytes: 16 << 20,
            upload_bytes_per_second: 4 << 20,
            tls: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lies_between_half_and_all_of_its_span() {
        let span = Duration::from_millis(100);
        for number in [0, 1, 49_999, 50_000, 50_001, u64::MAX] {
            let pause = Jitter::from_source(move || number).spread(span);
            assert!(pause >= span / 2 && pause <= span, "{number}: {pause:?}");
        }
        assert_eq!(Jitter::default().spread(Duration::ZERO), Duration::ZERO);
    }
}
