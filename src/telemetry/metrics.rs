//! What is counted and measured, in the form that Prometheus reads.
//!
//! Owns the name, the unit and the labels of every family, and the registry that holds their values. Rooms count with one
//! line; what a number means to them is not known here. Values of labels are words of ours or identifiers that were checked,
//! of a bounded number, and never a name of a key, an address or a secret.
//!
//! A registry belongs to a service and not to the process: several services in one process do not mix their numbers, and a
//! number counts wherever the work runs, on whatever thread.

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use std::fmt;
use std::sync::Arc;

/// What a family holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A number that only rises, from zero at the start of the process.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// How many observations lie below each of these bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word of the text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A family of series: one name, one meaning, told apart by labels.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// Its name, which ends in the unit, or in `_total` for a counter.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// The labels of each series, in the order in which their values are given.
    pub labels: &'static [&'static str],
    /// What it means, in one line.
    pub help: &'static str,
}

/// Bounds of the time that a call takes, in seconds.
const CALL_BOUNDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Bounds of the time that a step of the work takes, in seconds.
const STEP_BOUNDS: &[f64] = &[0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0];

/// Declares the families, and the list of them all.
macro_rules! families {
    ($($constant:ident: $kind:expr, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Family = Family { name: $name, kind: $kind, labels: &[$($label),*], help: $help };
        )*

        /// Every family that a service exports.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    BUILD_INFO: Kind::Gauge, "redkeep_build_info", ["version"],
        "Always 1; the label tells the version that runs.";
    START_TIME: Kind::Gauge, "redkeep_start_time_seconds", [],
        "When the service started, in seconds since 1970.";
    READY: Kind::Gauge, "redkeep_ready", [],
        "1 while /readyz answers that the service is ready, else 0.";
    STORE_READY: Kind::Gauge, "redkeep_store_ready", [],
        "1 while the store can be written; 0 once a write or sync failed, until a restart.";
    CLUSTERS: Kind::Gauge, "redkeep_clusters", [],
        "Clusters that are known.";
    CALLS: Kind::Counter, "redkeep_calls_total", ["method", "code"],
        "Calls answered, by method and status code; unknown paths count as the method `unknown`.";
    CALL_SECONDS: Kind::Histogram(CALL_BOUNDS), "redkeep_call_duration_seconds", ["method"],
        "Time from a call's headers to the end of its answer, in seconds.";
    CALLS_IN_FLIGHT: Kind::Gauge, "redkeep_calls_in_flight", [],
        "Calls that are being answered.";
    AUDIT_LINES: Kind::Counter, "redkeep_audit_lines_total", [],
        "Lines written to the audit file.";
    AUDIT_FAILURES: Kind::Counter, "redkeep_audit_failures_total", [],
        "Audit lines that could not be written in time, and rotations that failed.";
    OPERATIONS: Kind::Gauge, "redkeep_operations", ["kind", "state"],
        "Operations that have not ended.";
    OPERATIONS_ENDED: Kind::Counter, "redkeep_operations_ended_total", ["kind", "outcome"],
        "Operations that ended, each once.";
    OPERATION_FAILURES: Kind::Counter, "redkeep_operation_failures_total", ["reason"],
        "Operations that failed, by reason.";
    OLDEST_OPERATION: Kind::Gauge, "redkeep_oldest_operation_age_seconds", [],
        "Age of the oldest operation that has not ended; 0 when there is none.";
    QUEUE_LENGTH: Kind::Gauge, "redkeep_queue_length", [],
        "Operations that wait for a worker.";
    QUEUE_LIMIT: Kind::Gauge, "redkeep_queue_limit", [],
        "Most operations that may wait; more are refused.";
    ATTEMPTS_RUNNING: Kind::Gauge, "redkeep_attempts_running", [],
        "Attempts that run in this process.";
    WORKERS: Kind::Gauge, "redkeep_workers", [],
        "Most attempts that work at once in this process.";
    RETRIES: Kind::Counter, "redkeep_attempt_retries_total", ["reason"],
        "Attempts that failed and were followed by another, by reason.";
    HAND_BACKS: Kind::Counter, "redkeep_attempts_handed_back_total", [],
        "Attempts given back to the queue at a graceful stop.";
    FENCED: Kind::Counter, "redkeep_fenced_writes_total", [],
        "Writes of late workers that were dropped because another attempt had begun or the operation had ended.";
    FORKS: Kind::Counter, "redkeep_forks_total", ["attempt"],
        "Snapshots for which a source was asked to fork: the `first` of an operation, or a `repeated` one after a failure.";
    PLACE_WAIT: Kind::Histogram(STEP_BOUNDS), "redkeep_place_wait_seconds", [],
        "Time that a snapshot waited for others on the same machine, in seconds; those that did not wait are left out.";
    WINDOW_WAITS: Kind::Counter, "redkeep_window_waits_total", [],
        "Times that a backup was put off because no snapshot may start at this time of the week.";
    SCHEDULED: Kind::Counter, "redkeep_scheduled_backups_total", ["event"],
        "Scheduled backups: `started`, one for each operation; then `succeeded`, `retried` by another operation or `failed` for good; `missed` when never begun.";
    LOCAL_STARTS: Kind::Counter, "redkeep_local_server_starts_total", [],
        "Servers of clusters on this machine that had ended and were started again.";
    SUSPICIONS: Kind::Counter, "redkeep_suspicions_total", [],
        "Backups whose source looked wrong.";
    SNAPSHOT_BYTES: Kind::Counter, "redkeep_snapshot_bytes_total", ["form"],
        "Bytes of whole snapshots: `decoded`, as the source sent them, and `stored`.";
    STEP_SECONDS: Kind::Histogram(STEP_BOUNDS), "redkeep_step_duration_seconds", ["step"],
        "Time that a step of the work took when it was passed, in seconds.";
    DRILLS: Kind::Counter, "redkeep_drills_total", ["level", "outcome"],
        "Proofs of backups that ended, by the level that was asked for: `proved`, or `failed`.";
    DRILL_SECONDS: Kind::Histogram(STEP_BOUNDS), "redkeep_drill_duration_seconds", [],
        "Time of a proof by loading that succeeded, from its beginning to its record, in seconds.";
    ORPHANS: Kind::Gauge, "redkeep_orphaned_attempts", [],
        "Unpublished attempts whose files are due to be removed, at most 1000.";
    FILES_DELETED: Kind::Counter, "redkeep_collector_deleted_files_total", ["of"],
        "Files removed from storage: of an unpublished `attempt`, or of a deleted `backup`.";
    COLLECTOR_FAILURES: Kind::Counter, "redkeep_collector_failures_total", [],
        "Removals of files that failed; they are tried again.";
    RETENTION_BACKUPS: Kind::Gauge, "redkeep_retention_backups", ["fate", "reason"],
        "Backups by what the rules of retention say of them, and why, as the last round found.";
    RETENTION_DELETED: Kind::Counter, "redkeep_retention_deleted_total", ["reason"],
        "Backups that were deleted because they have had their time: by `age`, or `failed` ones.";
    RETENTION_ROUND: Kind::Gauge, "redkeep_retention_last_round_timestamp_seconds", [],
        "When the rules of retention were last asked about every backup, in seconds since 1970; 0 before the first round.";
    LAST_BACKUP: Kind::Gauge, "redkeep_last_backup_timestamp_seconds", ["folder", "cluster"],
        "When the snapshot of the newest available backup began, in seconds since 1970; 0 when there is none.";
    LAST_SUSPECT: Kind::Gauge, "redkeep_last_backup_suspect", ["folder", "cluster"],
        "1 while the source of the newest available backup looked wrong and nobody has cleared that, else 0.";
    LAST_PROVED: Kind::Gauge, "redkeep_last_proved_backup_timestamp_seconds", ["folder", "cluster"],
        "The same for the newest available backup that a real server has loaded (level LOADED).";
    LAST_GOOD: Kind::Gauge, "redkeep_last_good_backup_timestamp_seconds", ["folder", "cluster"],
        "The same for the newest available backup that was walked to its end and is not suspect: the one that retention never removes.";
}

/// Where all counting is said to come from; nothing looks at it.
const METADATA: Metadata<'static> = Metadata::new("redkeep", Level::INFO, None);

/// The numbers of one service. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<PrometheusRecorder>);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// No numbers yet, but each family without labels stands at zero.
    pub fn new() -> Self {
        let metrics = Self::empty();
        for family in FAMILIES.iter().filter(|family| family.labels.is_empty()) {
            match family.kind {
                Kind::Counter => drop(metrics.counter(family, &[])),
                // A gauge that nobody sets says nothing, and 0 would be a lie.
                Kind::Gauge => {}
                Kind::Histogram(_) => drop(metrics.histogram(family, &[])),
            }
        }
        metrics
    }

    /// No series at all: for numbers that are looked up at the moment they are asked for.
    pub fn empty() -> Self {
        let mut builder = PrometheusBuilder::new();
        for family in FAMILIES {
            if let Kind::Histogram(bounds) = family.kind {
                builder = builder.set_buckets_for_metric(Matcher::Full(family.name.to_owned()), bounds).expect("no histogram is declared without bounds");
            }
        }
        let recorder = builder.build_recorder();
        for family in FAMILIES {
            match family.kind {
                Kind::Counter => recorder.describe_counter(family.name.into(), None, family.help.into()),
                Kind::Gauge => recorder.describe_gauge(family.name.into(), None, family.help.into()),
                Kind::Histogram(_) => recorder.describe_histogram(family.name.into(), None, family.help.into()),
            }
        }
        Self(Arc::new(recorder))
    }

    /// One series of a family of counters, at zero if it is new. Values stand in the order of the family's labels.
    pub fn counter(&self, family: &'static Family, values: &[&str]) -> Counter {
        debug_assert_eq!(family.kind, Kind::Counter, "{}", family.name);
        self.0.register_counter(&key(family, values), &METADATA)
    }

    /// One series of a family of gauges.
    pub fn gauge(&self, family: &'static Family, values: &[&str]) -> Gauge {
        debug_assert_eq!(family.kind, Kind::Gauge, "{}", family.name);
        self.0.register_gauge(&key(family, values), &METADATA)
    }

    /// One series of a family of histograms.
    pub fn histogram(&self, family: &'static Family, values: &[&str]) -> Histogram {
        debug_assert!(matches!(family.kind, Kind::Histogram(_)), "{}", family.name);
        self.0.register_histogram(&key(family, values), &METADATA)
    }

    /// All series in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.handle().render()
    }

    /// Adds the observations since the last call to their histograms. Until then each takes memory, so it is to be called every
    /// few seconds, whether anybody reads the numbers or not.
    pub fn settle(&self) {
        self.0.handle().run_upkeep();
    }
}

