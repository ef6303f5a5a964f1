//! The instants for which backups of a cluster are planned.
//!
//! Days are chosen by the window of the daily backup and by retention policies; the time of day is the begin of that window, by
//! the clock on the wall of the cluster's time zone. So a day on which clocks change has its backup once: a minute that is
//! skipped stands for the next one that exists, and of a minute that comes twice the first counts. Pure: time is an argument.

use super::Timestamp;
use super::policy::{DEFAULT_WINDOW, Plan, Policy, PolicyId};
use aws_lc_rs::digest;
use chrono::{DateTime, Datelike, Days as DaySpan, NaiveDate, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use croner::Cron;
use std::fmt::Write as _;
use std::str::FromStr;

/// Longest text for days of the month, months or days of the week, in characters.
pub const FIELD_CHARS: usize = 100;

/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;

/// Most minutes that clocks skip at once: a day, where a date line is moved, and an hour more.
const SKIPPED_MINUTES: i64 = 25 * 60;

/// Days in which every day of a policy comes that ever does: two leap years and what lies between them.
const CYCLE_DAYS: u64 = 8 * 366;

/// Bytes of the digest in the words for a calendar.
const DIGEST_BYTES: usize = 8;

/// Why texts name no days.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDays {
    /// One is not written as days are.
    #[error("must be as in crontab, such as `1,15`, `mon-fri` or `*/2`, with at most {FIELD_CHARS} characters")]
    Form(Field),
    /// No day is ever meant.
    #[error("name no day that ever comes")]
    Never,
}

/// Which of the texts is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The days of the month.
    DayOfMonth,
    /// The months.
    Month,
    /// The days of the week.
    DayOfWeek,
}

/// Days by the calendar. Where both days of the month and days of the week are told, either is enough, as in crontab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Days(Cron);

impl Days {
    /// The days that the last three fields of a line of crontab name; an empty one names all. What the first two say is left aside.
    ///
    /// # Errors
    ///
    /// [`BadDays`], by condition.
    pub fn read(cron: &[String; 5]) -> Result<Self, BadDays> {
        let [_, _, day_of_month, month, day_of_week] = cron;
        let fields = [(Field::DayOfMonth, day_of_month), (Field::Month, month), (Field::DayOfWeek, day_of_week)];
        let mut pattern = String::from("0 0");
        for (index, (field, text)) in fields.into_iter().enumerate() {
            let text = if text.is_empty() { "*" } else { text };
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '*' | ',' | '-' | '/' | '#');
            // Read alone first, so that the one at fault can be told.
            let alone: Vec<&str> = (0..3).map(|at| if at == index { text } else { "*" }).collect();
            if text.chars().count() > FIELD_CHARS || !text.chars().all(legal) || Cron::from_str(&format!("0 0 {}", alone.join(" "))).is_err() {
                return Err(BadDays::Form(field));
            }
            pattern.push(' ');
            pattern.push_str(text);
        }
        let days = Self(Cron::from_str(&pattern).map_err(|_| BadDays::Never)?);
        let first = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap_or_default();
        if first.iter_days().take(CYCLE_DAYS as usize).any(|date| days.has(date)) { Ok(days) } else { Err(BadDays::Never) }
    }

    /// Whether a day is one of them.
    pub fn has(&self, date: NaiveDate) -> bool {
        date.and_hms_opt(0, 0, 0).is_some_and(|midnight| self.0.is_time_matching(&midnight).unwrap_or(false))
    }
}

/// One planned backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// When its window begins.
    pub at: Timestamp,
    /// The retention policy that keeps it longest; absent where the daily backup's own retention does.
    pub policy_id: Option<PolicyId>,
    /// Days that it is to be kept; for ever when absent.
    pub retain_days: Option<u32>,
}

/// The instants for which backups of one cluster are planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    zone: Tz,
    minute: u16,
    /// How long the daily backup is kept; absent where none is taken.
    daily: Option<Option<u32>>,
    policies: Vec<(PolicyId, u32, Days)>,
    words: String,
}

