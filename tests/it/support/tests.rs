//! The support's own tests: what proves the product must itself be proved.

use super::compare::{assert_same_content, census, differences, differences_up_to};
use super::data::{big_hollow_string, big_string, fill_every_type, fill_lapsed, fill_mixed, fill_small_keys};
use super::load::{check_rdb, decompress, dump_with_cli, load_rdb, try_check_rdb, try_load_rdb};
use super::rdb_bytes::{Dump, Endless, RdbBytes, crc64};
use super::resp::Connection;
use super::scripted::{Act, MARKER, Script, ScriptedRedis, full_sync_length, full_sync_marker, generated_length, generated_marker};
use super::server::{RedisServer, Transfer, require};
use bytes::Bytes;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// Takes a dump with the outside tool, has it checked, and loads it into another server.
async fn copied(server: &RedisServer) -> RedisServer {
    let folder = folder();
    let dump = folder.path().join("dump.rdb");
    dump_with_cli(&server.address(), &dump).await;
    check_rdb(&dump);
    load_rdb(&dump).await
}

/// Goal: the filled data survives a dump in either framing, and the comparer agrees.
#[tokio::test]
async fn every_type_compares_equal_after_a_dump() {
    for transfer in [Transfer::Diskless, Transfer::Disk] {
        let source = RedisServer::builder().transfer(transfer).start().await;
        fill_every_type(&source, 16).await;
        let target = copied(&source).await;
        assert_same_content(&source, &target).await;
        let census = census(&source).await;
        assert_eq!(census.len(), 16);
        for types in census.values() {
            assert_eq!(types.keys().collect::<Vec<_>>(), ["hash", "list", "set", "stream", "string", "zset"]);
        }
        let log = source.log();
        assert_eq!(log.contains("target: replicas sockets"), transfer == Transfer::Diskless, "{log}");
    }
}

/// Goal: the data has the encodings that its names promise.
#[tokio::test]
async fn small_and_large_encodings_are_there() {
    let server = RedisServer::start().await;
    fill_every_type(&server, 1).await;
    if server.version() < (7, 0, 0) || server.version() >= (7, 2, 0) {
        return;
    }
    for (key, encoding) in [
        ("string:int:127", "int"),
        ("string:embstr", "embstr"),
        ("string:noise:45", "raw"),
        ("list:small", "quicklist"),
        ("set:intset:16", "intset"),
        ("set:small", "hashtable"),
        ("zset:small", "listpack"),
        ("zset:large", "skiplist"),
        ("zset:long", "skiplist"),
        ("hash:small", "listpack"),
        ("hash:large", "hashtable"),
        ("hash:long", "hashtable"),
        ("stream:large", "stream"),
    ] {
        assert_eq!(server.command(&["OBJECT", "ENCODING", key]).await.text(), encoding, "{key}");
    }
    let stream = server.command(&["XINFO", "STREAM", "stream:large"]).await;
    let nodes = stream.items().iter().position(|item| *item == super::resp::Value::bulk("radix-tree-keys")).expect("XINFO tells nodes");
    assert!(stream.items()[nodes + 1].integer() > 4);
    assert!(server.command(&["DEBUG", "OBJECT", "list:plain"]).await.text().contains("ql_nodes:4"));
}

