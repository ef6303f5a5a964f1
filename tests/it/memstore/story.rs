//! Goal: what the calls promise is true of real data. Method: a real primary with a replica, from the first call to the last.

use super::{BUCKETS, Door, SOON, setup};
use crate::support::server::RedisServer;
use crate::support::service::{OPERATION, error_of};
use crate::support::{compare, data, load};
use chrono::{DateTime, Utc};
use regex::Regex;
use serde_json::{Value, json};

/// The keys of a backup, in their documented order.
const KEYS: [&str; 24] = [
    "id",
    "name",
    "projectId",
    "clusterName",
    "clusterId",
    "clusterModeEnabled",
    "sourceType",
    "engineVersion",
    "flavor",
    "id",
    "name",
    "vcpu",
    "memory",
    "shards",
    "snapshot",
    "startTimestamp",
    "endTimestamp",
    "fileSize",
    "memorySize",
    "upload",
    "startTimestamp",
    "endTimestamp",
    "deletionTimestamp",
    "status",
];

fn keys(body: &str) -> Vec<&str> {
    let key = Regex::new("\"([A-Za-z]+)\":").unwrap();
    key.captures_iter(body).map(|found| found.get(1).unwrap().as_str()).collect()
}

fn instant(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn from_create_to_delete() {
    let primary = RedisServer::start().await;
    data::fill_every_type(&primary, 2).await;
    let replica = RedisServer::builder().replica_of(&primary).start().await;
    replica.wait_replica_linked().await;
    let service = setup()
        .cluster("main", &[&primary.address(), &replica.address()], "name = \"orders\"\nflavor = { id = \"f-1\", name = \"m2a.large\", vcpu = 2 }")
        .section(BUCKETS)
        .start()
        .await;
    let door = Door::of(&service);

    let before = Utc::now();
    let id = door.create("main", "my-backup-1").await.object(201);
    let made = door.reaches("my-backup-1", "Available").await;
    let answer = door.backup("my-backup-1").await;
    let expected: Vec<&str> = KEYS.into_iter().chain(["createdAt"]).collect();
    assert_eq!(keys(&answer.body), expected, "{}", answer.body);
    let told = json!({
        "id": id,
        "name": "my-backup-1",
        "projectId": "default",
        "clusterName": "orders",
        "clusterId": "main",
        "clusterModeEnabled": false,
        "sourceType": "manual",
        "engineVersion": made["engineVersion"],
        "flavor": { "id": "f-1", "name": "m2a.large", "vcpu": 2, "memory": made["flavor"]["memory"] },
        "shards": made["shards"],
        "deletionTimestamp": null,
        "status": "Available",
        "createdAt": made["createdAt"],
    });
    assert_eq!(made, told);
    assert!(made["engineVersion"].as_str().is_some_and(|version| version.split('.').count() == 3), "{made}");
    assert!(made["flavor"]["memory"].as_u64().is_some_and(|memory| memory > 0), "{made}");
    let [shard] = made["shards"].as_array().unwrap().as_slice() else { panic!("{made}") };
    assert!(shard["snapshot"]["memorySize"].as_u64() > Some(100_000), "{made}");
    // The forms of time, and their order: whole seconds may lie before the microsecond that they are of.
    let (seconds, micros) = (Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$").unwrap(), Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$").unwrap());
    let stamps = [("snapshot", "startTimestamp"), ("snapshot", "endTimestamp"), ("upload", "startTimestamp"), ("upload", "endTimestamp")];
    let stamps = stamps.map(|(part, stamp)| &shard[part][stamp]);
    assert!(stamps.iter().all(|stamp| seconds.is_match(stamp.as_str().unwrap())) && micros.is_match(made["createdAt"].as_str().unwrap()), "{made}");
    assert!(stamps.is_sorted_by_key(|stamp| instant(stamp)), "{made}");
    assert!(before <= instant(&made["createdAt"]) && instant(&made["createdAt"]) <= instant(stamps[0]) + chrono::TimeDelta::seconds(1), "{made}");

    let copy_id = door.copy("my-backup-1", "my-copy").await.object(201);
    let copy = door.reaches("my-copy", "Available").await;
    assert_eq!((&copy["id"], copy_id == id), (&json!(copy_id), false));
    for same in ["clusterName", "clusterId", "clusterModeEnabled", "sourceType", "engineVersion", "flavor", "deletionTimestamp"] {
        assert_eq!(copy[same], made[same], "{same}");
    }
    assert_eq!(copy["shards"][0]["snapshot"], made["shards"][0]["snapshot"]);
    assert!(instant(&copy["createdAt"]) > instant(&made["createdAt"]) && instant(&copy["shards"][0]["upload"]["endTimestamp"]) >= instant(stamps[3]));
    assert_eq!(door.names("").await, ["my-copy", "my-backup-1"]);

    door.delete("my-backup-1").await.object(200);
    door.backup("my-backup-1").await.refuses(404, "BACKUP_NOT_FOUND");
    door.delete("my-backup-1").await.refuses(404, "BACKUP_NOT_FOUND");
    assert_eq!(door.names("").await, ["my-copy"]);
    door.take("main", "my-backup-1").await;

    // The copy outlives what it was copied from, and its export is the data.
    let export = door.export("my-copy", "reports/2024/백업/", "dump.rdb").await.object(200);
    assert_eq!(door.backup("my-copy").await.is(200)["status"], "Available");
    let operation = service.clients.ended(&export, OPERATION).await;
    assert!(error_of(&operation).is_none(), "{operation:#?}");
    let file = service.setup.folder().join("exports/2024/백업/dump.rdb");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), made["shards"][0]["snapshot"]["fileSize"].as_u64().unwrap());
    load::check_rdb(&file);
    let restored = load::load_rdb(&file).await;
    compare::assert_same_content(&primary, &restored).await;

    let id = door.delete("my-copy").await.object(200);
    assert_eq!(id, copy_id);
    service.stop().await;
}