impl Calendar {
    /// The calendar of a cluster; `None` where nothing is planned. A policy whose days cannot be read plans nothing.
    pub fn new(plan: &Plan, zone: Tz, policies: &[Policy]) -> Option<Self> {
        let minute = plan.window_start.unwrap_or(DEFAULT_WINDOW).min(DAY_MINUTES - 1);
        let days = |policy: &Policy| Some((policy.id.clone(), policy.retain_days, Days::read(&policy.cron).ok()?));
        let read: Vec<_> = policies.iter().filter_map(days).collect();
        let daily = plan.window_start.map(|_| plan.retain_days);
        if daily.is_none() && read.is_empty() {
            return None;
        }
        let mut days = String::new();
        if daily.is_some() {
            days.push_str("daily");
        }
        for policy in policies {
            let _ = write!(days, "\n{} {}", policy.id, policy.cron[2..].join(" "));
        }
        let digest = digest::digest(&digest::SHA256, days.as_bytes());
        let mut words = format!("{:02}:{:02} {} ", minute / 60, minute % 60, zone.name());
        for byte in digest.as_ref().iter().take(DIGEST_BYTES) {
            let _ = write!(words, "{byte:02x}");
        }
        Some(Self { zone, minute, daily, policies: read, words })
    }

    /// Words that change when the planned days or the time of day do, and else stay the same. How long backups are kept is not in
    /// them.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// The latest planned instant that is not after `now` and after `after`; looked for over `days` days before `now`.
    pub fn latest(&self, after: Timestamp, now: Timestamp, days: u64) -> Option<Slot> {
        let today = now.with_timezone(&self.zone).date_naive();
        let dates = (0..=days).filter_map(|back| today.checked_sub_days(DaySpan::new(back)));
        let slot = dates.filter_map(|date| self.slot(date)).find(|slot| slot.at <= now)?;
        (slot.at > after).then_some(slot)
    }

    /// The first planned instant after `after`.
    pub fn next(&self, after: Timestamp) -> Option<Slot> {
        let today = after.with_timezone(&self.zone).date_naive();
        let dates = (0..=CYCLE_DAYS).filter_map(|ahead| today.checked_add_days(DaySpan::new(ahead)));
        dates.filter_map(|date| self.slot(date)).find(|slot| slot.at > after)
    }

    /// What is planned for a day.
    fn slot(&self, date: NaiveDate) -> Option<Slot> {
        let longest = self.policies.iter().filter(|(_, _, days)| days.has(date)).max_by_key(|(_, retain_days, _)| *retain_days);
        let (policy_id, retain_days) = match (&self.daily, longest) {
            (Some(None), _) => (None, None),
            (Some(Some(daily)), Some((id, days, _))) if days > daily => (Some(id.clone()), Some(*days)),
            (Some(Some(daily)), _) => (None, Some(*daily)),
            (None, Some((id, days, _))) => (Some(id.clone()), Some(*days)),
            (None, None) => return None,
        };
        Some(Slot { at: instant(self.zone, date, self.minute)?, policy_id, retain_days })
    }
}

/// When the clock of a zone shows a minute of a day: the first time if it comes twice, and if it is skipped the next minute that exists.
fn instant(zone: Tz, date: NaiveDate, minute: u16) -> Option<Timestamp> {
    let wall = date.and_hms_opt(u32::from(minute) / 60, u32::from(minute) % 60, 0)?;
    let walls = (0..=SKIPPED_MINUTES).filter_map(|skipped| wall.checked_add_signed(TimeDelta::minutes(skipped)));
    walls.filter_map(|wall| zone.from_local_datetime(&wall).earliest()).map(|at| at.with_timezone(&Utc)).next()
}

/// A minute of the day by the clock of a zone as the minute of the day in UTC, as it is next to come from `now` on.
pub fn minute_in_utc(zone: Tz, minute: u16, now: Timestamp) -> u16 {
    let today = now.with_timezone(&zone).date_naive();
    let days = [0, 1].into_iter().filter_map(|ahead| instant(zone, today.checked_add_days(DaySpan::new(ahead))?, minute));
    let next = days.into_iter().find(|at| *at >= now).unwrap_or(now);
    u16::try_from(next.hour() * 60 + next.minute()).unwrap_or(0)
}

