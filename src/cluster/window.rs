//! Times of the week in which no snapshot of a cluster may start.
//!
//! They are told by the clock on the wall of a time zone: an instant is barred when the clock there shows a barred minute. So on
//! the day on which clocks go back an hour that is barred is barred twice, and on the day on which they go forward what is
//! skipped bars nothing. Pure: the time is an argument.

use super::Timestamp;
use chrono::{Datelike, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;

/// Minutes of a day and of a week.
const DAY: usize = 24 * 60;
const WEEK: usize = 7 * DAY;

/// The first three letters of the days, from Monday on.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// How far ahead a minute that is not barred is looked for: longer than a week, because a change of clocks may skip the only one.
const AHEAD_MINUTES: usize = 3 * WEEK;

/// Most windows of a cluster.
pub const WINDOWS: usize = 64;

/// Why something is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWindow {
    /// It is not written as one.
    #[error(
        "must be a time of day such as \"22:00-02:00\", with days before it where it is not for all, such as \"mon-fri 08:00-20:00\" or \"sat,sun 00:00-24:00\""
    )]
    Form,
    /// It begins and ends at the same minute.
    #[error("begins and ends at the same minute; a whole day is 00:00-24:00")]
    Empty,
    /// There are too many.
    #[error("there must be at most {WINDOWS} windows")]
    TooMany,
    /// No time is left.
    #[error("leave no minute of the week in which a snapshot may start")]
    Always,
}

/// Times of the week in which no snapshot may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    zone: Tz,
    /// Whether each minute of the week is barred, from Monday on; empty where none is.
    barred: Vec<bool>,
}

impl Default for Windows {
    fn default() -> Self {
        Self { zone: Tz::UTC, barred: Vec::new() }
    }
}

impl Windows {
    /// The windows that these texts tell, by the clock of `zone`.
    ///
    /// # Errors
    ///
    /// The index of the text and what is wrong with it; the index is that of the last one where the fault is of them all.
    pub fn new(zone: Tz, texts: &[String]) -> Result<Self, (usize, BadWindow)> {
        if texts.is_empty() {
            return Ok(Self { zone, barred: Vec::new() });
        }
        let last = texts.len() - 1;
        if texts.len() > WINDOWS {
            return Err((last, BadWindow::TooMany));
        }
        let mut barred = vec![false; WEEK];
        for (index, text) in texts.iter().enumerate() {
            let span = Span::read(text).map_err(|bad| (index, bad))?;
            for (day, _) in span.days.iter().enumerate().filter(|(_, is_meant)| **is_meant) {
                for minute in 0..span.minutes {
                    barred[(day * DAY + span.from + minute) % WEEK] = true;
                }
            }
        }
        if barred.iter().all(|barred| *barred) {
            return Err((last, BadWindow::Always));
        }
        Ok(Self { zone, barred })
    }

    /// The zone by whose clock they are told.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first instant from `now` on at which a snapshot may start: `now` itself where it is in no window.
    pub fn next_allowed(&self, now: Timestamp) -> Timestamp {
        if !self.bars(now) {
            return now;
        }
        let minute = now.with_second(0).and_then(|at| at.with_nanosecond(0)).unwrap_or(now);
        let ahead = (1..=AHEAD_MINUTES as i64).filter_map(|minutes| minute.checked_add_signed(TimeDelta::minutes(minutes)));
        let mut last = now;
        for at in ahead {
            last = at;
            if !self.bars(at) {
                break;
            }
        }
        last
    }

    fn bars(&self, at: Timestamp) -> bool {
        let wall = at.with_timezone(&self.zone);
        let day = wall.weekday().num_days_from_monday() as usize;
        self.barred.get(day * DAY + wall.hour() as usize * 60 + wall.minute() as usize).copied().unwrap_or(false)
    }

    /// An instant as the clock of the windows shows it, for a person.
    pub fn shown(&self, at: Timestamp) -> String {
        match self.zone {
            Tz::UTC => at.with_timezone(&Utc).format("%F %H:%M UTC").to_string(),
            zone => format!("{} ({})", at.with_timezone(&zone).format("%F %H:%M"), zone.name()),
        }
    }
}

/// One window: the days on which it begins, the minute of the day, and how many minutes it lasts.
struct Span {
    days: [bool; 7],
    from: usize,
    minutes: usize,
}

impl Span {
    fn read(text: &str) -> Result<Self, BadWindow> {
        let mut words = text.split_whitespace();
        let (days, times) = match (words.next(), words.next(), words.next()) {
            (Some(times), None, None) => ([true; 7], times),
            (Some(days), Some(times), None) => (days_of(days).ok_or(BadWindow::Form)?, times),
            _ => return Err(BadWindow::Form),
        };
        let (from, to) = times.split_once('-').ok_or(BadWindow::Form)?;
        let (from, to) = (minute_of(from).ok_or(BadWindow::Form)?, minute_of(to).ok_or(BadWindow::Form)?);
        match (from, to) {
            (DAY, _) => Err(BadWindow::Form),
            (from, to) if from == to => Err(BadWindow::Empty),
            // What ends before it begins ends on the next day.
            (from, to) => Ok(Self { days, from, minutes: (to + DAY - from - 1) % DAY + 1 }),
        }
    }
}

/// Reads `08:30` and `24:00`.
fn minute_of(text: &str) -> Option<usize> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<usize>().ok()).flatten();
    let (hour, minute) = (number(hour)?, number(minute)?);
    (minute < 60 && hour * 60 + minute <= DAY).then_some(hour * 60 + minute)
}

