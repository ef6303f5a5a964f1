//! Goal: every engine takes back what it gave, alone and as a cluster, and an older one what it can. Method: the engines that were
//! fetched, through the real service.

use super::*;
use crate::support::compare::assert_same_content;
use crate::support::engines::{self, Engine};
use crate::support::service::{Setup, reason_of};
use crate::support::{cluster, data, local};

/// Names the programs that the service may start.
fn programs(setup: Setup, engines: &[Engine]) -> Setup {
    let programs: Vec<_> = engines.iter().map(|engine| engine.program()).collect();
    setup.sections(&format!("[engines]\nprograms = {programs:?}\n"))
}

#[tokio::test]
async fn each_takes_back_what_it_gave() {
    let present = engines::present();
    for engine in &present {
        let alone = engine.builder().start().await;
        data::fill_every_type(&alone, 2).await;
        let sharded = cluster::Layout::new(3, 0).program(engine.program()).start().await;
        let only = engine.builder().start().await;
        data::fill_every_type(&only, 1).await;
        sharded.fill_from(&only).await;
        let (watch, setup) = local::keeper("");
        // Whatever else there is, what is most like the source is taken.
        let setup = programs(setup, &present).cluster("alone", &[&alone.address()], "").cluster("sharded", &[&sharded.address()], "");
        let service = setup.start().await;
        let clients = &service.clients;
        for (name, shards) in [("alone", 1), ("sharded", 3)] {
            let backup = clients.take(name, name).await;
            let again = format!("{name}-again");
            let cluster = restored(clients, RestoreClusterRequest { host_specs: hosts(shards + 1), ..wish(&backup.id, &again) }).await;
            let (major, minor) = engine.release;
            assert_eq!(cluster.config.unwrap().version, format!("{major}.{minor}"), "{}", engine.name);
            let found = hosts_of(clients, &again).await;
            assert_eq!(found.len(), shards + 1);
            let primaries = found.iter().filter(|host| host.role() == managed::host::Role::Master);
            let sources = if shards == 1 { vec![&alone] } else { sharded.shards.iter().map(|shard| &shard.primary).collect() };
            for (source, primary) in sources.into_iter().zip(primaries) {
                let mirror = local::mirror(engine.builder(), &service.setup, &again, &primary.name).await;
                assert_same_content(source, &mirror).await;
            }
            deleted(clients, &again).await;
        }
        assert!(watch.servers().is_empty());
        service.stop().await;
    }
}

#[tokio::test]
async fn a_version_that_cannot_load_the_dump_is_refused() {
    let present = engines::present();
    let (Some(old), Some(new)) = (present.first(), present.iter().find(|engine| engine.release == (8, 0) && !engine.is_valkey())) else { return };
    let source = new.builder().start().await;
    data::fill_every_type(&source, 1).await;
    let (watch, setup) = local::keeper("");
    let service = programs(setup, &[*old]).cluster("main", &[&source.address()], "").start().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    for (version, words) in [("", "needs Redis"), ("8.0", "is of version 8.0; found: redis 6.2"), ("6.2-valkey", "is of version 6.2-valkey")] {
        let config_spec = Some(managed::ConfigSpec { version: version.into(), ..Default::default() });
        let operation = restore(clients, RestoreClusterRequest { config_spec, ..wish(&backup.id, "again") }).await.unwrap();
        let operation = clients.ended(&operation.id, OPERATION).await;
        assert_eq!(reason_of(&operation), "NO_ENGINE", "{operation:#?}");
        assert!(error_of(&operation).unwrap().message.contains(words), "{operation:#?}");
    }
    assert!(watch.servers().is_empty());
    service.stop().await;
}
