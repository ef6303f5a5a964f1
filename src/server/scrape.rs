//! `/metrics` on the second port: what the rooms have counted, and what is looked up when somebody asks.
//!
//! What is looked up costs a bounded number of reads and serves everybody for a second. Its series are made anew each time,
//! so a cluster that is not known any more has none.

use crate::backup::{Backup, Level, retention};
use crate::executor::Executor;
use crate::failure::Reason;
use crate::fleet::Definition;
use crate::operation::{Spec, State as OperationState};
use crate::store::{self, BackupFilter};
use crate::telemetry::metrics::{
    ATTEMPTS_RUNNING, BUILD_INFO, CLUSTERS, LAST_BACKUP, LAST_GOOD, LAST_PROVED, LAST_SUSPECT, Metrics, OLDEST_OPERATION, OPERATION_FAILURES, OPERATIONS,
    OPERATIONS_ENDED, ORPHANS, QUEUE_LENGTH, QUEUE_LIMIT, READY, START_TIME, STORE_READY, WORKERS,
};
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How long what was looked up serves.
const FRESH: Duration = Duration::from_secs(1);

/// How often observations are added to their histograms, so that they take no memory when nobody asks.
const SETTLE_PERIOD: Duration = Duration::from_secs(5);

/// Most clusters that have series of their own; those with the least ids have them.
const CLUSTER_SERIES: usize = 1000;

/// Most backups of one cluster that are looked at, the newest.
const BACKUPS_OF_CLUSTER: usize = 100;

/// Most backups that are looked at for all clusters together; each cluster has an equal part, and at least one.
const BACKUPS: usize = 10_000;

/// Most attempts that are counted whose files are due to be removed.
const ORPHANS_COUNTED: usize = 1000;

/// The text format of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Scrape {
    executor: Executor,
    stop: CancellationToken,
    started_at: DateTime<Utc>,
    /// What was looked up last, as text. Held over the look: who asks at the same time shares it.
    looked: Mutex<Option<(Instant, String)>>,
}

/// The route, and the task that keeps histograms small until `stop`.
pub(super) fn router(executor: Executor, stop: CancellationToken) -> Router {
    let (metrics, stopped) = (executor.metrics().clone(), stop.clone());
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(SETTLE_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stopped.run_until_cancelled(tick.tick()).await.is_some() {
            metrics.settle();
        }
    });
    let scrape = Arc::new(Scrape { executor, stop, started_at: Utc::now(), looked: Mutex::new(None) });
    Router::new().route("/metrics", get(render)).with_state(scrape)
}

async fn render(State(scrape): State<Arc<Scrape>>) -> impl IntoResponse {
    let text = scrape.executor.metrics().render() + &scrape.looked().await;
    ([(CONTENT_TYPE, TEXT)], text)
}

impl Scrape {
    async fn looked(&self) -> String {
        let mut looked = self.looked.lock().await;
        if let Some((at, text)) = &*looked
            && at.elapsed() < FRESH
        {
            return text.clone();
        }
        let metrics = Metrics::empty();
        self.look_around(&metrics);
        if let Err(fault) = self.look_into_store(&metrics).await {
            // The gauge of the store says so, too; those that need it are left out.
            tracing::warn!(error = %fault, "some metrics could not be looked up");
        }
        let text = metrics.render();
        *looked = Some((Instant::now(), text.clone()));
        text
    }

    /// What can be told without the store.
    fn look_around(&self, metrics: &Metrics) {
        let executor = &self.executor;
        let store_ready = executor.store().ready().is_ok();
        metrics.gauge(&BUILD_INFO, &[env!("CARGO_PKG_VERSION")]).set(1.0);
        metrics.gauge(&START_TIME, &[]).set(seconds(self.started_at));
        metrics.gauge(&STORE_READY, &[]).set(f64::from(u8::from(store_ready)));
        metrics.gauge(&READY, &[]).set(f64::from(u8::from(store_ready && !self.stop.is_cancelled())));
        metrics.gauge(&ATTEMPTS_RUNNING, &[]).set(executor.running() as f64);
        metrics.gauge(&WORKERS, &[]).set(executor.workers() as f64);
        metrics.gauge(&CLUSTERS, &[]).set(executor.fleet().all().len() as f64);
    }

