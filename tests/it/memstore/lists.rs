//! Goal: lists hold what is asked for, newest first. Method: two clusters, one with a name of its own, and filters in every
//! spelling.

use super::{Door, Pair, setup};

#[tokio::test]
async fn filters_are_joined_and_spelled_in_two_ways() {
    let (main, other) = (Pair::willing().await, Pair::willing().await);
    let service = other.join(main.join(setup(), "main", "name = \"orders\""), "other", "").start().await;
    let door = Door::of(&service);
    assert!(door.names("").await.is_empty());
    for (cluster, name) in [("main", "aaaa"), ("other", "bbbb"), ("main", "cccc")] {
        door.take(cluster, name).await;
    }
    let (all, none): (&[&str], &[&str]) = (&["cccc", "bbbb", "aaaa"], &[]);
    for (query, expected) in [
        ("", all),
        ("?", all),
        ("?clusterName=orders", &["cccc", "aaaa"]),
        ("?cluster-name=orders", &["cccc", "aaaa"]),
        ("?clusterName=other", &["bbbb"]),
        ("?clusterName=main", none),
        ("?clusterId=main", &["cccc", "aaaa"]),
        ("?cluster-id=other", &["bbbb"]),
        ("?clusterId=main&clusterName=orders", &["cccc", "aaaa"]),
        ("?clusterId=main&cluster-name=other", none),
        ("?clusterId=nobody", none),
        ("?clusterId=NO%20ID", none),
        ("?clusterId=&clusterName=", all),
        ("?clusterId=main&cluster-id=main", &["cccc", "aaaa"]),
        ("?limit=1&offset=2", all),
    ] {
        assert_eq!(door.names(query).await, expected, "{query}");
    }
    for query in ["?clusterId=main&clusterId=other", "?clusterName=orders&cluster-name=other"] {
        door.get(&format!("/v1/backups{query}")).await.refuses(400, "INVALID_ARGUMENT");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_backup_keeps_the_name_of_its_cluster() {
    // Method: the cluster gets another name, and then goes, between two starts.
    let pair = Pair::willing().await;
    let service = pair.join(setup(), "main", "name = \"orders\"").start().await;
    Door::of(&service).take("main", "aaaa").await;
    let folder = service.stop().await;
    let file = folder.folder().join("redkeep.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    for clusters in [text.replace("\"orders\"", "\"bills\""), text.split("[[clusters]]").next().unwrap().to_owned()] {
        std::fs::write(&file, clusters).unwrap();
        let config = redkeep::config::load(Some(&file), &[]).unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let server = redkeep::server::Server::start(config, stop.clone()).await.unwrap();
        let endpoint = format!("http://{}", server.address().unwrap());
        let running = tokio::spawn(server.run());
        let door = Door { endpoint: &endpoint, headers: Vec::new() };
        assert_eq!(door.backup("aaaa").await.is(200)["clusterName"], "orders");
        assert_eq!(door.names("?clusterName=orders&clusterId=main").await, ["aaaa"]);
        assert!(door.names("?clusterName=bills").await.is_empty());
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