#[tokio::test]
async fn before_it_is_available_nothing_is_made_up() {
    // Goal: a backup shows what is known of it and no zeros. Method: a snapshot that never comes; then one that cannot.
    let pair = super::Pair::stalling().await;
    let service = pair.join(setup(), "main", "").start().await;
    let door = Door::of(&service);
    let id = door.create("main", "slow").await.object(201);
    let made = door.backup("slow").await.is(200);
    let expected = json!({
        "id": id,
        "name": "slow",
        "projectId": "default",
        "clusterName": "main",
        "clusterId": "main",
        "clusterModeEnabled": false,
        "sourceType": "manual",
        "flavor": made["flavor"],
        "shards": [],
        "deletionTimestamp": null,
        "status": "Creating",
        "createdAt": made["createdAt"],
    });
    assert_eq!(made, expected);
    pair.replica.wait_for(|counts| counts.psyncs == 1).await;
    service.stop().await;
}

#[tokio::test]
async fn a_failed_backup_can_only_be_deleted() {
    let pair = super::Pair::willing().await;
    for server in [&pair.primary, &pair.replica] {
        server.set_info("redis_mode", "cluster");
    }
    let service = pair.join(setup(), "sharded", "").section("[memstore]\nallow_cluster_mode = true").section(BUCKETS).start().await;
    let door = Door::of(&service);
    door.create("sharded", "try").await.refuses(400, "INVALID_ARGUMENT");
    door.create("sharded", "try-1").await.object(201);
    let failed = door.reaches("try-1", "Error").await;
    assert_eq!((&failed["clusterModeEnabled"], &failed["shards"]), (&json!(true), &json!([])));
    assert_eq!(door.names("").await, ["try-1"], "backups in every state are listed");
    let message = door.copy("try-1", "try-2").await.refuses(409, "BACKUP_NOT_AVAILABLE");
    assert!(message.ends_with("it is Error"), "{message}");
    door.export("try-1", "reports", "x.rdb").await.refuses(409, "BACKUP_NOT_AVAILABLE");
    door.create("sharded", "try-1").await.refuses(409, "NAME_TAKEN");
    door.delete("try-1").await.object(200);
    crate::support::until("the name is free", SOON, async || (door.create("sharded", "try-1").await.status == 201).then_some(())).await;
    service.stop().await;
}