fn key(family: &'static Family, values: &[&str]) -> Key {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let labels: Vec<Label> = family.labels.iter().zip(values).map(|(label, value)| Label::new(*label, (*value).to_owned())).collect();
    Key::from_parts(family.name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_the_format() {
        let mut seen = std::collections::BTreeSet::new();
        for family in FAMILIES {
            let Family { name, kind, labels, help } = family;
            assert!(seen.insert(name), "{name} is declared twice");
            assert!(name.starts_with("redkeep_") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(!matches!(kind, Kind::Histogram(_)) || name.ends_with("_seconds"), "{name}");
            assert!(labels.iter().all(|label| !["le", "quantile", "job", "instance"].contains(label)), "{name}");
            assert!(help.ends_with('.') && !help.contains('\n') && !help.contains('|'), "{name}");
        }
    }

    #[test]
    fn numbers_are_rendered_with_their_labels_and_help() {
        let metrics = Metrics::new();
        metrics.counter(&CALLS, &["a.B/C", "OK"]).increment(2);
        metrics.gauge(&LAST_BACKUP, &["default", "ma\"in"]).set(1.5);
        metrics.histogram(&CALL_SECONDS, &["a.B/C"]).record(0.003);
        metrics.settle();
        let text = metrics.render();
        for line in [
            "# TYPE redkeep_calls_total counter",
            "redkeep_calls_total{method=\"a.B/C\",code=\"OK\"} 2",
            "redkeep_last_backup_timestamp_seconds{folder=\"default\",cluster=\"ma\\\"in\"} 1.5",
            "redkeep_call_duration_seconds_bucket{method=\"a.B/C\",le=\"0.0025\"} 0",
            "redkeep_call_duration_seconds_bucket{method=\"a.B/C\",le=\"0.005\"} 1",
            "redkeep_call_duration_seconds_bucket{method=\"a.B/C\",le=\"+Inf\"} 1",
            "redkeep_fenced_writes_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.contains(&format!("# HELP {} {}", CALLS.name, CALLS.help)));
    }

    #[test]
    fn registries_do_not_mix() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.counter(&FENCED, &[]).increment(1);
        assert!(one.render().contains("redkeep_fenced_writes_total 1"));
        assert!(other.render().contains("redkeep_fenced_writes_total 0"));
        assert!(!Metrics::empty().render().contains("redkeep"));
    }
}