/// Reads a time of day such as `22:00` as a minute of the day.
pub fn minute_of(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<u16>().ok()).flatten();
    let (hour, minute) = (number(hour)?, number(minute)?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

/// Name of the zone of the dates in names of scheduled backups.
///
/// Source: the names of scheduled backups in the MemStore API.
const NAME_ZONE: &str = "KST";

/// Hours that it is ahead of UTC.
const NAME_ZONE_HOURS: i64 = 9;

/// The name of a scheduled backup: `scheduled.backup.2026-03-13-00-00.KST`, where the planned instant stands by the clock of Korea, which
/// knows no summer time. The second of that minute gets `.2`, and so on.
pub fn backup_name(planned_at: Timestamp, number: u32) -> String {
    let wall = planned_at.checked_add_signed(TimeDelta::hours(NAME_ZONE_HOURS)).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let (year, month, day, hour, minute) = (wall.year(), wall.month(), wall.day(), wall.hour(), wall.minute());
    let mut name = format!("scheduled.backup.{year:04}-{month:02}-{day:02}-{hour:02}-{minute:02}.{NAME_ZONE}");
    if number > 1 {
        let _ = write!(name, ".{number}");
    }
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(day_of_month: &str, month: &str, day_of_week: &str) -> [String; 5] {
        ["", "", day_of_month, month, day_of_week].map(str::to_owned)
    }

    fn policy(id: &str, cron: [String; 5], retain_days: u32) -> Policy {
        let cluster_id = "main".parse().unwrap();
        Policy { id: id.to_owned(), cluster_id, name: id.to_owned(), description: String::new(), created_at: Timestamp::UNIX_EPOCH, cron, retain_days }
    }

    fn daily(zone: &str, minute: &str) -> Calendar {
        let plan = Plan { window_start: Some(minute_of(minute).unwrap()), ..Plan::default() };
        Calendar::new(&plan, zone.parse().unwrap(), &[]).unwrap()
    }

    /// The planned instants from one instant to another.
    fn between(calendar: &Calendar, from: &str, to: &str) -> Vec<String> {
        let (mut found, mut after) = (Vec::new(), at(from));
        while let Some(slot) = calendar.next(after).filter(|slot| slot.at <= at(to)) {
            found.push(slot.at.format("%FT%RZ").to_string());
            // What is next is the latest as soon as it is there.
            assert_eq!(calendar.latest(after, slot.at, 3).as_ref(), Some(&slot));
            assert_eq!(calendar.latest(slot.at, slot.at, 3), None);
            after = slot.at;
        }
        found
    }

    #[test]
    fn each_day_has_one_whatever_the_clocks_do() {
        for (zone, minute, from, to, expected) in [
            ("UTC", "22:00", "2026-11-20T00:00:00Z", "2026-11-22T00:00:00Z", &["2026-11-20T22:00Z", "2026-11-21T22:00Z"][..]),
            ("Asia/Kolkata", "00:00", "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z", &["2026-11-20T18:30Z"]),
            // Berlin goes forward on 2026-03-29 at 01:00 UTC: from 02:00 to 03:00.
            ("Europe/Berlin", "02:30", "2026-03-28T00:00:00Z", "2026-03-30T23:00:00Z", &["2026-03-28T01:30Z", "2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
            ("Europe/Berlin", "01:59", "2026-03-28T23:00:00Z", "2026-03-29T23:00:00Z", &["2026-03-29T00:59Z"]),
            ("Europe/Berlin", "03:00", "2026-03-28T23:00:00Z", "2026-03-29T23:00:00Z", &["2026-03-29T01:00Z"]),
            // It goes back on 2026-10-25 at 01:00 UTC: 02:30 comes twice, and counts once.
            ("Europe/Berlin", "02:30", "2026-10-24T00:00:00Z", "2026-10-26T23:00:00Z", &["2026-10-24T00:30Z", "2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
            ("Europe/Berlin", "22:00", "2026-10-24T00:00:00Z", "2026-10-26T00:00:00Z", &["2026-10-24T20:00Z", "2026-10-25T21:00Z"]),
            // New York: forward on 2026-03-08 at 07:00 UTC, back on 2026-11-01 at 06:00 UTC.
            ("America/New_York", "02:00", "2026-03-07T12:00:00Z", "2026-03-09T12:00:00Z", &["2026-03-08T07:00Z", "2026-03-09T06:00Z"]),
            ("America/New_York", "01:15", "2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z", &["2026-11-01T05:15Z", "2026-11-02T06:15Z"]),
            // Lord Howe moves by half an hour: forward on 2026-10-03 at 15:30 UTC from 02:00 to 02:30, back on 2026-04-04 at 15:00 UTC.
            ("Australia/Lord_Howe", "02:15", "2026-10-02T00:00:00Z", "2026-10-05T00:00:00Z", &["2026-10-02T15:45Z", "2026-10-03T15:30Z", "2026-10-04T15:15Z"]),
            ("Australia/Lord_Howe", "01:45", "2026-04-03T00:00:00Z", "2026-04-06T00:00:00Z", &["2026-04-03T14:45Z", "2026-04-04T14:45Z", "2026-04-05T15:15Z"]),
            // Where a whole day is left out, its backup is the first minute of the next.
            ("Pacific/Apia", "12:00", "2011-12-29T00:00:00Z", "2011-12-31T21:00:00Z", &["2011-12-29T22:00Z", "2011-12-30T10:00Z", "2011-12-30T22:00Z"]),
        ] {
            assert_eq!(between(&daily(zone, minute), from, to), expected, "{zone} {minute}");
        }
    }

    #[test]
    fn days_are_as_in_crontab() {
        for (fields, from, to, expected) in [
            (("1,15", "", ""), "2026-01-01T23:00:00Z", "2026-02-28T00:00:00Z", &["2026-01-15T22:00Z", "2026-02-01T22:00Z", "2026-02-15T22:00Z"][..]),
            (("*", "*", "0"), "2026-11-20T00:00:00Z", "2026-12-01T00:00:00Z", &["2026-11-22T22:00Z", "2026-11-29T22:00Z"]),
            (("", "", "mon-tue"), "2026-11-20T00:00:00Z", "2026-11-25T00:00:00Z", &["2026-11-23T22:00Z", "2026-11-24T22:00Z"]),
            (("1", "*/6", ""), "2026-01-02T00:00:00Z", "2027-01-02T00:00:00Z", &["2026-07-01T22:00Z", "2027-01-01T22:00Z"]),
            // The last of a month; and a day that is not in every year.
            (("L", "2", ""), "2027-01-01T00:00:00Z", "2028-12-31T00:00:00Z", &["2027-02-28T22:00Z", "2028-02-29T22:00Z"]),
            (("29", "feb", ""), "2026-01-01T00:00:00Z", "2033-01-01T00:00:00Z", &["2028-02-29T22:00Z", "2032-02-29T22:00Z"]),
            // Where both are told either is enough.
            (("20", "11", "6"), "2026-11-19T23:00:00Z", "2026-11-23T00:00:00Z", &["2026-11-20T22:00Z", "2026-11-21T22:00Z"]),
        ] {
            let policy = policy("p", cron(fields.0, fields.1, fields.2), 30);
            let calendar = Calendar::new(&Plan::default(), Tz::UTC, &[policy]).unwrap();
            assert_eq!(between(&calendar, from, to), expected, "{fields:?}");
        }
    }

    #[test]
    fn what_names_no_days_is_told() {
        for (fields, bad) in [
            (("32", "", ""), BadDays::Form(Field::DayOfMonth)),
            (("1 1", "", ""), BadDays::Form(Field::DayOfMonth)),
            (("@daily", "", ""), BadDays::Form(Field::DayOfMonth)),
            (("", "13", ""), BadDays::Form(Field::Month)),
            (("", "", "8"), BadDays::Form(Field::DayOfWeek)),
            (("", "", "someday"), BadDays::Form(Field::DayOfWeek)),
            (("", "", "1-"), BadDays::Form(Field::DayOfWeek)),
            (("30", "2", ""), BadDays::Never),
        ] {
            assert_eq!(Days::read(&cron(fields.0, fields.1, fields.2)), Err(bad), "{fields:?}");
        }
        let long = "1,".repeat(FIELD_CHARS);
        assert_eq!(Days::read(&cron(&long, "", "")), Err(BadDays::Form(Field::DayOfMonth)));
        // Minute and hour are left aside, whatever stands there.
        assert!(Days::read(&["nonsense".to_owned(), "99".to_owned(), String::new(), String::new(), String::new()]).is_ok());
    }

    #[test]
    fn the_longest_retention_of_a_day_counts() {
        let policies = [policy("week", cron("", "", "sun"), 30), policy("month", cron("1", "", ""), 365)];
        let plan = |retain_days| Plan { window_start: Some(60), retain_days, keep_last: None };
        // 2026-11-01 is a Sunday.
        for (plan, day, expected) in [
            (plan(Some(7)), "2026-10-31T01:00:00Z", Some((None, Some(7)))),
            (plan(Some(7)), "2026-11-01T01:00:00Z", Some((Some("month"), Some(365)))),
            (plan(Some(7)), "2026-11-08T01:00:00Z", Some((Some("week"), Some(30)))),
            (plan(Some(60)), "2026-11-08T01:00:00Z", Some((None, Some(60)))),
            (plan(None), "2026-11-01T01:00:00Z", Some((None, None))),
        ] {
            let calendar = Calendar::new(&plan, Tz::UTC, &policies).unwrap();
            let found = calendar.latest(at(day) - TimeDelta::minutes(1), at(day), 1);
            assert_eq!(found.as_ref().map(|slot| (slot.policy_id.as_deref(), slot.retain_days)), expected, "{day}");
        }
        let alone = Calendar::new(&Plan { retain_days: Some(7), ..Plan::default() }, Tz::UTC, &policies).unwrap();
        assert_eq!(alone.latest(at("2026-10-01T22:30:00Z"), at("2026-10-04T21:59:00Z"), 9), None);
        assert_eq!(alone.next(at("2026-10-01T22:30:00Z")).unwrap().at, at("2026-10-04T22:00:00Z"));
        assert_eq!(Calendar::new(&Plan { retain_days: Some(7), keep_last: Some(3), ..Plan::default() }, Tz::UTC, &[]), None);
    }

    #[test]
    fn the_words_change_with_what_is_planned_alone() {
        let plan = Plan { window_start: Some(60), retain_days: Some(7), keep_last: None };
        let words = |plan: &Plan, zone: Tz, policies: &[Policy]| Calendar::new(plan, zone, policies).unwrap().words().to_owned();
        let before = words(&plan, Tz::UTC, &[]);
        assert!(before.starts_with("01:00 UTC "), "{before}");
        assert_eq!(words(&Plan { retain_days: None, ..plan.clone() }, Tz::UTC, &[]), before);
        let weekly = policy("week", cron("", "", "sun"), 30);
        let others = [
            words(&Plan { window_start: Some(61), ..plan.clone() }, Tz::UTC, &[]),
            words(&plan, Tz::Europe__Berlin, &[]),
            words(&plan, Tz::UTC, std::slice::from_ref(&weekly)),
            words(&Plan { window_start: None, ..plan }, Tz::UTC, &[weekly]),
        ];
        assert!(others.iter().all(|other| *other != before));
    }

    #[test]
    fn times_of_day_are_told_in_utc() {
        for (zone, minute, now, expected) in [
            ("UTC", "22:00", "2026-11-20T12:00:00Z", "22:00"),
            ("Europe/Berlin", "22:00", "2026-07-01T12:00:00Z", "20:00"),
            ("Europe/Berlin", "22:00", "2026-12-01T12:00:00Z", "21:00"),
            // The next one lies behind the change of clocks.
            ("Europe/Berlin", "22:00", "2026-10-24T21:00:00Z", "21:00"),
            ("Asia/Seoul", "00:00", "2026-12-01T12:00:00Z", "15:00"),
        ] {
            assert_eq!(minute_in_utc(zone.parse().unwrap(), minute_of(minute).unwrap(), at(now)), minute_of(expected).unwrap(), "{zone} {now}");
        }
        for bad in ["", "24:00", "1:00", "01:60", "0100", "+1:00", "01:00:00"] {
            assert_eq!(minute_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_tell_the_planned_instant() {
        assert_eq!(backup_name(at("2024-03-12T15:00:00Z"), 1), "scheduled.backup.2024-03-13-00-00.KST");
        assert_eq!(backup_name(at("2026-12-31T22:30:59Z"), 3), "scheduled.backup.2027-01-01-07-30.KST.3");
        assert!(backup_name(at("2026-12-31T22:30:59Z"), 10_000).parse::<crate::backup::Name>().is_ok());
    }
}
