//! Looking after the clusters on this machine, by what is recorded of them.
//!
//! ```text
//! recorded, complete      its servers are kept up
//! recorded, being made    the restore's own business
//! not recorded, marked    left by a restore that failed, was cancelled or died: its servers go, and its folder
//! not recorded, unmarked  nobody knows it, for instance because the store was lost: it is left alone, and told
//! ```

use super::Inner;
use crate::cluster::ClusterId;
use crate::local::Provider;
use crate::store;
use crate::telemetry::metrics::LOCAL_STARTS;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Looks after them until `stop`. The servers go on after that.
pub(super) async fn run(inner: Arc<Inner>, provider: Arc<Provider>, stop: CancellationToken) {
    let mut strangers = BTreeSet::new();
    provider.sweep(&provider.turn().await).await;
    while !stop.is_cancelled() {
        for id in provider.found() {
            look(&inner, &provider, &id, &mut strangers).await;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(inner: &Inner, provider: &Provider, id: &ClusterId, strangers: &mut BTreeSet<ClusterId>) {
    // In its turn, what is recorded stays so: nobody makes the folder of a cluster before it is recorded, or removes one without
    // the turn.
    let turn = provider.turn().await;
    match inner.store.cluster(id).await.map(|row| (row.is_adopting, row.local)) {
        Ok((true, Some(_))) => {}
        Ok((false, Some(servers))) => {
            provider.finish(id);
            let started = provider.tend(&turn, id, &servers).len();
            inner.metrics.counter(&LOCAL_STARTS, &[]).increment(started as u64);
        }
        Ok((_, None)) | Err(store::Error::NoCluster) if provider.is_unfinished(id) => match provider.clear(&turn, id).await {
            Ok(()) => tracing::info!(cluster.id = %id, "what a restore had left behind was removed"),
            Err(fault) => tracing::error!(cluster.id = %id, error = %fault, "what a restore has left behind cannot be removed"),
        },
        Ok((_, None)) | Err(store::Error::NoCluster) => {
            if strangers.insert(id.clone()) {
                tracing::warn!(cluster.id = %id, "a folder below [local] root belongs to no cluster that is known; it is left alone");
            }
        }
        Err(fault) => tracing::error!(cluster.id = %id, error = %fault, "the record of a cluster of this machine could not be read"),
    }
}
