//! Leave to take a snapshot of a machine: as many at once as it bears, over all processes.
//!
//! The places are the store's. Whoever waits asks again when a place is freed in this process, and every second all the same,
//! for the others; the store keeps the turn, so the oldest operation goes first.

use super::attempt::{Context, End};
use super::{Inner, POLL, Waiting};
use crate::operation::{Epoch, OperationId};
use crate::store::{self, Place, Turn};
use crate::telemetry::metrics::PLACE_WAIT;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// What a snapshot waits for while others are taken of its machine.
const MACHINE: &str = "another snapshot on the same machine to end";

/// Leave to take one snapshot of a machine. It is given back when it is dropped, or else with the end of the attempt.
pub(super) struct Permit {
    inner: Arc<Inner>,
    id: OperationId,
    epoch: Epoch,
    /// None once it was given back.
    place: Option<Place>,
}

/// A permit, and how it was had.
pub(super) struct Taken {
    pub(super) permit: Permit,
    /// Whether it had to be waited for, so that what was judged before may not hold any more.
    pub(super) has_waited: bool,
}

impl Permit {
    /// Gives it back, and returns when that is done. To be preferred where the same attempt may ask for the place again.
    pub(super) async fn free(mut self) {
        if let Some(place) = self.place.take() {
            free(&self.inner, self.id, self.epoch, &place).await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let (Some(place), Ok(runtime)) = (self.place.take(), tokio::runtime::Handle::try_current()) {
            let (inner, id, epoch) = (Arc::clone(&self.inner), self.id, self.epoch);
            runtime.spawn(async move { free(&inner, id, epoch, &place).await });
        }
    }
}

/// Best effort: what stays is freed with the attempt.
async fn free(inner: &Inner, id: OperationId, epoch: Epoch, place: &Place) {
    if let Err(error) = inner.store.free_place(id, epoch, place).await {
        tracing::warn!(operation.id = %id, %error, "a place for a snapshot was not given back yet");
    }
    inner.places.notify_waiters();
}

/// Asks for a place once. Unless it is granted the attempt has a turn from now on.
async fn ask(context: &Context, place: &Place) -> Result<Option<Permit>, store::Error> {
    let (inner, id, epoch) = (&context.inner, context.id(), context.epoch());
    match inner.store.take_place(id, epoch, place, inner.options.snapshots_per_host).await? {
        Turn::Granted => Ok(Some(Permit { inner: Arc::clone(inner), id, epoch, place: Some(place.clone()) })),
        Turn::After(other) => {
            tracing::trace!(operation.id = %id, domain = place.domain, after = %other, "a snapshot waits for its machine");
            Ok(None)
        }
    }
}

/// Takes leave for the snapshot of a shard on a machine if it can be had at once. No turn is kept.
pub(super) async fn try_take(context: &Context, domain: &str, shard: &str) -> Result<Option<Permit>, End> {
    let place = Place { domain: domain.to_owned(), shard: shard.to_owned() };
    let permit = ask(context, &place).await?;
    if permit.is_none() {
        context.inner.store.free_place(context.id(), context.epoch(), &place).await?;
    }
    Ok(permit)
}

/// Takes leave as [`take`] does, and does not count among those that work while it waits: what waits costs nothing, and must
/// not keep others out.
pub(super) async fn take_aside(context: &Context, domain: &str, shard: &str, tell: impl Fn(&str)) -> Result<Taken, End> {
    let inner = &context.inner;
    inner.waiting.fetch_add(1, Ordering::Relaxed);
    let _waiting = Waiting(&inner.waiting);
    // There may be room for another attempt.
    inner.work.notify_one();
    take(context, domain, shard, tell).await
}

/// Takes leave for the snapshot of a shard on a machine, and waits for it as long as that takes; `tell` hears what for.
pub(super) async fn take(context: &Context, domain: &str, shard: &str, tell: impl Fn(&str)) -> Result<Taken, End> {
    let place = Place { domain: domain.to_owned(), shard: shard.to_owned() };
    if let Some(permit) = ask(context, &place).await? {
        return Ok(Taken { permit, has_waited: false });
    }
    tell(MACHINE);
    let (inner, since) = (&context.inner, Instant::now());
    loop {
        // Registered before the question, so that what is freed after it wakes us.
        let freed = inner.places.notified();
        tokio::pin!(freed);
        freed.as_mut().enable();
        if let Some(permit) = ask(context, &place).await? {
            inner.metrics.histogram(&PLACE_WAIT, &[]).record(since.elapsed());
            return Ok(Taken { permit, has_waited: true });
        }
        let _ = tokio::time::timeout(POLL, freed).await;
    }
}
