//! How fast one subject may call.
//!
//! Owns the bound on how many subjects are kept apart: past it, newcomers share one allowance.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Most subjects that are kept apart.
const SUBJECTS: usize = 10_000;

/// Calls between two looks at how many subjects there are.
const LOOK_EVERY: u64 = 1024;

/// The allowance that all share for whom there is no room: no subject has this name.
const OTHERS: &str = "";

/// How fast one subject may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Calls per second in the long run.
    pub per_second: NonZeroU32,
    /// Calls at once after a pause.
    pub burst: NonZeroU32,
}

/// A subject calls too fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {} calls per second; wait a moment, or ask for a higher auth.rate_limit", rate.per_second)]
pub struct TooFast {
    rate: Rate,
    /// When the next call is taken.
    pub retry_after: Duration,
}

/// Who has called how often of late.
pub(super) struct Pace {
    rate: Rate,
    limiter: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
    calls: AtomicU64,
    is_full: AtomicBool,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self { rate, limiter: RateLimiter::keyed(quota), clock: DefaultClock::default(), calls: AtomicU64::new(0), is_full: AtomicBool::new(false) }
    }

    /// Counts a call.
    pub(super) fn check(&self, subject: &String) -> Result<(), TooFast> {
        if self.calls.fetch_add(1, Ordering::Relaxed) % LOOK_EVERY == LOOK_EVERY - 1 {
            // Whoever has its whole allowance again need not be remembered.
            self.limiter.retain_recent();
            self.is_full.store(self.limiter.len() >= SUBJECTS, Ordering::Relaxed);
        }
        let checked = if self.is_full.load(Ordering::Relaxed) { self.limiter.check_key(&OTHERS.to_owned()) } else { self.limiter.check_key(subject) };
        checked.map_err(|until| TooFast { rate: self.rate, retry_after: until.wait_time_from(self.clock.now()) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn pace(per_second: u32, burst: u32) -> Pace {
        Pace::new(Rate { per_second: per_second.try_into().unwrap(), burst: burst.try_into().unwrap() })
    }

    #[test]
    fn subjects_do_not_take_from_each_other() {
        let pace = pace(1, 3);
        for _ in 0..3 {
            assert_eq!(pace.check(&"alice".into()), Ok(()));
        }
        let refused = pace.check(&"alice".into()).unwrap_err();
        assert!(refused.retry_after <= Duration::from_secs(1) && refused.retry_after > Duration::ZERO);
        assert!(refused.to_string().contains("more than 1 calls per second"), "{refused}");
        assert_eq!(pace.check(&"bob".into()), Ok(()));
    }

    #[test]
    fn the_number_of_subjects_is_bounded() {
        let pace = pace(1, 1);
        for number in 0..SUBJECTS * 2 {
            let _ = pace.check(&format!("subject{number}"));
        }
        assert!(pace.is_full.load(Ordering::Relaxed));
        assert!(pace.limiter.len() <= SUBJECTS + LOOK_EVERY as usize + 1, "{}", pace.limiter.len());
    }
}