/// Reads `mon-fri`, `sat,sun` and `fri-mon,wed`.
fn days_of(text: &str) -> Option<[bool; 7]> {
    let day = |text: &str| DAYS.iter().position(|day| text.eq_ignore_ascii_case(day));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        for step in 0..=(last + 7 - first) % 7 {
            days[(first + step) % 7] = true;
        }
    }
    Some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(zone: &str, texts: &[&str]) -> Windows {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Windows::new(zone.parse().unwrap(), &texts).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_ends_when_the_clock_says_so() {
        // 2026-11-20 is a Friday.
        for (zone, texts, now, expected) in [
            ("UTC", &[][..], "2026-11-20T12:00:00Z", "2026-11-20T12:00:00Z"),
            ("UTC", &["08:00-20:00"], "2026-11-20T07:59:59Z", "2026-11-20T07:59:59Z"),
            ("UTC", &["08:00-20:00"], "2026-11-20T08:00:00Z", "2026-11-20T20:00:00Z"),
            ("UTC", &["08:00-20:00"], "2026-11-20T19:59:59.999Z", "2026-11-20T20:00:00Z"),
            ("UTC", &["08:00-20:00"], "2026-11-20T20:00:00Z", "2026-11-20T20:00:00Z"),
            // Over midnight, from either side.
            ("UTC", &["22:00-02:00"], "2026-11-20T23:00:30Z", "2026-11-21T02:00:00Z"),
            ("UTC", &["22:00-02:00"], "2026-11-20T01:00:00Z", "2026-11-20T02:00:00Z"),
            // By the day on which it begins: Saturday's small hours belong to Friday's window.
            ("UTC", &["mon-fri 22:00-02:00"], "2026-11-21T01:00:00Z", "2026-11-21T02:00:00Z"),
            ("UTC", &["mon-fri 22:00-02:00"], "2026-11-21T23:00:00Z", "2026-11-21T23:00:00Z"),
            ("UTC", &["mon-fri 22:00-02:00"], "2026-11-23T01:00:00Z", "2026-11-23T01:00:00Z"),
            ("UTC", &["sun 22:00-02:00"], "2026-11-23T01:00:00Z", "2026-11-23T02:00:00Z"),
            // Days in a list and over the week's end.
            ("UTC", &["fri-mon 00:00-24:00"], "2026-11-20T12:00:00Z", "2026-11-24T00:00:00Z"),
            ("UTC", &["sat,MON 10:00-11:00"], "2026-11-23T10:30:00Z", "2026-11-23T11:00:00Z"),
            ("UTC", &["sat,mon 10:00-11:00"], "2026-11-22T10:30:00Z", "2026-11-22T10:30:00Z"),
            // One runs into another.
            ("UTC", &["08:00-12:00", "12:00-13:00", "12:30-14:00"], "2026-11-20T09:00:00Z", "2026-11-20T14:00:00Z"),
            // Another zone, with a half hour.
            ("Asia/Kolkata", &["08:00-20:00"], "2026-11-20T02:30:00Z", "2026-11-20T14:30:00Z"),
            // Clocks go forward in Berlin on 2026-03-29 at 01:00 UTC, from 02:00 to 03:00.
            ("Europe/Berlin", &["01:00-02:30"], "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", &["02:00-03:00"], "2026-03-29T00:59:00Z", "2026-03-29T00:59:00Z"),
            ("Europe/Berlin", &["08:00-20:00"], "2026-03-29T07:00:00Z", "2026-03-29T18:00:00Z"),
            ("Europe/Berlin", &["08:00-20:00"], "2026-03-28T08:00:00Z", "2026-03-28T19:00:00Z"),
            // They go back on 2026-10-25 at 01:00 UTC, from 03:00 to 02:00: the hour from 02:00 comes twice.
            ("Europe/Berlin", &["02:00-03:00"], "2026-10-25T00:10:00Z", "2026-10-25T02:00:00Z"),
            ("Europe/Berlin", &["01:00-02:30"], "2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z"),
            ("Europe/Berlin", &["01:00-02:30"], "2026-10-25T01:10:00Z", "2026-10-25T01:30:00Z"),
        ] {
            assert_eq!(windows(zone, texts).next_allowed(at(now)), at(expected), "{zone} {texts:?} {now}");
        }
    }

    #[test]
    fn the_one_minute_that_is_left_is_found_even_when_the_clocks_skip_it() {
        let texts = ["mon-sat 00:00-24:00", "sun 00:00-02:30", "sun 02:31-24:00"];
        assert_eq!(windows("Europe/Berlin", &texts).next_allowed(at("2026-03-29T00:00:00Z")), at("2026-04-05T00:30:00Z"));
    }

    #[test]
    fn what_is_no_window_is_told() {
        let read = |texts: &[&str]| Windows::new(Tz::UTC, &texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap_err();
        for bad in
            ["", "8:00-20:00", "08:00", "08:00-20:60", "24:00-01:00", "00:00-24:01", "mon 08:00-20:00 x", "mon- 08:00-20:00", "day 08:00-20:00", "+8:00-20:00"]
        {
            assert_eq!(read(&[bad]), (0, BadWindow::Form), "{bad}");
        }
        assert_eq!(read(&["01:00-02:00", "08:00-08:00"]), (1, BadWindow::Empty));
        assert_eq!(read(&["00:00-12:00", "12:00-24:00"]), (1, BadWindow::Always));
        assert_eq!(read(&vec!["01:00-02:00"; WINDOWS + 1]), (WINDOWS, BadWindow::TooMany));
    }

    #[test]
    fn an_instant_is_shown_by_its_clock() {
        assert_eq!(windows("Europe/Berlin", &[]).shown(at("2026-07-01T10:00:00Z")), "2026-07-01 12:00 (Europe/Berlin)");
        assert_eq!(Windows::default().shown(at("2026-07-01T10:00:00Z")), "2026-07-01 10:00 UTC");
    }
}
