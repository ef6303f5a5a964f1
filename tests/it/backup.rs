//! Goal: a backup through the wire gives an artifact whose content is the source's. Method: the real service, real servers.

use crate::support::service::{Setup, files_below};
use crate::support::{compare, data, load, server::RedisServer};

#[tokio::test]
async fn the_thin_path() {
    let primary = RedisServer::start().await;
    data::fill_every_type(&primary, 2).await;
    let service = Setup::new().cluster("main", &[&primary.address()], "").start().await;
    let backup = service.clients.take("main", "first").await;
    let told = service.clients.progress(&backup.operation_id).await;
    let shard = told.shards.first().expect("the shard is told after the end too");
    assert_eq!((shard.bytes, shard.stored_bytes), (backup.size_bytes, backup.stored_bytes));
    assert_eq!(told.step(), redkeep::pb::own::progress::Step::Publish);
    let artifact = service.setup.artifact_root().join(&backup.path).join("shard1-0.rdb.zst");
    let plain = service.setup.folder().join("plain.rdb");
    load::decompress(&artifact, &plain);
    load::check_rdb(&plain);
    let restored = load::load_rdb(&plain).await;
    compare::assert_same_content(&primary, &restored).await;
    assert_eq!(files_below(&service.setup.artifact_root()).len(), 4);
    service.stop().await;
}
