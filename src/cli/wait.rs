//! Following an operation to its end, and showing how far it is.
//!
//! Progress goes to standard error: as a bar on a terminal, as one line for each change of step elsewhere.

use super::client::Session;
use super::error::{Error, Exit};
use super::operation::About;
use super::{print, text};
use crate::pb;
use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pb::operation::Operation;
use pb::own::Progress;
use pb::own::progress::Step;
use std::io::{self, IsTerminal};
use std::time::Duration;
use tokio::time::{self, Instant};

/// The first question asks only where the operation stands.
const FIRST_ANSWER: Duration = Duration::from_millis(1);
/// Longest time between two looks at the progress, for the bar.
const LIVELY: Duration = Duration::from_millis(500);
/// The same where nobody watches.
const CALM: Duration = Duration::from_secs(5);
/// Shortest time between two questions, whatever the service answers.
const SHORTEST_ROUND: Duration = Duration::from_millis(100);
/// What an answer may take beyond the time asked for.
const ANSWER_SLACK: Duration = Duration::from_secs(10);
/// How long a lost connection is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Lines about what is waited for are no closer than this.
const WAITING_LINES_APART: Duration = Duration::from_secs(5);

/// Waits until an operation has ended, however it ended.
///
/// Ctrl-C ends the wait, not the operation. A lost connection is tried again for a minute.
///
/// # Errors
///
/// [`Exit::Interrupted`] after Ctrl-C, [`Exit::Unreachable`] when the service stays away, else what the service refused.
pub(super) async fn follow(session: &Session, id: &str) -> Result<Operation, Error> {
    let shown = text::escape(id);
    let mut display = Display::new();
    let ended = tokio::select! {
        ended = until_done(session, id, &mut display) => ended,
        _ = tokio::signal::ctrl_c() => {
            let hint = format!("redkeep operation wait {shown}, or: redkeep operation cancel {shown}");
            Err(Error::new(Exit::Interrupted, format!("stopped waiting; operation {shown} goes on")).with_hint(hint))
        }
    };
    display.clear();
    ended
}

