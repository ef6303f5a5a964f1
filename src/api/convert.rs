//! Every arrow between wire and domain.

use super::status;
use crate::artifacts::Folder;
use crate::backup::retention::Verdict;
use crate::backup::{self, Backup, Checksum, Consistency, Impact, Level, Minimum, Origin, Proof, Suspicion};
use crate::cluster::policy::Policy;
use crate::cluster::{Health, Host, ONLY_SHARD, Role, Timestamp, View};
use crate::executor;
use crate::operation::{Door, Operation, Progress, Response, RestoreResult, Spec, State, Step};
use crate::pb::google::r#type::TimeOfDay;
use crate::pb::{managed, mdb, operation as wire, own};
use prost::{Message, Name};
use prost_types::Any;
use std::collections::BTreeMap;

/// Name of the preset of clusters that run elsewhere.
const PRESET: &str = "adopted";

/// A message in an `Any`.
fn any<T: Message + Name>(message: &T) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", T::full_name()), value: message.encode_to_vec() }
}

/// `google.protobuf.Empty` in an `Any`.
fn empty() -> Any {
    Any { type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(), value: Vec::new() }
}

/// A link to a file.
pub(super) fn download_link(file: &executor::File, url: String, expires_at: Timestamp) -> own::DownloadLink {
    own::DownloadLink {
        shard_name: file.shard.clone(),
        file_name: file.name.clone(),
        url,
        bytes: i64::try_from(file.bytes).unwrap_or(i64::MAX),
        sha256: file.sha256.clone(),
        expires_at: Some(timestamp(expires_at)),
    }
}

/// An instant.
pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.timestamp(), nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0) }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An operation. `error` or `response` is there only at its end.
pub(super) fn operation(operation: &Operation) -> wire::Operation {
    let result = match &operation.state {
        State::Queued { .. } | State::Running { .. } | State::Cancelling { .. } => None,
        State::Succeeded(response) => Some(wire::operation::Result::Response(self::response(response, operation.door))),
        State::Failed(failure) => Some(wire::operation::Result::Error(status::failure(failure))),
        State::Cancelled => Some(wire::operation::Result::Error(status::cancelled(operation.progress.left.as_ref().map_or("", |left| &left.state)))),
    };
    wire::Operation {
        id: operation.id.to_string(),
        description: operation.description.clone(),
        created_at: Some(timestamp(operation.created_at)),
        created_by: operation.created_by.clone(),
        modified_at: Some(timestamp(operation.modified_at)),
        done: operation.state.is_terminal(),
        metadata: Some(metadata(operation)),
        result,
    }
}

fn response(response: &Response, door: Door) -> Any {
    match response {
        Response::Cluster(view) => any(&cluster(view)),
        Response::Backup(row) => match door {
            Door::Redkeep | Door::MemStore => any(&own_backup(row)),
            Door::Managed => any(&managed_backup(row)),
        },
        Response::Exported(result) => any(&own::ExportResult { bucket: result.bucket.clone(), keys: result.keys.clone(), bytes: signed(result.bytes) }),
        Response::Restored(result) => any(&restore_result(result)),
        Response::Policy(row) => any(&policy(row)),
        Response::Empty => empty(),
    }
}

fn restore_result(result: &RestoreResult) -> own::RestoreResult {
    own::RestoreResult {
        host_name: result.host_name.clone(),
        keys: signed(result.keys),
        bytes: signed(result.bytes),
        skipped_keys: signed(result.skipped_keys),
        replaced_keys: signed(result.replaced_keys),
        expired_keys: signed(result.expired_keys),
        functions: signed(result.functions),
        types: result.types.iter().map(|(name, keys)| (name.clone(), signed(*keys))).collect(),
        dry_run: result.dry_run,
    }
}

/// A retention policy of a cluster.
pub(super) fn policy(policy: &Policy) -> mdb::BackupRetentionPolicy {
    let [minute, hour, day_of_month, month, day_of_week] = policy.cron.clone();
    mdb::BackupRetentionPolicy {
        policy_id: policy.id.clone(),
        cluster_id: policy.cluster_id.to_string(),
        policy_name: policy.name.clone(),
        created_at: Some(timestamp(policy.created_at)),
        cron: Some(mdb::CronTab { minute, hour, day_of_month, month, day_of_week }),
        retain_for_days: i64::from(policy.retain_days),
        description: policy.description.clone(),
    }
}

