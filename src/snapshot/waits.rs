//! What is waited for, and how long each of it took.

use crate::backup::Impact;
use std::time::Duration;
use tokio::time::Instant;

/// A wait under way, and those that are over, in the order of their first time.
#[derive(Debug, Default)]
pub struct Waits {
    now: Option<(String, Instant)>,
    past: Vec<(String, Duration)>,
}

impl Waits {
    /// Begins to wait for something, which ends the wait before; empty when nothing is waited for any more. The same words
    /// again go on with the same wait.
    pub fn wait_for(&mut self, what: &str) {
        if self.now().is_some_and(|now| now == what) {
            return;
        }
        if let Some((what, since)) = self.now.take() {
            add(&mut self.past, what, since.elapsed());
        }
        if !what.is_empty() {
            self.now = Some((what.to_owned(), Instant::now()));
        }
    }

    /// What is waited for.
    pub fn now(&self) -> Option<&str> {
        self.now.as_ref().map(|(what, _)| what.as_str())
    }

    /// Each thing that was waited for, with its time in all, the wait under way included.
    pub fn all(&self) -> Vec<(String, Duration)> {
        let mut all = self.past.clone();
        if let Some((what, since)) = &self.now {
            add(&mut all, what.clone(), since.elapsed());
        }
        all
    }
}

fn add(waits: &mut Vec<(String, Duration)>, what: String, time: Duration) {
    let is_full = waits.len() >= Impact::WAITS;
    match waits.iter_mut().find(|(known, _)| *known == what) {
        Some((_, sum)) => *sum += time,
        None if is_full => {}
        None => waits.push((what, time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_time() {
        let mut waits = Waits::default();
        for (what, seconds) in [("a", 1), ("b", 2), ("b", 3), ("", 100), ("a", 4), ("c", 5)] {
            waits.wait_for(what);
            assert_eq!(waits.now().unwrap_or_default(), what);
            sleep(Duration::from_secs(seconds)).await;
        }
        let expected: Vec<_> = [("a", 5), ("b", 5), ("c", 5)].map(|(what, seconds)| (what.to_owned(), Duration::from_secs(seconds))).into();
        assert_eq!(waits.all(), expected);
        for number in 0..100 {
            waits.wait_for(&number.to_string());
        }
        assert_eq!(waits.all().len(), Impact::WAITS);
    }
}
