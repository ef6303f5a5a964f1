//! Not at this time of day: a snapshot that falls into a window of its cluster waits for the window's end.

use super::attempt::{Context, End};
use crate::cluster::Timestamp;
use crate::fleet::Definition;
use chrono::Utc;

/// The end of the window of a cluster that `now` lies in, with what an operation waits for then, in words.
pub(super) fn end_of(cluster: &Definition, now: Timestamp) -> Option<(Timestamp, String)> {
    let until = cluster.no_snapshot.next_allowed(now);
    (until > now).then(|| (until, format!("the end of the time in which no snapshot of the cluster may start, {}", cluster.no_snapshot.shown(until))))
}

/// Puts an attempt off that may not fork its source now. To be asked before anything is done for it, and again right before.
pub(super) fn check(context: &Context, cluster: &Definition) -> Result<(), End> {
    match end_of(cluster, Utc::now()) {
        None => Ok(()),
        Some((until, waiting_for)) => {
            context.wait_for(&waiting_for);
            Err(End::Deferred { until, waiting_for })
        }
    }
}