fn metadata(operation: &Operation) -> Any {
    let progress = Some(progress(operation));
    let cluster_id = operation.cluster_id.to_string();
    let backup_id = operation.backup_id.map(|id| id.to_string()).unwrap_or_default();
    match (&operation.spec, operation.door) {
        (Spec::CreateBackup, Door::Managed) => any(&managed::BackupClusterMetadata { cluster_id, backup_id, progress }),
        (Spec::CreateBackup, Door::Redkeep | Door::MemStore) => any(&own::CreateBackupMetadata { cluster_id, backup_id, progress }),
        (Spec::UpdateBackup(_), _) => any(&own::UpdateBackupMetadata { cluster_id, backup_id, progress }),
        (Spec::DeleteBackup, Door::Managed) => any(&managed::DeleteBackupMetadata { backup_id, progress }),
        (Spec::DeleteBackup, Door::Redkeep | Door::MemStore) => any(&own::DeleteBackupMetadata { cluster_id, backup_id, progress }),
        (Spec::CopyBackup { source }, _) => any(&own::CopyBackupMetadata { cluster_id, backup_id, source_backup_id: source.to_string(), progress }),
        (Spec::ExportBackup(_), _) => any(&own::ExportBackupMetadata { cluster_id, backup_id, progress }),
        (Spec::ImportBackup(_), _) => any(&own::ImportBackupMetadata { cluster_id, backup_id, progress }),
        (Spec::AdoptCluster, _) => any(&own::AdoptClusterMetadata { cluster_id, progress }),
        (Spec::UpdateConnection, _) => any(&own::UpdateConnectionMetadata { cluster_id, progress }),
        (Spec::ForgetCluster, _) => any(&own::ForgetClusterMetadata { cluster_id, progress }),
        (Spec::UndeleteBackup, _) => any(&own::UndeleteBackupMetadata { cluster_id, backup_id, progress }),
        (Spec::VerifyBackup { .. }, _) => any(&own::VerifyBackupMetadata { cluster_id, backup_id, progress }),
        (Spec::RestoreInto(target), _) => any(&own::RestoreIntoMetadata { cluster_id, backup_id, host_name: target.place.to_string(), progress }),
        (Spec::RestoreCluster(plan), _) => any(&managed::RestoreClusterMetadata { cluster_id, backup_id: plan.source.to_string() }),
        (Spec::DeleteCluster, _) => any(&managed::DeleteClusterMetadata { cluster_id }),
        (Spec::UpdateCluster(_), _) => any(&managed::UpdateClusterMetadata { cluster_id }),
        (Spec::CreatePolicy(policy), _) => any(&mdb::CreateBackupRetentionPolicyMetadata { cluster_id, policy_id: policy.id.clone() }),
        (Spec::DeletePolicy { policy_id }, _) => any(&mdb::DeleteBackupRetentionPolicyMetadata { cluster_id, policy_id: policy_id.clone() }),
    }
}

/// How far an operation is.
pub(super) fn progress(operation: &Operation) -> own::Progress {
    let Progress { shards, waiting_for, bytes_per_second, .. } = &operation.progress;
    let step = match (&operation.state, operation.reached) {
        // An operation that was handed back begins anew; one that waits after a failure tells how far it came.
        (State::Queued { .. }, _) if operation.last_failure.is_none() => own::progress::Step::Unspecified,
        (_, Some(step)) => step_of(step),
        (_, None) => own::progress::Step::Unspecified,
    };
    let (waiting_for, next_attempt_at) = match &operation.state {
        State::Queued { not_before } if !waiting_for.is_empty() => (waiting_for.clone(), Some(timestamp(*not_before))),
        State::Queued { not_before } if operation.last_failure.is_some() => ("the next attempt".to_owned(), Some(timestamp(*not_before))),
        State::Queued { .. } => ("a worker".to_owned(), None),
        State::Running { .. } => (waiting_for.clone(), None),
        State::Cancelling { .. } => ("the work to stop".to_owned(), None),
        State::Succeeded(_) | State::Failed(_) | State::Cancelled => (String::new(), None),
    };
    let moving = matches!(operation.state, State::Running { .. });
    own::Progress {
        step: step as i32,
        shards: shards
            .iter()
            .map(|shard| own::ShardProgress {
                shard_name: shard.shard_name.clone(),
                host_name: shard.host_name.clone(),
                bytes: signed(shard.bytes),
                stored_bytes: signed(shard.stored_bytes),
                keys: signed(shard.keys),
                keys_expected: signed(shard.keys_expected),
                bytes_expected: signed(shard.bytes_expected),
            })
            .collect(),
        attempt: i32::try_from(operation.epoch.0).unwrap_or(i32::MAX),
        last_error: operation.last_failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default(),
        waiting_for,
        bytes_per_second: if moving { signed(*bytes_per_second) } else { 0 },
        next_attempt_at,
    }
}

