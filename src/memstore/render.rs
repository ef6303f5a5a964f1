//! A backup as callers of these calls see it: keys in the documented order, numbers as numbers, two forms of time.

use crate::backup::{Backup, Origin, Shard, State};
use crate::cluster::{Flavor, Timestamp};
use serde::Serialize;

/// A backup. What is not known before it is available is left out; after that every key is there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackupObject<'a> {
    id: String,
    name: &'a str,
    project_id: &'a str,
    cluster_name: &'a str,
    cluster_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_mode_enabled: Option<bool>,
    source_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_version: Option<&'a str>,
    flavor: FlavorObject,
    shards: Vec<ShardObject>,
    deletion_timestamp: Option<String>,
    status: &'static str,
    created_at: String,
}

#[derive(Debug, Serialize)]
struct FlavorObject {
    id: String,
    name: String,
    vcpu: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u32>,
}

#[derive(Debug, Serialize)]
struct ShardObject {
    snapshot: SnapshotObject,
    upload: UploadObject,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SnapshotObject {
    start_timestamp: String,
    end_timestamp: String,
    file_size: u64,
    memory_size: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UploadObject {
    start_timestamp: String,
    end_timestamp: String,
}

/// A list of backups.
#[derive(Debug, Serialize)]
pub(super) struct BackupList<'a> {
    pub(super) backups: Vec<BackupObject<'a>>,
}

/// Name of the cluster that a backup was made of, as it was then.
pub(super) fn cluster_name(backup: &Backup) -> &str {
    backup.source.as_ref().map_or(backup.cluster_id.as_str(), |source| &source.cluster_name)
}

impl<'a> From<&'a Backup> for BackupObject<'a> {
    fn from(backup: &'a Backup) -> Self {
        let is_available = backup.is_available();
        let cluster_mode = backup.source.as_ref().and_then(|source| source.cluster_mode);
        Self {
            id: backup.id.to_string(),
            name: backup.name.as_str(),
            project_id: backup.folder_id.as_str(),
            cluster_name: cluster_name(backup),
            cluster_id: backup.cluster_id.as_str(),
            cluster_mode_enabled: cluster_mode.or_else(|| is_available.then_some(backup.shards.len() > 1)),
            source_type: match backup.origin {
                Origin::Automated => "scheduled",
                Origin::Manual => "manual",
            },
            engine_version: backup.shards.first().map(|shard| shard.engine_version.as_str()),
            flavor: flavor(backup),
            shards: backup.shards.iter().map(shard).collect(),
            deletion_timestamp: backup.expires_at.map(micros),
            status: match backup.state {
                State::Creating => "Creating",
                State::Available => "Available",
                State::Error(_) => "Error",
                State::Deleting { .. } => "Deleting",
            },
            created_at: micros(backup.created_at),
        }
    }
}

fn flavor(backup: &Backup) -> FlavorObject {
    let Flavor { id, name, vcpu, memory_gib } = backup.source.as_ref().map(|source| source.flavor.clone()).unwrap_or_default();
    // Nobody told how large the machines were: they held at least what was in memory.
    let used = || backup.shards.iter().map(|shard| shard.used_memory_bytes.max(1)).max().and_then(Flavor::gib);
    FlavorObject { id, name, vcpu, memory: memory_gib.or_else(used) }
}

fn shard(shard: &Shard) -> ShardObject {
    ShardObject {
        snapshot: SnapshotObject {
            start_timestamp: seconds(shard.snapshot_started_at),
            end_timestamp: seconds(shard.snapshot_at),
            file_size: shard.size_bytes,
            memory_size: shard.used_memory_bytes,
        },
        upload: UploadObject { start_timestamp: seconds(shard.upload_started_at), end_timestamp: seconds(shard.upload_ended_at) },
    }
}