/// Goal: each kind of difference is told. Method: one of two equal servers is changed, and the telling difference appears
/// with the change and not before.
#[tokio::test]
async fn differences_are_noticed() {
    let source = RedisServer::start().await;
    fill_every_type(&source, 2).await;
    let mut connection = source.connect().await;
    let target = copied(&source).await;
    assert_same_content(&source, &target).await;
    connection.command(&["SELECT", "1"]).await.ok();
    let later = (connection.command(&["PEXPIRETIME", "expiring:hash"]).await.integer() - 1).to_string();
    let changes: &[(&[&str], &str)] = &[
        (&["PEXPIREAT", "expiring:hash", &later], "key \"expiring:hash\": expiry"),
        (&["XREADGROUP", "GROUP", "middle", "carol", "COUNT", "1", "STREAMS", "stream:large", ">"], "group \"middle\" consumer \"carol\" pending"),
        (&["XGROUP", "DESTROY", "stream:large", "late"], "group \"late\" name"),
        (&["XGROUP", "CREATECONSUMER", "stream:large", "early", "new"], "group \"early\" consumer \"new\""),
        (&["XDEL", "stream:large", "100-7"], "key \"stream:large\": value"),
        (&["XSETID", "stream:set", "1000-6"], "last-generated-id"),
        (&["FUNCTION", "DELETE", "small"], "library \"small\": only in the second"),
        (&["FUNCTION", "LOAD", "REPLACE", "#!lua name=small\nredis.register_function('other', function() end)"], "library \"small\": other functions"),
        (&["LSET", "list:large", "1000", "other"], "key \"list:large\": value"),
        (&["SET", "string:embstr", "other"], "key \"string:embstr\": value"),
        (&["SET", "new", "value"], "key \"new\": only in the first"),
        (&["DEL", "set:large"], "key \"set:large\": only in the second"),
        (&["MOVE", "hash:small", "9"], "database 9"),
        (&["PERSIST", "expiring:zset"], "key \"expiring:zset\": expiry"),
    ];
    let mut before = Vec::new();
    for (change, told) in changes {
        let reply = connection.command(change).await;
        assert!(reply.error().is_none(), "{change:?}: {reply:?}");
        let found = differences_up_to(usize::MAX, &source, &target).await;
        let tells = |differences: &[String]| differences.iter().any(|difference| difference.contains(told));
        assert!(tells(&found) && !tells(&before), "after {change:?}, {told:?} is not new among {found:#?}");
        before = found;
    }
    let asserting = tokio::spawn(async move { assert_same_content(&source, &target).await });
    assert!(asserting.await.is_err_and(|error| error.is_panic()));
}

/// Goal: a list of differences has an end.
#[tokio::test]
async fn the_first_differences_are_told() {
    let (a, b) = tokio::join!(RedisServer::start(), RedisServer::start());
    fill_small_keys(&a, 100).await;
    let found = differences(&a, &b).await;
    assert_eq!(found.len(), super::compare::TOLD_MAX + 1);
    assert!(found.last().is_some_and(|last| last.starts_with("and 8")), "{found:#?}");
}

/// Goal: the other fillers do what they say.
#[tokio::test]
async fn bulk_fillers_fill() {
    let server = RedisServer::start().await;
    fill_small_keys(&server, 20_000).await;
    fill_mixed(&server, 4 * 1024 * 1024).await;
    big_string(&server, "big", 5_000_001).await;
    big_hollow_string(&server, "hollow", 7_000_000).await;
    assert_eq!(server.info("db0").await.split(",avg").next(), Some("keys=24098,expires=2000"));
    assert_eq!(server.command(&["STRLEN", "big"]).await.integer(), 5_000_001);
    assert_eq!(server.command(&["STRLEN", "hollow"]).await.integer(), 7_000_000);
    assert_same_content(&server, &copied(&server).await).await;
    server.command(&["FLUSHALL"]).await.ok();
    fill_lapsed(&server, 10).await;
    assert_eq!(server.command(&["DBSIZE"]).await.integer(), 10);
    assert_eq!(copied(&server).await.command(&["DBSIZE"]).await.integer(), 0);
}