fn step_of(step: Step) -> own::progress::Step {
    match step {
        Step::Preflight => own::progress::Step::Preflight,
        Step::Snapshot => own::progress::Step::Snapshot,
        Step::Seal => own::progress::Step::Seal,
        Step::Load => own::progress::Step::Load,
        Step::Publish => own::progress::Step::Publish,
        Step::Work => own::progress::Step::Work,
    }
}

/// A cluster. One that runs elsewhere always counts as RUNNING once it is adopted; probes set its health only.
pub(super) fn cluster(view: &View) -> managed::Cluster {
    let major_minor = view.version.split('.').take(2).collect::<Vec<_>>().join(".");
    let config = managed::ClusterConfig {
        version: major_minor,
        full_version: view.version.clone(),
        resources: Some(resources()),
        access: Some(managed::Access::default()),
        redis: Some(managed::config::RedisConfigSet::default()),
        backup_window_start: view.backup_window_start.map(time_of_day),
        backup_retain_period_days: view.backup_retain_days.map(i64::from),
        ..Default::default()
    };
    managed::Cluster {
        id: view.id.to_string(),
        folder_id: view.folder_id.to_string(),
        created_at: Some(timestamp(view.created_at)),
        name: view.name.clone(),
        description: view.description.clone(),
        labels: view.labels.clone(),
        environment: managed::cluster::Environment::Production as i32,
        config: Some(config),
        health: match view.health {
            Health::Unknown => managed::cluster::Health::Unknown,
            Health::Alive => managed::cluster::Health::Alive,
            Health::Degraded => managed::cluster::Health::Degraded,
            Health::Dead => managed::cluster::Health::Dead,
        } as i32,
        status: if view.is_adopting { managed::cluster::Status::Creating } else { managed::cluster::Status::Running } as i32,
        maintenance_window: Some(managed::MaintenanceWindow {
            policy: Some(managed::maintenance_window::Policy::Anytime(managed::AnytimeMaintenanceWindow {})),
        }),
        is_ha: view.hosts.len() > 1,
        tls_enabled: view.tls_enabled,
        sharded: view.cluster_mode,
        persistence_mode: if view.keeps_no_log { managed::cluster::PersistenceMode::Off } else { managed::cluster::PersistenceMode::On } as i32,
        ..Default::default()
    }
}

/// A minute of the day.
fn time_of_day(minute: u16) -> TimeOfDay {
    TimeOfDay { hours: i32::from(minute / 60), minutes: i32::from(minute % 60), seconds: 0, nanos: 0 }
}

fn resources() -> managed::Resources {
    managed::Resources { resource_preset_id: PRESET.to_owned(), ..Default::default() }
}

