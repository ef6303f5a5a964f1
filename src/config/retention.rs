//! The section `[retention]`: how what has had its time is removed.

use super::section::Section;
use crate::executor::Expiry;
use std::time::Duration;

/// Longest time between two rounds, and longest wait for a steady clock.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Reads the section.
pub(super) fn read(mut section: Section<'_>) -> Expiry {
    let defaults = Expiry::default();
    let options = Expiry {
        enabled: section.flag_or("enabled", defaults.enabled),
        period: section.duration("period", defaults.period, Duration::from_secs(1)..=DAY),
        settle: section.duration("settle", defaults.settle, Duration::ZERO..=DAY),
        clock: defaults.clock,
    };
    section.end();
    options
}