/// Goal: written dumps are dumps: the tools and a server accept them, whole, and no broken one.
#[tokio::test]
async fn written_dumps_load() {
    let folder = folder();
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("the temporary folder can be written");
        path
    };
    assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    assert_eq!(crc64(b"REDIS0009\xff"), 0x74ad_0ffb_bc7a_ac9a);
    let sample = Dump::sample();
    let path = write("sample.rdb", &sample.bytes);
    assert!(check_rdb(&path).contains("9 keys read"));
    let server = load_rdb(&path).await;
    assert_eq!(server.info("db0").await.split(",avg").next(), Some("keys=7,expires=1"));
    assert_eq!(server.info("db3").await.split(",avg").next(), Some("keys=2,expires=0"));
    assert_eq!(server.command(&["GET", "int8"]).await.text(), "-128");
    assert_eq!(sample.boundaries.len(), 4 + 1 + 2 + 8 + 2 + 2 + 2);
    assert!(sample.boundaries.iter().all(|&at| at < sample.bytes.len()));

    let flipped = write("flipped.rdb", &sample.flipped(sample.bytes.len() - 30, 3));
    assert!(try_check_rdb(&flipped).is_err());
    let error = try_load_rdb(&flipped).await.expect_err("a flipped dump does not load");
    assert!(error.contains("CRC error") || error.contains("checksum"), "{error}");
    for &at in &sample.boundaries {
        assert!(try_check_rdb(&write("cut.rdb", &sample.cut(at))).is_err(), "cut at {at}");
    }

    // More databases than usual, and no checksum.
    let many = write("many.rdb", &RdbBytes::new().select(900).string("key", "value").finish_with(0).bytes);
    assert_eq!(load_rdb(&many).await.info("db900").await.split(",avg").next(), Some("keys=1,expires=0"));

    let mut endless = Endless::new(3_000_000, 700_001);
    let (size_bytes, keys) = (endless.size_bytes(), endless.keys());
    let bytes: Vec<u8> = std::iter::from_fn(|| endless.next_chunk()).flatten().collect();
    assert_eq!(bytes.len() as u64, size_bytes);
    assert!((3_000_000..3_800_000).contains(&size_bytes));
    let path = write("endless.rdb", &bytes);
    assert_eq!(load_rdb(&path).await.command(&["DBSIZE"]).await.integer() as u64, keys);

    let compressed = folder.path().join("endless.rdb.zst");
    let status = std::process::Command::new("zstd").arg("-q").arg(&path).arg("-o").arg(&compressed).status();
    assert!(status.is_ok_and(|status| status.success()));
    let again = folder.path().join("again.rdb");
    decompress(&compressed, &again);
    assert!(std::fs::read(again).is_ok_and(|again| again == bytes));
}

/// Goal: both framings, in pieces too, are what a real client understands.
#[tokio::test]
async fn scripts_feed_a_real_client() {
    let dump = Dump::sample();
    let mut keep_alives = full_sync_marker(dump.bytes.clone(), MARKER);
    keep_alives.insert(0, Act::Newlines(3, Duration::from_millis(1)));
    keep_alives.insert(2, Act::Newlines(3, Duration::from_millis(1)));
    let in_pieces = |script: Script, sizes: &[usize]| -> Script {
        let cut = |act| match act {
            Act::Send(bytes) => Act::SendInPieces { bytes, sizes: sizes.to_vec() },
            other => other,
        };
        script.into_iter().map(cut).collect()
    };
    let scripts = [
        full_sync_length(dump.bytes.clone()),
        full_sync_marker(dump.bytes.clone(), MARKER),
        in_pieces(full_sync_marker(dump.bytes.clone(), MARKER), &[17, 900]),
        keep_alives,
    ];
    let server = ScriptedRedis::start(scripts.to_vec()).await;
    let folder = folder();
    for number in 0..scripts.len() {
        let path = folder.path().join(number.to_string());
        dump_with_cli(&server.address(), &path).await;
        assert!(std::fs::read(&path).is_ok_and(|bytes| bytes == dump.bytes), "script {number}");
    }
    assert_eq!(server.counts().psyncs, scripts.len());
    assert!(server.replconf().contains(&vec!["capa".to_owned(), "eof".to_owned()]), "{:?}", server.commands());

    let generated = [generated_length(2_000_000, 100, None), generated_marker(200_000, 100_000, Some(1_000_000))];
    let server = ScriptedRedis::start(generated.to_vec()).await;
    for keys in [Endless::new(2_000_000, 100).keys(), Endless::new(200_000, 100_000).keys()] {
        let path = folder.path().join(keys.to_string());
        dump_with_cli(&server.address(), &path).await;
        assert!(check_rdb(&path).contains(&format!("{keys} keys read")));
    }
}

/// Goal: a real replica takes a scripted synchronisation, so the hand-shake is a real one.
#[tokio::test]
async fn scripts_feed_a_real_replica() {
    let mut script = full_sync_length(Dump::sample().bytes);
    script.push(Act::Stall);
    let primary = ScriptedRedis::start(vec![script]).await;
    let replica = RedisServer::start().await;
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await.ok();
    replica.wait_replica_linked().await;
    assert_eq!(replica.command(&["DBSIZE"]).await.integer(), 7);
    replica.command(&["REPLICAOF", "NO", "ONE"]).await.ok();
    primary.closed_by_peer().await;
}

