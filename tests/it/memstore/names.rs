//! Goal: a backup is found by its name, whoever made it. Method: names of every kind, in every spelling of a path.

use super::{Door, Pair, setup};
use serde_json::json;

#[tokio::test]
async fn names_that_callers_may_not_give_are_reachable() {
    let pair = Pair::willing().await;
    let service = pair.join(setup(), "main", "").start().await;
    let door = Door::of(&service);
    let scheduled = "scheduled.backup.2024-03-13-00-00.KST";
    door.create("main", scheduled).await.refuses(400, "INVALID_ARGUMENT");
    let made = service.clients.take("main", scheduled).await;
    for path in [scheduled, "scheduled%2Ebackup.2024-03-13-00-00.KST", "%73cheduled.backup.2024-03-13-00-00.KST"] {
        assert_eq!(door.backup(path).await.is(200)["id"], made.id, "{path}");
    }
    for path in ["scheduled%252Ebackup.2024-03-13-00-00.KST", "SCHEDULED.backup.2024-03-13-00-00.KST", "..", "%2e%2e", "a%2Fb", "%ff", "%", "a%00b", "%20"] {
        let message = door.backup(path).await.refuses(404, "BACKUP_NOT_FOUND");
        assert!(!message.contains('\0'), "{message}");
    }
    door.copy(scheduled, "kept-copy").await.object(201);
    door.reaches("kept-copy", "Available").await;
    assert_eq!(door.delete(scheduled).await.object(200), made.id);
    door.backup(scheduled).await.refuses(404, "BACKUP_NOT_FOUND");

    // One that another door made up a name for.
    let request = redkeep::pb::managed::BackupClusterRequest { cluster_id: "main".into() };
    let operation = service.clients.clusters.clone().backup(request).await.unwrap().into_inner();
    service.clients.ended(&operation.id, super::SOON).await;
    let made_up = door.names("").await.remove(0);
    assert!(made_up.starts_with("manual-"), "{made_up}");
    assert_eq!(door.backup(&made_up).await.is(200)["sourceType"], json!("manual"));
    service.stop().await;
}

#[tokio::test]
async fn a_name_is_free_as_soon_as_its_backup_is_deleted() {
    // Method: a grace time, so that the deleted one is still there in the other schema.
    let pair = Pair::willing().await;
    let service = pair.join(setup().executor("delete_grace", "\"1h\""), "main", "").start().await;
    let door = Door::of(&service);
    let first = door.take("main", "abcd").await["id"].clone();
    assert_eq!(json!(door.delete("abcd").await.object(200)), first);
    assert!(door.names("").await.is_empty());
    door.delete("abcd").await.refuses(404, "BACKUP_NOT_FOUND");
    let second = door.take("main", "abcd").await["id"].clone();
    assert_ne!(first, second);
    assert_eq!(door.names("").await, ["abcd"]);
    service.stop().await;
}