    async fn look_into_store(&self, metrics: &Metrics) -> Result<(), store::Error> {
        let store = self.executor.store();
        let census = store.census().await?;
        // What has not happened yet stands at zero: a rise from nothing would not be seen as one.
        for kind in Spec::KINDS {
            OperationState::OPEN.iter().for_each(|state| metrics.gauge(&OPERATIONS, &[kind, state]).set(0.0));
            OperationState::ENDED.iter().for_each(|outcome| drop(metrics.counter(&OPERATIONS_ENDED, &[kind, outcome])));
        }
        Reason::ALL.iter().for_each(|reason| drop(metrics.counter(&OPERATION_FAILURES, &[reason.as_str()])));
        for ((kind, state), count) in census.open {
            metrics.gauge(&OPERATIONS, &[kind, state]).set(count as f64);
        }
        for ((kind, outcome), count) in census.ended {
            metrics.counter(&OPERATIONS_ENDED, &[kind, outcome]).absolute(count);
        }
        for (reason, count) in census.failures {
            metrics.counter(&OPERATION_FAILURES, &[reason]).absolute(count);
        }
        let age = census.oldest_created_at.and_then(|oldest| (Utc::now() - oldest).to_std().ok());
        metrics.gauge(&OLDEST_OPERATION, &[]).set(age.unwrap_or_default().as_secs_f64());
        metrics.gauge(&QUEUE_LENGTH, &[]).set(census.queued as f64);
        metrics.gauge(&QUEUE_LIMIT, &[]).set(census.queue_limit as f64);
        metrics.gauge(&ORPHANS, &[]).set(store.doomed(ORPHANS_COUNTED).await?.len() as f64);

        let clusters = self.executor.fleet().all();
        let rows = (BACKUPS / clusters.len().max(1)).clamp(1, BACKUPS_OF_CLUSTER);
        for cluster in clusters.iter().take(CLUSTER_SERIES) {
            let mut backups = store.backups(&BackupFilter::Cluster(cluster.id.clone()), None, rows).await?;
            if !backups.iter().any(Backup::is_available) {
                // Behind many that failed there may be one.
                backups.extend(store.newest_available(&cluster.folder_id, &cluster.id).await?);
            }
            tell_newest(metrics, cluster, &backups);
        }
        Ok(())
    }
}

/// Tells how old the newest data is that can be restored. A copy is as old as what it was copied from, so the order in which
/// backups were asked for does not decide.
fn tell_newest(metrics: &Metrics, cluster: &Definition, backups: &[Backup]) {
    let labels = [cluster.folder_id.as_str(), cluster.id.as_str()];
    let available = || backups.iter().filter(|backup| backup.is_available());
    let newest = available().filter_map(|backup| backup.started_at).max();
    let proved = available().filter(|backup| backup.level == Some(Level::Loaded)).filter_map(|backup| backup.started_at).max();
    let suspect = available().max_by_key(|backup| backup.started_at).is_some_and(Backup::is_suspect);
    metrics.gauge(&LAST_SUSPECT, &labels).set(f64::from(u8::from(suspect)));
    metrics.gauge(&LAST_BACKUP, &labels).set(newest.map_or(0.0, seconds));
    let good = backups.iter().filter(|backup| retention::is_good(backup)).filter_map(|backup| backup.started_at).max();
    metrics.gauge(&LAST_GOOD, &labels).set(good.map_or(0.0, seconds));
    metrics.gauge(&LAST_PROVED, &labels).set(proved.map_or(0.0, seconds));
}

/// An instant as seconds since 1970.
fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1000.0
}