/// A host of a cluster in a zone.
pub(super) fn host(cluster_id: &str, zone: &str, host: &Host) -> managed::Host {
    let (health, service) = match host.health {
        Health::Unknown => (managed::host::Health::Unknown, managed::service::Health::Unknown),
        Health::Alive => (managed::host::Health::Alive, managed::service::Health::Alive),
        Health::Degraded => (managed::host::Health::Degraded, managed::service::Health::Alive),
        Health::Dead => (managed::host::Health::Dead, managed::service::Health::Dead),
    };
    managed::Host {
        name: host.name.clone(),
        cluster_id: cluster_id.to_owned(),
        zone_id: zone.to_owned(),
        resources: Some(resources()),
        role: match host.role {
            Role::Unknown => managed::host::Role::Unknown,
            Role::Primary => managed::host::Role::Master,
            Role::Replica => managed::host::Role::Replica,
        } as i32,
        health: health as i32,
        services: vec![managed::Service { r#type: managed::service::Type::Redis as i32, health: service as i32 }],
        shard_name: host.shard_name.clone(),
        replica_priority: host.replica_priority,
        ..Default::default()
    }
}

/// The shards of a cluster, in order of their numbers: the only one outside of cluster mode.
pub(super) fn shards(view: &View) -> Vec<managed::Shard> {
    let mut hosts: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for host in view.hosts.iter().filter(|host| !host.shard_name.is_empty()) {
        *hosts.entry((host.shard_name.len(), &host.shard_name)).or_default() += 1;
    }
    if hosts.is_empty() && !view.cluster_mode {
        hosts.insert((0, ONLY_SHARD), 0);
    }
    hosts.into_iter().map(|((_, name), count)| managed::Shard { name: name.to_owned(), cluster_id: view.id.to_string(), is_ha: count > 1 }).collect()
}

/// A backup in the managed-Redis schema. There `created_at` is when it was complete.
pub(super) fn managed_backup(backup: &Backup) -> managed::Backup {
    managed::Backup {
        id: backup.id.to_string(),
        folder_id: backup.folder_id.to_string(),
        created_at: Some(timestamp(backup.completed_at.unwrap_or(backup.created_at))),
        source_cluster_id: backup.cluster_id.to_string(),
        started_at: Some(timestamp(backup.started_at.unwrap_or(backup.created_at))),
        source_shard_names: backup.shards.iter().map(|shard| shard.name.clone()).collect(),
        r#type: match backup.origin {
            Origin::Automated => managed::backup::BackupType::Automated,
            Origin::Manual => managed::backup::BackupType::Manual,
        } as i32,
    }
}

/// A backup in our schema.
pub(super) fn own_backup(backup: &Backup) -> own::Backup {
    let (state, purge_at, error) = match &backup.state {
        backup::State::Creating => (own::backup::State::Creating, None, None),
        backup::State::Available => (own::backup::State::Available, None, None),
        backup::State::Error(failure) => (own::backup::State::Error, None, Some(status::failure(failure))),
        backup::State::Deleting { purge_at } => (own::backup::State::Deleting, Some(timestamp(*purge_at)), None),
    };
    let folder = Folder::of_backup(&backup.folder_id, &backup.cluster_id, backup.id);
    own::Backup {
        id: backup.id.to_string(),
        folder_id: backup.folder_id.to_string(),
        cluster_id: backup.cluster_id.to_string(),
        name: backup.name.to_string(),
        labels: backup.labels.clone(),
        state: state as i32,
        r#type: match backup.origin {
            Origin::Automated => own::backup::Type::Automated,
            Origin::Manual => own::backup::Type::Manual,
        } as i32,
        created_at: Some(timestamp(backup.created_at)),
        started_at: backup.started_at.map(timestamp),
        completed_at: backup.completed_at.map(timestamp),
        expires_at: backup.expires_at.map(timestamp),
        purge_at,
        holds: backup
            .holds
            .iter()
            .map(|hold| own::Hold { reason: hold.reason.clone(), created_by: hold.created_by.clone(), created_at: Some(timestamp(hold.created_at)) })
            .collect(),
        operation_id: backup.operation_id.clone(),
        // Of several that read it one is told: whoever waits for that meets the next.
        busy_operation_id: backup.busy.as_ref().or_else(|| backup.readers.first()).cloned().unwrap_or_default(),
        error,
        level: backup.level.map_or(own::backup::Level::Unspecified, level) as i32,
        consistency: match backup.consistency {
            None => own::backup::Consistency::Unspecified,
            Some(Consistency::PointInTime) => own::backup::Consistency::PointInTime,
            Some(Consistency::PerShard) => own::backup::Consistency::PerShard,
        } as i32,
        skew_ms: signed(backup.skew_millis),
        size_bytes: signed(backup.size_bytes),
        stored_bytes: signed(backup.stored_bytes),
        compression: backup.compression.clone(),
        path: backup.epoch.map(|epoch| folder.attempt(epoch).as_str().to_owned()).unwrap_or_default(),
        shards: backup.shards.iter().map(shard).collect(),
        age_recipients: backup.age_recipients.clone(),
        suspicion: backup.suspicion.as_ref().map(suspicion),
        minimum: least_of_all(&backup.shards).as_ref().map(minimum),
        stray_keys: signed(backup.shards.iter().map(|shard| shard.stray_keys).sum()),
        proofs: backup.proofs.iter().map(proof).collect(),
        planned_at: backup.planned_at.map(timestamp),
        policy_id: backup.policy_id.clone().unwrap_or_default(),
    }
}

/// What becomes of a backup by the rules of retention.
pub(super) fn expiry_plan(planned: &executor::Planned) -> own::ExpiryPlan {
    use own::expiry_plan::Fate;
    let fate = match planned.verdict {
        Verdict::Keep(_) => Fate::Keep,
        Verdict::Expire(_) => Fate::Expire,
        Verdict::Deleted(_) => Fate::Deleted,
    };
    own::ExpiryPlan {
        backup_id: planned.backup_id.to_string(),
        fate: fate as i32,
        reason: planned.verdict.to_string(),
        operation_id: planned.operation_id.map(|id| id.to_string()).unwrap_or_default(),
        backup_name: planned.name.to_string(),
        ends_at: planned.ends_at.map(timestamp),
    }
}

