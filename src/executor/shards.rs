//! Taking the shards of a cluster: in parallel up to a limit, one snapshot a machine at a time, all of them or none.

use super::attempt::{Context, End};
use super::backup::internal;
use super::permit::{self, Permit};
use super::{fault, impact, side};
use crate::artifacts::Folder;
use crate::artifacts::manifest::ShardManifest;
use crate::backup::SlotRange;
use crate::failure::{Failure, Reason};
use crate::fleet::{Check, Definition};
use crate::operation::{Fault, ShardProgress};
use crate::redis::Target;
use crate::redis::facts::Facts;
use crate::redis::replication::{Dialect, OutputBuffer};
use crate::snapshot::{self, Meter};
use crate::store::SketchKey;
use crate::telemetry::metrics::{FORKS, SNAPSHOT_BYTES};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A shard with the source that was chosen for it.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) slots: Vec<SlotRange>,
    /// Slots on their way, in words.
    pub(super) moves: Vec<String>,
    pub(super) target: Target,
    pub(super) facts: Facts,
}

/// Chooses a source for every shard by what the servers say.
pub(super) async fn choose(context: &Context, cluster: &Definition) -> Result<Vec<Chosen>, End> {
    let check = context.inner.fleet.check(cluster).await.map_err(|error| fault::check(&context.operation, error))?;
    chosen(context, cluster, check)
}

fn chosen(context: &Context, cluster: &Definition, check: Check) -> Result<Vec<Chosen>, End> {
    if check.shards.is_empty() || !check.barred.is_empty() {
        return Err(fault::no_source(&context.operation, &cluster.id, &check.barred));
    }
    let mut all = Vec::with_capacity(check.shards.len());
    for shard in check.shards {
        match (shard.source, shard.objections.first()) {
            (Some((target, facts)), _) => all.push(Chosen { name: shard.name, slots: shard.slots, moves: shard.moves, target, facts }),
            // The best host's is told; the others are less fit besides.
            (None, Some((_, objection))) => return Err(fault::source(&context.operation, objection)),
            (None, None) => return Err(fault::no_source(&context.operation, &cluster.id, &shard.barred)),
        }
    }
    Ok(all)
}

/// Waits for the machine of one of the shards, and puts that shard first. With it the first snapshot can begin at once.
pub(super) async fn first_machine(context: &Context, cluster: &Definition, mut shards: Vec<Chosen>) -> Result<(Vec<Chosen>, Permit), End> {
    loop {
        for (index, shard) in shards.iter().enumerate() {
            if let Some(permit) = permit::try_take(context, &cluster.failure_domain(&shard.target.address), &shard.name).await? {
                shards.swap(0, index);
                return Ok((shards, permit));
            }
        }
        let Some(first) = shards.first() else { return Err(internal("a cluster without shards")) };
        let (shard_name, name) = (first.name.clone(), cluster.failure_domain(&first.target.address));
        let permit = permit::take_aside(context, &name, &shard_name, |what| context.wait_for(what)).await?.permit;
        // The wait may have been long: a replica may be the primary by now, so the sources are chosen anew.
        context.wait_for("the servers to answer");
        shards = choose(context, cluster).await?;
        if let Some(index) = shards.iter().position(|shard| shard.name == shard_name && cluster.failure_domain(&shard.target.address) == name) {
            shards.swap(0, index);
            return Ok((shards, permit));
        }
        permit.free().await;
    }
}

