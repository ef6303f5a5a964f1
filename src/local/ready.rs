//! Waiting for what a server is to become: loaded, with a log of changes, linked to its primary, part of a whole cluster.
//!
//! Each wait ends when the server ends, and when it has not moved for a while; it has no other end, since how long a load takes is
//! a matter of its size.

use super::Error;
use crate::redis::connection::Connection;
use crate::redis::{self, Target};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Longest time without any movement.
const STALL: Duration = Duration::from_secs(60);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// How far a load is, in percent.
pub type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Whether the process of a server is still there.
pub type Runs<'a> = &'a (dyn Fn() -> bool + Send + Sync);

/// What a server has loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Keys that it has.
    pub keys: u64,
    /// Keys that it left out because their time was over; absent where it does not tell.
    pub expired: Option<u64>,
}

/// The fields of INFO.
struct Info(HashMap<String, String>);

impl Info {
    async fn ask(target: &Target) -> Result<Self, redis::Error> {
        let text = Connection::open(target).await?.call(&[b"INFO"]).await?.text().unwrap_or_default();
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Ok(Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.0.get(name).is_some_and(|found| found == value)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }

    /// Keys of all databases.
    fn keys(&self) -> u64 {
        let databases = self.0.iter().filter(|(name, _)| name.strip_prefix("db").is_some_and(|number| number.parse::<u32>().is_ok()));
        let keys = databases.filter_map(|(_, fields)| fields.split(',').find_map(|field| field.strip_prefix("keys=")?.parse::<u64>().ok()));
        keys.fold(0, u64::saturating_add)
    }
}

/// What a server is to become.
#[derive(Clone, Copy)]
enum Goal {
    Loaded,
    Logged,
    Linked,
    /// Part of a cluster of so many nodes.
    Whole(usize),
}

impl Goal {
    /// What it did not do that does not get there.
    fn missed(self) -> &'static str {
        match self {
            Self::Loaded => "did not load its data",
            Self::Logged => "did not write its log of changes",
            Self::Linked => "did not follow its primary",
            Self::Whole(_) => "did not find its cluster whole",
        }
    }

    async fn look(self, target: &Target) -> Result<Look, redis::Error> {
        if let Self::Whole(nodes) = self {
            let text = Connection::open(target).await?.call(&[b"CLUSTER", b"INFO"]).await?.text().unwrap_or_default();
            let has = |line: &str| text.lines().any(|found| found.trim_end() == line);
            let is_whole = has("cluster_state:ok") && has(&format!("cluster_known_nodes:{nodes}"));
            return Ok(if is_whole { Look::Done(Loaded::default()) } else { Look::At { place: 0, percent: 0 } });
        }
        let info = Info::ask(target).await?;
        let loaded_bytes = info.number("loading_loaded_bytes").unwrap_or(0);
        let (is_done, place) = match self {
            Self::Loaded => (info.is("loading", "0"), loaded_bytes),
            Self::Logged => {
                let rests = info.is("aof_rewrite_in_progress", "0") && info.is("aof_rewrite_scheduled", "0");
                // Where it tells how far its child is, that is movement; else the time is.
                let place = info.number("current_save_keys_processed").or(info.number("aof_current_rewrite_time_sec"));
                (rests && info.is("aof_enabled", "1") && info.is("aof_last_bgrewrite_status", "ok"), place.unwrap_or(0))
            }
            Self::Linked | Self::Whole(_) => {
                let is_linked = info.is("master_link_status", "up") && info.is("master_sync_in_progress", "0") && info.is("loading", "0");
                (is_linked, info.number("master_sync_read_bytes").unwrap_or(0).saturating_add(loaded_bytes))
            }
        };
        if is_done {
            return Ok(Look::Done(Loaded { keys: info.keys(), expired: info.number("rdb_last_load_keys_expired") }));
        }
        let all = info.number("loading_total_bytes").unwrap_or(0);
        Ok(Look::At { place, percent: loaded_bytes.saturating_mul(100).checked_div(all).unwrap_or(0).min(100) })
    }
}

/// A look at a server that is waited for: it is there, or how far it has come.
enum Look {
    Done(Loaded),
    /// Any change of the place is movement.
    At {
        place: u64,
        percent: u64,
    },
}

/// Looks until the server is what it is to become.
async fn wait(target: &Target, runs: Runs<'_>, goal: Goal, progress: Progress<'_>) -> Result<Loaded, Error> {
    let mut moved = (Instant::now(), None);
    loop {
        match goal.look(target).await {
            Ok(Look::Done(loaded)) => return Ok(loaded),
            Ok(Look::At { place, percent }) => {
                progress(percent);
                if moved.1 != Some(place) {
                    moved = (Instant::now(), Some(place));
                }
            }
            // It may be too early for it to answer.
            Err(redis::Error::Unreachable { .. } | redis::Error::NotReady { .. }) => {}
            Err(fault) => return Err(fault.into()),
        }
        if !runs() {
            return Err(Error::Ended(target.name.clone()));
        }
        if moved.0.elapsed() >= STALL {
            let what = format!("{} within {} s without any movement", goal.missed(), STALL.as_secs());
            return Err(Error::Stalled { host: target.name.clone(), what });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until a server has loaded its data.
///
/// # Errors
///
/// [`Error::Ended`], [`Error::Stalled`], [`Error::Server`].
pub async fn loaded(target: &Target, runs: Runs<'_>, progress: Progress<'_>) -> Result<Loaded, Error> {
    wait(target, runs, Goal::Loaded, progress).await
}

/// Has a server that was started without one keep a log of changes, and waits until all that it has is in there.
///
/// # Errors
///
/// As [`loaded`].
pub async fn log_changes(target: &Target, runs: Runs<'_>) -> Result<(), Error> {
    Connection::open(target).await?.call(&[b"CONFIG", b"SET", b"appendonly", b"yes"]).await?;
    wait(target, runs, Goal::Logged, &|_| {}).await.map(drop)
}

/// Waits until a replica has all that its primary has.
///
/// # Errors
///
/// As [`loaded`].
pub async fn linked(target: &Target, runs: Runs<'_>) -> Result<(), Error> {
    wait(target, runs, Goal::Linked, &|_| {}).await.map(drop)
}

/// Waits until a node knows `nodes` nodes and counts its cluster as working.
///
/// # Errors
///
/// As [`loaded`].
pub async fn whole(target: &Target, runs: Runs<'_>, nodes: usize) -> Result<(), Error> {
    wait(target, runs, Goal::Whole(nodes), &|_| {}).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_databases_are_counted() {
        let fields = [("db0", "keys=3,expires=1,avg_ttl=0"), ("db15", "keys=4"), ("dbx", "keys=100"), ("db", "keys=100"), ("keys", "7")];
        let info = Info(fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        assert_eq!(info.keys(), 7);
    }
}