fn proof(proof: &Proof) -> own::Proof {
    own::Proof {
        level: level(proof.level) as i32,
        engine: proof.engine.clone(),
        engine_version: proof.engine_version.clone(),
        started_at: Some(timestamp(proof.started_at)),
        duration_ms: signed(proof.duration_millis),
        keys: signed(proof.keys),
        sampled_keys: signed(proof.sampled_keys),
        operation_id: proof.operation_id.clone(),
    }
}

fn suspicion(suspicion: &Suspicion) -> own::Suspicion {
    own::Suspicion {
        reasons: suspicion.reasons.clone(),
        raised_at: Some(timestamp(suspicion.raised_at)),
        cleared_by: suspicion.cleared.as_ref().map(|cleared| cleared.by.clone()).unwrap_or_default(),
        cleared_at: suspicion.cleared.as_ref().map(|cleared| timestamp(cleared.at)),
    }
}

fn minimum(minimum: &Minimum) -> own::MinimumEngine {
    own::MinimumEngine {
        redis: minimum.redis.clone().unwrap_or_default(),
        valkey: minimum.valkey.clone().unwrap_or_default(),
        databases: i32::try_from(minimum.databases).unwrap_or(i32::MAX),
        modules: minimum.modules.clone(),
    }
}

/// What every shard can be loaded by; absent when it is not known of one.
fn least_of_all(shards: &[backup::Shard]) -> Option<Minimum> {
    let minima: Option<Vec<&Minimum>> = shards.iter().map(|shard| shard.minimum.as_ref()).collect();
    let all = minima.filter(|minima| !minima.is_empty())?;
    Some(all.into_iter().cloned().reduce(Minimum::joined).unwrap_or_default())
}

fn level(level: Level) -> own::backup::Level {
    match level {
        Level::Framed => own::backup::Level::Framed,
        Level::Sealed => own::backup::Level::Sealed,
        Level::Walked => own::backup::Level::Walked,
        Level::Loaded => own::backup::Level::Loaded,
    }
}

/// The word for a role in our schema.
pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Unknown => "unknown",
        Role::Primary => "primary",
        Role::Replica => "replica",
    }
}

fn shard(shard: &backup::Shard) -> own::ShardArtifact {
    own::ShardArtifact {
        name: shard.name.clone(),
        source_host: shard.source_host.clone(),
        source_role: role(shard.source_role).to_owned(),
        engine: shard.engine.clone(),
        engine_version: shard.engine_version.clone(),
        rdb_version: i32::from(shard.rdb_version),
        size_bytes: signed(shard.size_bytes),
        stored_bytes: signed(shard.stored_bytes),
        sha256: shard.sha256.split(',').filter(|digest| !digest.is_empty()).map(str::to_owned).collect(),
        checksum: match shard.checksum {
            Checksum::Verified => own::shard_artifact::Checksum::Verified,
            Checksum::Absent => own::shard_artifact::Checksum::Absent,
        } as i32,
        level: level(shard.level) as i32,
        opaque_reason: shard.opaque_reason.clone(),
        keys: signed(shard.keys),
        expiring_keys: signed(shard.expiring),
        databases: shard
            .databases
            .iter()
            .map(|database| own::DatabaseCount {
                index: i32::try_from(database.index).unwrap_or(i32::MAX),
                keys: signed(database.keys),
                expiring_keys: signed(database.expiring),
                bytes: signed(database.bytes),
            })
            .collect(),
        types: shard.types.iter().map(|(kind, keys)| (kind.clone(), signed(*keys))).collect(),
        functions: signed(shard.functions),
        replication_id: shard.replication_id.clone(),
        replication_offset: shard.replication_offset,
        used_memory_bytes: signed(shard.used_memory_bytes),
        fork_us: shard.fork_micros.map_or(0, signed),
        copy_on_write_bytes: shard.copy_on_write_bytes.map_or(0, signed),
        snapshot_started_at: Some(timestamp(shard.snapshot_started_at)),
        snapshot_at: Some(timestamp(shard.snapshot_at)),
        upload_started_at: Some(timestamp(shard.upload_started_at)),
        upload_ended_at: Some(timestamp(shard.upload_ended_at)),
        slots: shard.slots.iter().map(|range| own::SlotRange { first: i32::from(range.first), last: i32::from(range.last) }).collect(),
        stray_keys: signed(shard.stray_keys),
        impact: Some(impact(&shard.impact)),
        minimum: shard.minimum.as_ref().map(minimum),
        side_state: shard.side_state,
        moves: shard.moves.clone(),
    }
}