async fn until_done(session: &Session, id: &str, display: &mut Display) -> Result<Operation, Error> {
    let mut revision = 0;
    let mut patience = FIRST_ANSWER;
    let mut lost_at = None;
    loop {
        let asked_at = Instant::now();
        let timeout_ms = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
        let request = pb::own::WaitOperationRequest { operation_id: id.to_owned(), revision, timeout_ms };
        match session.call_within(patience + ANSWER_SLACK, session.operation_states().wait(request)).await {
            Ok(state) => {
                let operation = state.operation.ok_or_else(|| Error::failed("the service answered without the operation"))?;
                if lost_at.take().is_some() {
                    display.note("connected again");
                }
                if operation.done {
                    return Ok(operation);
                }
                let progress = state.progress.or_else(|| About::of(&operation).progress).unwrap_or_default();
                display.show(&progress, Utc::now());
                revision = state.revision;
                patience = display.patience();
                time::sleep_until(asked_at + SHORTEST_ROUND).await;
            }
            Err(error) if error.exit() == Exit::Unreachable => {
                let since = *lost_at.get_or_insert_with(|| {
                    display.note(&format!("connection lost; trying again for {}", text::duration(PATIENCE)));
                    asked_at
                });
                if since.elapsed() >= PATIENCE {
                    return Err(error.with_hint(format!("the operation may go on; redkeep operation wait {}", text::escape(id))));
                }
                time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Where progress is shown.
enum Display {
    /// A line that is drawn over.
    Bar(Bar),
    /// Lines for a log.
    Lines(Lines),
}

impl Display {
    fn new() -> Self {
        if io::stderr().is_terminal() { Self::Bar(Bar::new()) } else { Self::Lines(Lines::default()) }
    }

    fn patience(&self) -> Duration {
        match self {
            Self::Bar(_) => LIVELY,
            Self::Lines(_) => CALM,
        }
    }

    fn show(&mut self, progress: &Progress, now: DateTime<Utc>) {
        match self {
            Self::Bar(bar) => bar.show(progress, now),
            Self::Lines(lines) => {
                if let Some(line) = lines.next(progress, now, Instant::now()) {
                    print::note(&line);
                }
            }
        }
    }

    fn note(&self, line: &str) {
        match self {
            Self::Bar(bar) => bar.bar.suspend(|| print::note(line)),
            Self::Lines(_) => print::note(line),
        }
    }

    fn clear(&self) {
        match self {
            Self::Bar(bar) => bar.bar.finish_and_clear(),
            Self::Lines(_) => {}
        }
    }
}

/// A bar where the end is known, a spinner otherwise.
struct Bar {
    bar: ProgressBar,
    has_end: bool,
    last_error: String,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} {elapsed} {prefix} {wide_msg}"));
        bar.enable_steady_tick(LIVELY / 4);
        Self { bar, has_end: false, last_error: String::new() }
    }

    fn show(&mut self, progress: &Progress, now: DateTime<Utc>) {
        if progress.last_error != self.last_error {
            self.last_error.clone_from(&progress.last_error);
            if !self.last_error.is_empty() {
                let line = format!("the attempt before failed: {}", text::escape(&self.last_error));
                self.bar.suspend(|| print::note(&line));
            }
        }
        let end = end(progress);
        if end.is_some() != self.has_end {
            self.has_end = end.is_some();
            let template = if self.has_end { "{spinner} {elapsed} {prefix} [{bar:16}] {wide_msg}" } else { "{spinner} {elapsed} {prefix} {wide_msg}" };
            self.bar.set_style(style(template));
        }
        if let Some((done, all)) = end {
            self.bar.set_length(all);
            self.bar.set_position(done);
        }
        self.bar.set_prefix(step(progress));
        self.bar.set_message(describe(progress, now));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// What has been told in lines.
#[derive(Default)]
struct Lines {
    told: Option<(Progress, Instant)>,
}

impl Lines {
    /// The line that `progress` is worth, if any.
    fn next(&mut self, progress: &Progress, now: DateTime<Utc>, at: Instant) -> Option<String> {
        let is_worth_it = self.told.as_ref().is_none_or(|(told, told_at)| {
            let milestone = |progress: &Progress| (progress.step, progress.attempt, progress.last_error.clone(), progress.next_attempt_at);
            let is_due = at.duration_since(*told_at) >= WAITING_LINES_APART;
            milestone(told) != milestone(progress) || (is_due && told.waiting_for != progress.waiting_for)
        });
        if !is_worth_it {
            return None;
        }
        let last_error = self.told.as_ref().map_or("", |(told, _)| told.last_error.as_str());
        let failure = if progress.last_error.is_empty() || progress.last_error == last_error {
            String::new()
        } else {
            format!("; the attempt before failed: {}", text::escape(&progress.last_error))
        };
        let line = format!("{}: {}{failure}", step(progress), describe(progress, now));
        self.told = Some((progress.clone(), at));
        Some(line)
    }
}

fn step(progress: &Progress) -> &'static str {
    match progress.step() {
        Step::Unspecified => "QUEUED",
        step => step.as_str_name(),
    }
}

/// Where the work ends, as parts done of all parts: bytes where every shard tells, else keys.
fn end(progress: &Progress) -> Option<(u64, u64)> {
    let shards = &progress.shards;
    let sum = |part: fn(&pb::own::ShardProgress) -> i64| shards.iter().map(|shard| part(shard).cast_unsigned()).fold(0u64, u64::saturating_add);
    let all_tell = |part: fn(&pb::own::ShardProgress) -> i64| !shards.is_empty() && shards.iter().all(|shard| part(shard) > 0);
    let (done, all) = if all_tell(|shard| shard.bytes_expected) {
        (sum(|shard| shard.bytes.max(0)), sum(|shard| shard.bytes_expected))
    } else if all_tell(|shard| shard.keys_expected) {
        (sum(|shard| shard.keys.max(0)), sum(|shard| shard.keys_expected))
    } else {
        return None;
    };
    Some((done.min(all), all))
}

/// All that there is to say about a moment, in one line.
fn describe(progress: &Progress, now: DateTime<Utc>) -> String {
    let mut parts = Vec::new();
    if let Some(next) = text::instant(progress.next_attempt_at.as_ref()) {
        parts.push(format!("next attempt at {}", text::time_and_distance(Some(next), now)));
    }
    if !progress.waiting_for.is_empty() {
        parts.push(format!("waiting for {}", text::escape(&progress.waiting_for)));
    }
    if progress.attempt > 1 {
        parts.push(format!("attempt {}", progress.attempt));
    }
    if !progress.shards.is_empty() {
        parts.push(amounts(progress));
    }
    match (parts.is_empty(), progress.step()) {
        (true, Step::Unspecified) => "not begun yet".to_owned(),
        (true, _) => "at work".to_owned(),
        (false, _) => parts.join(", "),
    }
}

/// What has been moved, all shards together: bytes, keys and speed.
pub(super) fn amounts(progress: &Progress) -> String {
    let sum = |part: fn(&pb::own::ShardProgress) -> i64| progress.shards.iter().map(part).fold(0i64, i64::saturating_add);
    let (keys, expected) = (sum(|shard| shard.keys), sum(|shard| shard.keys_expected));
    let bytes = sum(|shard| shard.bytes);
    let mut told = match (keys, expected) {
        // What is stored already is moved without looking at keys.
        (0, 0) if bytes > 0 => String::new(),
        (_, 1..) => format!("{} of {} keys, ", text::count(keys), text::count(expected)),
        (_, _) => format!("{} keys, ", text::count(keys)),
    };
    told += &format!("{} read", text::size(bytes));
    if progress.bytes_per_second > 0 {
        told += &format!(", {}/s", text::size(progress.bytes_per_second));
    }
    // Last, because a narrow terminal cuts the end off.
    told += &format!(", {} stored", text::size(sum(|shard| shard.stored_bytes)));
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::own::ShardProgress;

    fn moving() -> Progress {
        let shard = ShardProgress { bytes: 12 << 20, stored_bytes: 4 << 20, keys: 103_000, keys_expected: 250_000, ..Default::default() };
        Progress { step: Step::Snapshot.into(), attempt: 1, bytes_per_second: 24 << 20, shards: vec![shard], ..Default::default() }
    }

    fn now() -> DateTime<Utc> {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn moments_in_one_line() {
        let later = Progress {
            attempt: 2,
            next_attempt_at: Some(text::stamp(now() + chrono::Duration::seconds(34))),
            waiting_for: "the\nsource".to_owned(),
            ..Default::default()
        };
        let copied = ShardProgress { bytes: 4 << 20, stored_bytes: 4 << 20, bytes_expected: 8 << 20, ..Default::default() };
        let copying = Progress { step: Step::Snapshot.into(), shards: vec![copied], ..Default::default() };
        for (progress, told) in [
            (copying, "4.0 MiB read, 4.0 MiB stored"),
            (Progress::default(), "not begun yet"),
            (moving(), "103,000 of 250,000 keys, 12.0 MiB read, 24.0 MiB/s, 4.0 MiB stored"),
            (later, "next attempt at 2030-01-01T00:00:34Z (in 34s), waiting for the\\nsource, attempt 2"),
        ] {
            assert_eq!(describe(&progress, now()), told);
        }
    }

    #[test]
    fn the_end_is_known_only_when_every_shard_tells() {
        assert_eq!(end(&Progress::default()), None);
        assert_eq!(end(&moving()), Some((103_000, 250_000)));
        let mut two = moving();
        two.shards.push(ShardProgress { keys: 5, ..Default::default() });
        assert_eq!(end(&two), None);
        let mut bytes = moving();
        bytes.shards[0].bytes_expected = 10 << 20;
        assert_eq!(end(&bytes), Some((10 << 20, 10 << 20)), "more than expected is shown as all");
        bytes.shards[0].bytes = -1;
        assert_eq!(end(&bytes), Some((0, 10 << 20)));
    }

    #[test]
    fn a_log_gets_one_line_a_step() {
        let start = Instant::now();
        let mut lines = Lines::default();
        let mut say = |progress: &Progress, secs| lines.next(progress, now(), start + Duration::from_secs(secs));
        assert_eq!(say(&Progress::default(), 0).as_deref(), Some("QUEUED: not begun yet"));
        assert!(say(&moving(), 1).is_some());
        let further = Progress { bytes_per_second: 1, ..moving() };
        assert_eq!(say(&further, 2), None, "only numbers changed");
        let waiting = Progress { waiting_for: "the save of the source".to_owned(), ..moving() };
        assert_eq!(say(&waiting, 3), None, "too soon for a word that changes often");
        assert!(say(&waiting, 7).is_some());
        let failed = Progress { attempt: 2, last_error: "connection\x1b closed".to_owned(), ..Progress::default() };
        let line = say(&failed, 8).unwrap();
        assert_eq!(line, "QUEUED: attempt 2; the attempt before failed: connection\\u{1b} closed");
        let again = Progress { step: Step::Preflight.into(), ..failed };
        assert_eq!(say(&again, 9).as_deref(), Some("PREFLIGHT: attempt 2"), "a failure is told once");
    }
}
