//! What a snapshot costs its source: why that one, what was waited for, who else depended on our pace, fork and memory.
//!
//! All of it is best effort: a source that does not answer such questions is backed up all the same, and what it did not tell
//! is left out.

use super::attempt::Context;
use crate::artifacts::manifest::ShardManifest;
use crate::backup::Impact;
use crate::cluster::{Role, Timestamp};
use crate::redis::company::Company;
use crate::redis::facts::Facts;
use crate::redis::{Target, topology};
use crate::snapshot::{self, Meter};
use chrono::Utc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Longest wait for replicas to end their synchronisation before we ask for ours.
const HOLD_BACK: Duration = Duration::from_secs(30);

/// Time between two looks at who synchronises beside us.
const LOOK: Duration = Duration::from_millis(250);

/// Longest wait for the answer to one look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the source to count its save as ended; it looks ten times a second.
const SETTLE: Duration = Duration::from_secs(2);

/// Time between two looks at that.
const SETTLE_LOOK: Duration = Duration::from_millis(100);

/// What is waited for while replicas synchronise.
const REPLICAS: &str = "a replica of the source to end its synchronisation";

/// Takes a snapshot, and records its impact with it.
///
/// # Errors
///
/// As [`snapshot::take`].
pub(super) async fn take(
    context: &Context,
    request: &snapshot::Request,
    meter: &Arc<Meter>,
    stop: &CancellationToken,
) -> Result<ShardManifest, snapshot::Error> {
    let chosen_at = Utc::now();
    tokio::select! {
        () = hold_back(&request.source, meter) => {}
        () = stop.cancelled() => return Err(snapshot::Error::Stopped),
    }
    let mut shared_round = false;
    let taken = {
        let taking = snapshot::take(request, &context.inner.storage, meter, stop);
        tokio::pin!(taking);
        tokio::select! {
            taken = &mut taking => taken,
            () = company(&request.source, &mut shared_round) => taking.await,
        }
    };
    let mut shard = taken?;
    let mut waits = context.waits();
    waits.extend(meter.waits());
    let waited = chosen_waits(waits);
    shard.impact = Impact {
        chosen_because: because(&request.facts),
        lag_seconds: if request.facts.role == Role::Replica { u64::try_from(request.facts.last_io_secs).ok() } else { None },
        waited_millis: millis(chosen_at, shard.snapshot_at),
        waited_for: waited,
        bytes_per_second: shard.impact.bytes_per_second,
        shared_round,
    };
    ask_fork(&request.source, &request.facts, &mut shard).await;
    Ok(shard)
}

/// Why a host was the source, in words.
fn because(facts: &Facts) -> String {
    match (facts.role, facts.connected_replicas) {
        (Role::Replica, _) => {
            let busy = if facts.child_running { "" } else { " and has no save under way" };
            format!("it is the replica least behind: it heard from its primary {} s ago{busy}", facts.last_io_secs)
        }
        (Role::Primary | Role::Unknown, 0) => "it has no replica".to_owned(),
        (Role::Primary | Role::Unknown, _) => "it is a primary that allow_primary lets be used, and no replica was fit".to_owned(),
    }
}

fn millis(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from((to - from).num_milliseconds()).unwrap_or(0)
}

/// Waits worth telling, each with its time.
fn chosen_waits(waits: Vec<(String, Duration)>) -> Vec<String> {
    let told = waits.into_iter().filter(|(_, time)| time.as_millis() > 0);
    told.take(Impact::WAITS).map(|(what, time)| format!("{what}: {} ms", time.as_millis())).collect()
}

/// Waits until no replica synchronises with the source, for at most [`HOLD_BACK`]: one in the same round would go at our pace.
async fn hold_back(source: &Target, meter: &Meter) {
    let until = Instant::now() + HOLD_BACK;
    let looking = async {
        let Ok(mut company) = Company::open(source).await else { return };
        while company.is_synchronising().await.unwrap_or(false) && Instant::now() < until {
            meter.wait_for(REPLICAS);
            sleep(LOOK).await;
        }
    };
    // A source that is slow to answer this is asked for its snapshot all the same.
    let _ = timeout(HOLD_BACK + LOOK_TIMEOUT, looking).await;
}

/// Looks who synchronises beside us until the transfer is over; ends early when the source does not answer, or when nothing
/// more is to be found out.
async fn company(source: &Target, shared_round: &mut bool) {
    let Ok(Ok(mut company)) = timeout(LOOK_TIMEOUT, Company::open(source)).await else { return };
    while let Ok(Ok(found)) = timeout(LOOK_TIMEOUT, company.is_synchronising()).await {
        if found {
            *shared_round = true;
            return;
        }
        sleep(LOOK).await;
    }
}

/// Asks the source what the fork took. Figures that stood there before are not taken for ours.
async fn ask_fork(source: &Target, before: &Facts, shard: &mut ShardManifest) {
    let until = Instant::now() + SETTLE;
    let after = loop {
        let Ok(after) = topology::ask(source, crate::fleet::PROBE_TIMEOUT).await else { return };
        // What was copied is told when the child has ended, which is a moment after its last byte.
        if !after.child_running || Instant::now() >= until {
            break after;
        }
        sleep(SETTLE_LOOK).await;
    };
    let forked = match (before.forks, after.forks) {
        (Some(before), Some(after)) => after > before,
        _ => after.fork_micros != before.fork_micros,
    };
    if forked {
        shard.fork_micros = after.fork_micros;
        shard.copy_on_write_bytes = after.copy_on_write_bytes.filter(|_| !after.child_running);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_told_in_words() {
        let facts = |text: &str| Facts::parse(&format!("redis_version:7.0.15\r\n{text}")).unwrap();
        let replica = facts("role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:3\r\n");
        assert_eq!(because(&replica), "it is the replica least behind: it heard from its primary 3 s ago and has no save under way");
        assert_eq!(because(&facts("role:master\r\n")), "it has no replica");
        assert!(because(&facts("role:master\r\nconnected_slaves:1\r\n")).contains("allow_primary"));
        let waits = vec![("a".to_owned(), Duration::from_millis(7)), ("b".to_owned(), Duration::from_micros(7))];
        assert_eq!(chosen_waits(waits), ["a: 7 ms"]);
    }
}
