//! The section `[schedule]`, and what a cluster of the configuration says of its backups.

use super::section::Section;
use crate::cluster::calendar::{BadDays, Days, Field, minute_of};
use crate::cluster::policy::{POLICIES, POLICY_DESCRIPTION_CHARS, POLICY_NAME_CHARS, Plan, Policy, RETAIN_DAYS};
use crate::cluster::{ClusterId, Timestamp};
use crate::schedule::Options;
use std::collections::BTreeSet;
use std::time::Duration;

/// Longest part of a window over which backups may be spread.
const SPREAD: Duration = Duration::from_secs(12 * 3600);

/// Longest time for which a missed backup may be caught up.
const CATCH_UP: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most operations that may follow a failed one.
const RETRIES: u64 = 10;

/// Shortest and longest wait before one does.
const RETRY_DELAY: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(12 * 3600);

/// Most backups that may be kept beyond their age.
const KEEP_LAST: u64 = 10_000;

/// Reads the section.
pub(super) fn read(mut section: Section<'_>) -> Options {
    let defaults = Options::default();
    let options = Options {
        spread: section.duration("spread", defaults.spread, Duration::ZERO..=SPREAD),
        catch_up: section.duration("catch_up", defaults.catch_up, Duration::ZERO..=CATCH_UP),
        retries: section.integer("retries", u64::from(defaults.retries), 0..=RETRIES) as u32,
        retry_delay: section.duration("retry_delay", defaults.retry_delay, RETRY_DELAY),
    };
    section.end();
    options
}

/// Reads `backup_window_start`, `backup_retain_period_days` and `keep_last` of a cluster.
pub(super) fn plan(section: &mut Section<'_>) -> Plan {
    let window_start = section.optional_text("backup_window_start").and_then(|text| {
        let minute = minute_of(&text);
        if minute.is_none() {
            section.fault("backup_window_start", "must be a time of day from 00:00 to 23:59, such as \"22:00\"");
        }
        minute
    });
    let mut number = |key: &str, most: u64| {
        let is_set = section.has(key);
        Some(section.integer(key, 1, 1..=most) as u32).filter(|_| is_set)
    };
    let retain_days = number("backup_retain_period_days", u64::from(RETAIN_DAYS));
    let keep_last = number("keep_last", KEEP_LAST);
    Plan { window_start, retain_days, keep_last }
}

/// Reads the `[[clusters.policies]]` of a cluster. A policy is known by its name.
pub(super) fn policies(section: &mut Section<'_>, cluster_id: Option<&ClusterId>, created_at: Timestamp) -> Vec<Policy> {
    let sections = section.sections("policies");
    if sections.len() > POLICIES {
        section.fault("policies", &format!("must be at most {POLICIES} policies"));
    }
    let (mut names, mut policies) = (BTreeSet::new(), Vec::new());
    for mut section in sections {
        let name = section.text("name", "");
        if name.is_empty() || name.chars().count() > POLICY_NAME_CHARS || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
            section.fault("name", &format!("must have 1 to {POLICY_NAME_CHARS} characters: letters, digits, `_` and `-`"));
        } else if !names.insert(name.clone()) {
            section.fault("name", "another policy of the cluster has it already");
        }
        let description = section.text("description", "");
        if description.chars().count() > POLICY_DESCRIPTION_CHARS {
            section.fault("description", &format!("must have at most {POLICY_DESCRIPTION_CHARS} characters"));
        }
        let fields = ["days_of_month", "months", "days_of_week"].map(|key| section.text(key, ""));
        if fields.iter().all(String::is_empty) {
            section.fault("days_of_month", "must be given, or months, or days_of_week; `*` means every day");
        }
        let [days_of_month, months, days_of_week] = fields;
        let cron = [String::new(), String::new(), days_of_month, months, days_of_week];
        match Days::read(&cron) {
            Ok(_) => {}
            Err(bad @ BadDays::Form(field)) => section.fault(
                match field {
                    Field::DayOfMonth => "days_of_month",
                    Field::Month => "months",
                    Field::DayOfWeek => "days_of_week",
                },
                &bad.to_string(),
            ),
            Err(bad @ BadDays::Never) => section.fault("days_of_month", &bad.to_string()),
        }
        if !section.has("retain_days") {
            section.fault("retain_days", "must be given");
        }
        let retain_days = section.integer("retain_days", 1, 1..=u64::from(RETAIN_DAYS)) as u32;
        section.end();
        if let Some(cluster_id) = cluster_id {
            policies.push(Policy { id: name.clone(), cluster_id: cluster_id.clone(), name, description, created_at, cron, retain_days });
        }
    }
    policies
}