/// Goal: the scripted server answers as it was told, and ends connections as it was told.
#[tokio::test]
async fn answers_are_settable() {
    let server = ScriptedRedis::start(vec![vec![Act::Send(Bytes::from_static(b"+FULL")), Act::Reset], vec![Act::Stall]]).await;
    server.set_keys(0, 5, 1).set_info("used_memory", 77).add_replica("10.0.0.1", 6379, "online").set_config("databases", "4");
    server.answer_times(2, "PSYNC", "-LOADING Redis is loading the dataset in memory").answer("CONFIG", "-NOPERM no").answer("CONFIG GET", "-NOPERM none");
    server.require_auth("backup", "secret");
    let mut connection = Connection::open(&server.address()).await.expect("the server listens");
    assert!(connection.command(&["PING"]).await.error().is_some_and(|error| error.starts_with("NOAUTH")));
    assert!(connection.command(&["AUTH", "wrong"]).await.error().is_some_and(|error| error.starts_with("WRONGPASS")));
    connection.command(&["AUTH", "backup", "secret"]).await.ok();
    assert_eq!(connection.command(&["ACL", "WHOAMI"]).await.text(), "backup");
    assert_eq!(connection.command(&["DBSIZE"]).await.integer(), 5);
    let info = connection.command(&["INFO", "memory", "replication"]).await.text();
    assert!(info.contains("used_memory:77\r\n") && info.contains("slave0:ip=10.0.0.1,port=6379,state=online") && !info.contains("redis_version"), "{info}");
    assert_eq!(connection.command(&["ROLE"]).await.items()[2].items().len(), 1);
    assert_eq!(connection.command(&["CONFIG", "GET", "databases"]).await.error(), Some("NOPERM none"));
    server.become_replica_of("10.0.0.9", 6380);
    assert_eq!(connection.command(&["ROLE"]).await.items()[3].text(), "connected");
    for _ in 0..2 {
        assert!(connection.command(&["PSYNC", "?", "-1"]).await.error().is_some_and(|error| error.starts_with("LOADING")));
    }
    // The third request is the third script's, and the last of two repeats.
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.expect("the server listens");
    stream.write_all(b"AUTH backup secret\r\nPSYNC ? -1\r\n").await.expect("the server reads");
    server.wait_for(|counts| counts.psyncs == 3).await;
    assert_eq!(server.counts().closed_by_peer, 0);
    drop(stream);
    server.closed_by_peer().await;

    server.set_scripts(vec![vec![Act::Send(Bytes::from_static(b"+FULL")), Act::Reset]]);
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.expect("the server listens");
    stream.write_all(b"AUTH backup secret\r\n").await.expect("the server reads");
    let mut ok = [0; 5];
    stream.read_exact(&mut ok).await.expect("the server answers");
    stream.write_all(b"PSYNC ? -1\r\n").await.expect("the server reads");
    let mut rest = Vec::new();
    let error = stream.read_to_end(&mut rest).await.expect_err("the connection is reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(server.counts().connections, 3);
}

/// Goal: servers can be linked, paused, killed and started again, and leave nothing.
#[tokio::test]
async fn servers_live_and_die() {
    assert!(require() >= (6, 2, 0));
    let mut primary =
        RedisServer::builder().password("pass\"word").user("backup on >secret -@all +ping +psync +replconf").config("maxmemory 100mb").start().await;
    let replica = RedisServer::builder().replica_of(&primary).start().await;
    replica.wait_replica_linked().await;
    assert_eq!(primary.info("connected_slaves").await, "1");
    assert_eq!(primary.info("maxmemory_human").await, "100.00M");

    primary.pause();
    let mut connection = Connection::open(&primary.address()).await.expect("a paused server's socket still listens").patience(Duration::from_millis(50));
    assert!(connection.try_command(&["PING"]).await.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut));
    primary.resume();
    primary.command(&["SET", "key", "value"]).await.ok();
    // The child of the replica's synchronisation may not be reaped yet.
    primary.wait_info("rdb_bgsave_in_progress", |running| running == "0").await;
    primary.command(&["SAVE"]).await.ok();

    let (port, pid) = (primary.port(), primary.pid());
    primary.kill();
    assert!(primary.try_connect().await.is_err());
    replica.wait_info("master_link_status", |status| status == "down").await;
    primary.restart().await;
    assert_eq!(primary.port(), port);
    assert_ne!(primary.pid(), pid);
    assert_eq!(primary.command(&["GET", "key"]).await.text(), "value");
    replica.wait_replica_linked().await;

    let (folder, pid) = (primary.folder().to_owned(), primary.pid());
    drop(primary);
    assert!(!folder.exists());
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
}