/// Takes every shard; the machine of the first is held already. When one fails the others are stopped, and all of them have
/// ended on return.
pub(super) async fn take(
    context: &Context,
    cluster: &Definition,
    attempt: &Folder,
    shards: Vec<Chosen>,
    permit: Permit,
    sketch: SketchKey,
) -> Result<Vec<ShardManifest>, End> {
    let work = Work {
        context,
        cluster,
        attempt,
        sketch,
        turns: Semaphore::new(context.inner.options.shards_at_once),
        stop: context.stop.child_token(),
        forked: AtomicBool::new(false),
    };
    let mut by_name: Vec<(&Chosen, Arc<Meter>)> = shards.iter().map(|shard| (shard, Arc::default())).collect();
    by_name.sort_by(|(a, _), (b, _)| order(&a.name).cmp(&order(&b.name)));
    for (shard, meter) in &by_name {
        context.track(progress(shard), Arc::clone(meter));
    }
    let meters: BTreeMap<String, Arc<Meter>> = by_name.into_iter().map(|(shard, meter)| (shard.name.clone(), meter)).collect();
    context.wait_for("");

    let mut permit = Some(permit);
    let mut running = FuturesUnordered::new();
    for shard in spread(shards, |shard| cluster.failure_domain(&shard.target.address)) {
        let Some(meter) = meters.get(&shard.name).map(Arc::clone) else { continue };
        running.push(work.one(shard, permit.take(), meter));
    }
    let (mut taken, mut failed) = (Vec::new(), None);
    while let Some(done) = running.next().await {
        match done {
            Ok(shard) => taken.push(shard),
            // The first is the reason; the others only follow it.
            Err(end) if failed.is_none() => {
                work.stop.cancel();
                failed = Some(end);
            }
            Err(_) => {}
        }
    }
    match failed {
        // What one shard failed with may cost nothing by itself; a source of another has forked all the same.
        Some(End::Retry { fault: Fault::Source, failure, wait }) if work.forked.load(Ordering::Relaxed) => {
            Err(End::Retry { fault: Fault::Forked, failure, wait })
        }
        Some(end) => Err(end),
        None => Ok(taken),
    }
}

/// What the snapshots of one attempt share.
struct Work<'a> {
    context: &'a Context,
    cluster: &'a Definition,
    attempt: &'a Folder,
    /// Key of the hashes by which the source is known again.
    sketch: SketchKey,
    /// Bounds the snapshots at once.
    turns: Semaphore,
    stop: CancellationToken,
    /// Whether any source may have forked.
    forked: AtomicBool,
}

