//! Until when a request is worked on.
//!
//! A node may vouch for being active only for a short while, so it works on an attempt no longer
//! than that: a longer or missing deadline is shortened. The caller repeats with the same id.

use std::time::Duration;

use dag_api::{Problem, Reason};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// The end of an attempt that began now.
pub fn of_call(metadata: &MetadataMap, attempt: Duration) -> Instant {
    let asked = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok());
    let asked = asked.and_then(parse_timeout).unwrap_or(attempt);
    Instant::now() + asked.min(attempt)
}

/// The end of an attempt inside a session, counted from its last chunk.
pub fn of_upload(attempt_ms: u32, attempt: Duration) -> Instant {
    let asked = match attempt_ms {
        0 => attempt,
        millis => Duration::from_millis(u64::from(millis)),
    };
    Instant::now() + asked.min(attempt)
}

/// Refuses what is late already: nothing is proposed that nobody waits for.
pub fn check(deadline: Instant) -> Result<(), Problem> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let text = "the deadline passed before anything was done; repeat with the same id";
    Err(Problem::new(Reason::DeadlineExceeded, text))
}

/// gRPC's own form: at most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_read_as_grpc_writes_them() {
        for (text, expected) in [
            ("150m", Some(Duration::from_millis(150))),
            ("2S", Some(Duration::from_secs(2))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("1000u", Some(Duration::from_millis(1))),
            ("", None),
            ("m", None),
            ("1", None),
            ("999999999m", None),
            ("-1m", None),
            ("1é", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_never_longer_than_an_attempt() {
        let attempt = Duration::from_secs(2);
        let ends = |timeout: Option<&str>| {
            let mut metadata = MetadataMap::new();
            if let Some(timeout) = timeout {
                metadata.insert("grpc-timeout", timeout.parse().unwrap());
            }
            of_call(&metadata, attempt) - Instant::now()
        };
        assert_eq!(ends(None), attempt);
        assert_eq!(ends(Some("1H")), attempt);
        assert_eq!(ends(Some("50m")), Duration::from_millis(50));
        assert_eq!(of_upload(0, attempt) - Instant::now(), attempt);
        assert_eq!(of_upload(50, attempt) - Instant::now(), Duration::from_millis(50));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_refused_before_anything_is_proposed() {
        assert!(check(Instant::now() + Duration::from_millis(1)).is_ok());
        let late = check(Instant::now()).unwrap_err();
        assert_eq!(late.reason, Reason::DeadlineExceeded);
    }
}