fn impact(impact: &Impact) -> own::Impact {
    own::Impact {
        chosen_because: impact.chosen_because.clone(),
        lag_seconds: impact.lag_seconds.map_or(0, signed),
        waited_ms: signed(impact.waited_millis),
        waited_for: impact.waited_for.clone(),
        bytes_per_second: signed(impact.bytes_per_second),
        shared_round: impact.shared_round,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::BackupId;
    use crate::operation::{Epoch, ExportResult, ExportTarget, ImportSource, OperationId, Policy, Tally};

    fn ended(door: Door, spec: Spec, response: Response) -> wire::Operation {
        let at = Timestamp::UNIX_EPOCH;
        operation(&Operation {
            id: OperationId::new(),
            folder_id: "default".parse().unwrap(),
            cluster_id: "main".parse().unwrap(),
            backup_id: Some(BackupId::new()),
            door,
            spec,
            description: String::new(),
            created_at: at,
            created_by: "anonymous".into(),
            modified_at: at,
            revision: 1,
            zone: None,
            policy: Policy { deadline_at: at, refork_delay_millis: 0 },
            epoch: Epoch(1),
            state: State::Succeeded(response),
            reached: None,
            tally: Tally::default(),
            last_failure: None,
            progress: Progress::default(),
            publication: None,
        })
    }

    #[test]
    fn metadata_and_response_follow_from_work_and_door() {
        let row = crate::backup::tests::sample;
        let backup = || Response::Backup(Box::new(row()));
        let target = ExportTarget { bucket: "reports".into(), path: String::new(), name: Some("a.rdb".into()), as_stored: false };
        let result = || Response::Exported(ExportResult { bucket: "reports".into(), keys: vec!["a.rdb".into()], bytes: 7 });
        let copy = Spec::CopyBackup { source: BackupId::new() };
        let import = ImportSource { bucket: "reports".into(), keys: vec!["a.rdb".into()] };
        for (door, spec, response, metadata_type, response_type) in [
            (Door::Redkeep, copy.clone(), backup(), "redkeep.v1.CopyBackupMetadata", "redkeep.v1.Backup"),
            (Door::MemStore, copy, backup(), "redkeep.v1.CopyBackupMetadata", "redkeep.v1.Backup"),
            (Door::MemStore, Spec::ExportBackup(target.clone()), result(), "redkeep.v1.ExportBackupMetadata", "redkeep.v1.ExportResult"),
            (Door::Redkeep, Spec::ExportBackup(target), result(), "redkeep.v1.ExportBackupMetadata", "redkeep.v1.ExportResult"),
            (Door::Redkeep, Spec::ImportBackup(import), backup(), "redkeep.v1.ImportBackupMetadata", "redkeep.v1.Backup"),
            (Door::MemStore, Spec::CreateBackup, backup(), "redkeep.v1.CreateBackupMetadata", "redkeep.v1.Backup"),
            (Door::MemStore, Spec::DeleteBackup, Response::Empty, "redkeep.v1.DeleteBackupMetadata", "google.protobuf.Empty"),
            (Door::Managed, Spec::DeleteBackup, Response::Empty, "yandex.cloud.mdb.redis.v1.DeleteBackupMetadata", "google.protobuf.Empty"),
        ] {
            let told = ended(door, spec, response);
            let Some(wire::operation::Result::Response(answer)) = told.result else { panic!("no response") };
            let types = [told.metadata.unwrap().type_url, answer.type_url];
            assert_eq!(types, [metadata_type, response_type].map(|name| format!("type.googleapis.com/{name}")), "{door:?}");
        }
    }

    #[test]
    fn who_reads_a_backup_is_told_when_nobody_changes_it() {
        let read = Backup { readers: ["reader".to_owned(), "second".to_owned()].into(), ..crate::backup::tests::sample() };
        assert_eq!(own_backup(&read).busy_operation_id, "reader");
        assert_eq!(own_backup(&Backup { busy: Some("writer".into()), ..read }).busy_operation_id, "writer");
    }
}