impl Work<'_> {
    async fn one(&self, shard: Chosen, permit: Option<Permit>, meter: Arc<Meter>) -> Result<ShardManifest, End> {
        let taken = tokio::select! {
            taken = self.take(shard, permit, &meter) => taken,
            // One that only waits ends at once; one that is under way ends by itself, and tells whether its source forked.
            () = self.stopped_while_waiting(&meter) => Err(End::Stopped),
        };
        meter.end();
        taken
    }

    async fn stopped_while_waiting(&self, meter: &Meter) {
        self.stop.cancelled().await;
        if meter.asked() {
            std::future::pending::<()>().await;
        }
    }

    async fn take(&self, shard: Chosen, permit: Option<Permit>, meter: &Arc<Meter>) -> Result<ShardManifest, End> {
        meter.wait_for("its turn among the shards");
        let _turn = self.turns.acquire().await.map_err(|_| internal("the turns of the shards are closed"))?;
        let (shard, permit) = match permit {
            Some(permit) => (shard, permit),
            None => self.machine(shard, meter).await?,
        };
        let request = snapshot::Request {
            shard_name: shard.name,
            source: shard.target.clone(),
            facts: shard.facts,
            folder: self.attempt.clone(),
            output_buffer: if self.cluster.allow_output_buffer_risk { OutputBuffer::Accepted } else { OutputBuffer::Refused },
            dialect: if self.cluster.portable_dump { Dialect::Portable } else { Dialect::Own },
            slots: shard.slots,
            pace: self.context.inner.pace.clone(),
            sketch: self.sketch,
        };
        let side = side::store(self.context, &request).await?;
        let taken = impact::take(self.context, &request, meter, &self.stop).await;
        self.count(&taken, meter);
        let mut manifest = taken.map_err(|error| fault::snapshot(&self.context.operation, &shard.target.name, error))?;
        manifest.side = Some(side);
        // From here on the machine is not concerned, however long storage takes.
        permit.free().await;
        Ok(manifest)
    }

    /// Waits for the machine of a shard's source, which is chosen anew when that took time.
    async fn machine(&self, mut shard: Chosen, meter: &Meter) -> Result<(Chosen, Permit), End> {
        loop {
            let name = self.cluster.failure_domain(&shard.target.address);
            let taken = permit::take(self.context, &name, &shard.name, |what| meter.wait_for(what)).await?;
            if !taken.has_waited {
                return Ok((shard, taken.permit));
            }
            let anew = choose(self.context, self.cluster).await?.into_iter().find(|other| other.name == shard.name);
            let Some(anew) = anew else {
                let message = format!("{} is no shard of cluster {} any more", shard.name, self.cluster.id);
                let failure = Failure::new(Reason::SourceTopology, message);
                return Err(End::Retry { fault: Fault::Source, failure, wait: fault::backoff(&self.context.operation) });
            };
            // Its slots stay those that all shards were chosen with; whether they are still its own is looked at in the end.
            shard = Chosen { slots: shard.slots, moves: shard.moves, ..anew };
            self.context.retrack(progress(&shard));
            if self.cluster.failure_domain(&shard.target.address) == name {
                return Ok((shard, taken.permit));
            }
            taken.permit.free().await;
        }
    }

    /// Counts what a snapshot cost its source, and what it gave.
    fn count(&self, taken: &Result<ShardManifest, snapshot::Error>, meter: &Meter) {
        let metrics = &self.context.inner.metrics;
        match taken {
            Err(snapshot::Error::Refused(_)) => return,
            Err(snapshot::Error::Stopped) if !meter.asked() => return,
            Ok(_) | Err(_) => self.forked.store(true, Ordering::Relaxed),
        }
        let attempt = if self.context.operation.tally.forks == 0 { "first" } else { "repeated" };
        metrics.counter(&FORKS, &[attempt]).increment(1);
        if let Ok(shard) = taken {
            metrics.counter(&SNAPSHOT_BYTES, &["decoded"]).increment(shard.size_bytes);
            metrics.counter(&SNAPSHOT_BYTES, &["stored"]).increment(shard.segments.iter().map(|segment| segment.stored_bytes).sum());
        }
    }
}

fn progress(shard: &Chosen) -> ShardProgress {
    ShardProgress { shard_name: shard.name.clone(), host_name: shard.target.name.clone(), keys_expected: shard.facts.keys, ..ShardProgress::default() }
}

/// The order of names that end in numbers: shard2 before shard10.
pub(super) fn order(name: &str) -> (usize, &str) {
    (name.len(), name)
}

/// Takes from each machine in turn, the first shard first: so that those that begin together are not all of one machine.
fn spread<T>(shards: Vec<T>, machine: impl Fn(&T) -> String) -> Vec<T> {
    let count = shards.len();
    let mut queues: Vec<(String, VecDeque<T>)> = Vec::new();
    for shard in shards {
        let name = machine(&shard);
        match queues.iter_mut().find(|(other, _)| *other == name) {
            Some((_, queue)) => queue.push_back(shard),
            None => queues.push((name, VecDeque::from([shard]))),
        }
    }
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        all.extend(queues.iter_mut().filter_map(|(_, queue)| queue.pop_front()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_take_turns() {
        let machine = |shard: &&str| shard[..1].to_owned();
        assert_eq!(spread(vec!["a1", "a2", "a3", "b1", "c1", "c2"], machine), ["a1", "b1", "c1", "a2", "c2", "a3"]);
        assert_eq!(spread(Vec::new(), machine), [""; 0]);
    }

    #[test]
    fn shards_are_in_order_of_their_numbers() {
        let mut names = ["shard10", "shard2", "shard1"];
        names.sort_by_key(|name| order(name));
        assert_eq!(names, ["shard1", "shard2", "shard10"]);
    }
}