/// An instant in whole seconds.
fn seconds(at: Timestamp) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An instant in microseconds.
fn micros(at: Timestamp) -> String {
    at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use crate::backup::Source;
    use crate::backup::tests::sample;
    use crate::failure::{Failure, Reason};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The scheduled backup of the published example, made a row.
    fn row() -> Backup {
        let mut row = Backup {
            id: "01890000-0000-7000-8000-000000000001".parse().unwrap(),
            folder_id: "0f1e2d3c4b5a69788796a5b4c3d2e1f0".parse().unwrap(),
            cluster_id: "c-1".parse().unwrap(),
            source: Some(Source {
                cluster_name: "main".into(),
                cluster_mode: Some(false),
                flavor: Flavor { id: "f-1".into(), name: "m2a.large".into(), vcpu: 2, memory_gib: Some(8) },
            }),
            name: "scheduled.backup.2024-03-13-00-00.KST".parse().unwrap(),
            origin: Origin::Automated,
            created_at: at("2024-03-12T15:00:01.5Z"),
            expires_at: Some(at("2024-03-13T15:00:00Z")),
            ..sample()
        };
        row.shards[0] = Shard {
            engine_version: "6.2.5".into(),
            size_bytes: 175,
            used_memory_bytes: 21_975_228_040,
            snapshot_started_at: at("2024-03-12T15:00:03.999999Z"),
            snapshot_at: at("2024-03-12T15:00:04Z"),
            upload_started_at: at("2024-03-12T15:00:05.5Z"),
            upload_ended_at: at("2024-03-12T15:00:06Z"),
            ..row.shards[0].clone()
        };
        row
    }

    fn json(backup: &Backup) -> String {
        serde_json::to_string(&BackupObject::from(backup)).unwrap()
    }

    #[test]
    fn keys_and_times_have_their_form() {
        let expected = concat!(
            r#"{"id":"01890000-0000-7000-8000-000000000001","name":"scheduled.backup.2024-03-13-00-00.KST","#,
            r#""projectId":"0f1e2d3c4b5a69788796a5b4c3d2e1f0","clusterName":"main","clusterId":"c-1","clusterModeEnabled":false,"#,
            r#""sourceType":"scheduled","engineVersion":"6.2.5","flavor":{"id":"f-1","name":"m2a.large","vcpu":2,"memory":8},"#,
            r#""shards":[{"snapshot":{"startTimestamp":"2024-03-12T15:00:03Z","endTimestamp":"2024-03-12T15:00:04Z","#,
            r#""fileSize":175,"memorySize":21975228040},"upload":{"startTimestamp":"2024-03-12T15:00:05Z","endTimestamp":"2024-03-12T15:00:06Z"}}],"#,
            r#""deletionTimestamp":"2024-03-13T15:00:00.000000Z","status":"Available","createdAt":"2024-03-12T15:00:01.500000Z"}"#,
        );
        assert_eq!(json(&row()), expected);
    }

    #[test]
    fn what_is_not_known_yet_is_left_out() {
        let flavor = Flavor::default();
        let source = Some(Source { cluster_name: "main".into(), cluster_mode: None, flavor });
        let draft = Backup { state: State::Creating, origin: Origin::Manual, expires_at: None, shards: Vec::new(), source, ..row() };
        let expected = concat!(
            r#""clusterName":"main","clusterId":"c-1","sourceType":"manual","flavor":{"id":"adopted","name":"adopted","vcpu":1},"#,
            r#""shards":[],"deletionTimestamp":null,"status":"Creating","createdAt":"2024-03-12T15:00:01.500000Z"}"#,
        );
        assert!(json(&draft).ends_with(expected), "{}", json(&draft));
        let failed = Backup { state: State::Error(Failure::new(Reason::SourceUnreachable, "no route to 10.0.0.1")), ..draft };
        assert!(json(&failed).contains("\"status\":\"Error\"") && !json(&failed).contains("10.0.0.1"));
    }

    #[test]
    fn every_key_of_an_older_row_is_there() {
        let older = Backup { source: None, ..row() };
        let told: serde_json::Value = serde_json::from_str(&json(&older)).unwrap();
        assert_eq!((&told["clusterName"], &told["clusterModeEnabled"]), (&"c-1".into(), &false.into()));
        assert_eq!(told["flavor"], serde_json::json!({"id": "adopted", "name": "adopted", "vcpu": 1, "memory": 21}));
    }
}
