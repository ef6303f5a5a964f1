//! Goal: on every engine an account with the least rights is enough, and whatever is missing is told by name, in one line that
//! can be sent to the server as it stands. Method: real servers with users of every kind.

use super::{fails, on};
use crate::support::engines::{self, Engine};
use crate::support::server::RedisServer;
use crate::support::service::{Clients, Service, Setup};
use futures_util::future::join_all;
use redkeep::pb::own;
use redkeep::pb::own::finding::Severity;

/// The least rights of a backup account, on every engine.
const LEAST: [&str; 4] = ["+ping", "+info", "+replconf", "+psync"];

/// Rights with which faults are told early. Redis 6.2 has no ACL DRYRUN.
fn advised(engine: Engine) -> &'static [&'static str] {
    if engine.is_modern() { &["+acl|whoami", "+acl|dryrun", "+pubsub|numsub"] } else { &["+pubsub|numsub"] }
}

/// Rights with which a backup tells what stands beside the data.
const SIDE: [&str; 3] = ["+config|get", "+module|list", "+acl|list"];

const PASSWORD: &str = "correct-horse";

/// A server of the engine with users, and a service that has a cluster for each, named like the user.
async fn with_users(engine: Engine, users: &[(String, Vec<&str>)]) -> (RedisServer, Service) {
    let mut builder = engine.builder();
    for (name, rights) in users {
        builder = builder.user(&format!("{name} on >{PASSWORD} -@all {}", rights.join(" ")));
    }
    let redis = builder.start().await;
    redis.command(&["SET", "key", "value"]).await;
    let mut setup = Setup::new();
    std::fs::write(setup.folder().join("secret"), PASSWORD).expect("a password is written");
    for (name, _) in users {
        setup = setup.cluster_apart(name, &redis.address(), &format!("username = \"{name}\"\npassword_file = \"secret\""));
    }
    (redis, setup.start().await)
}

async fn check(clients: &Clients, cluster: &str) -> own::CheckClusterResponse {
    clients.fleet.clone().check_cluster(own::CheckClusterRequest { cluster_id: cluster.into() }).await.expect("the cluster is checked").into_inner()
}

#[tokio::test]
async fn the_least_rights_are_enough_and_each_is_told_by_name() {
    for engine in engines::present() {
        on(engine);
        let mut users = vec![("least".to_owned(), LEAST.to_vec()), ("advised".to_owned(), [&LEAST, advised(engine)].concat())];
        for left_out in LEAST {
            let rights: Vec<_> = LEAST.into_iter().filter(|right| *right != left_out).collect();
            users.push((format!("least-{}", &left_out[1..]), rights.clone()));
            users.push((format!("advised-{}", &left_out[1..]), [&rights, advised(engine)].concat()));
        }
        let (redis, service) = with_users(engine, &users).await;
        for name in ["least", "advised"] {
            assert_eq!(service.clients.take(name, name).await.shards[0].keys, 1, "{name}");
        }
        let forks = redis.info("sync_full").await;
        join_all(users[2..].iter().map(async |(name, _)| {
            let (_, reason, message) = fails(&service.clients, name).await;
            let right = name.split_once('-').expect("the name has the right").1;
            let line = format!("user {name} may not run {}; allow it with: ACL SETUSER {name} +{right}", right.to_uppercase());
            assert_eq!(reason, "SOURCE_PERMISSION", "{name}: {message}");
            assert!(message.ends_with(&line), "{message}");
        }))
        .await;
        assert_eq!(redis.info("sync_full").await, forks, "a refusal costs no fork");
        service.stop().await;
    }
}

#[tokio::test]
async fn the_line_is_whole_and_heals() {
    for engine in engines::present() {
        on(engine);
        let users = [
            ("nothing".to_owned(), vec![]),
            ("blind".to_owned(), advised(engine).to_vec()),
            ("least".to_owned(), LEAST.to_vec()),
            ("full".to_owned(), [&LEAST, advised(engine), &SIDE].concat()),
        ];
        let (redis, service) = with_users(engine, &users).await;
        for name in ["nothing", "blind"] {
            let answer = check(&service.clients, name).await;
            let finding = answer.findings.iter().find(|finding| finding.severity() == Severity::Error).expect("there is an error");
            let line = finding.message.rsplit_once("allow it with: ").unwrap_or_else(|| panic!("{}", finding.message)).1.to_owned();
            // An old server cannot tell whether PSYNC is allowed, so that is told by the refusal alone.
            let psync = if engine.is_modern() && name == "blind" { " +psync" } else { "" };
            assert_eq!(line, format!("ACL SETUSER {name} +ping +info +replconf{psync}"));
            assert!(!answer.ready);
            redis.command(&line.split(' ').collect::<Vec<_>>()).await.ok();
            if psync.is_empty() {
                let (_, reason, message) = fails(&service.clients, name).await;
                assert_eq!((&*reason, message.ends_with(&format!("ACL SETUSER {name} +psync"))), ("SOURCE_PERMISSION", true), "{message}");
                redis.command(&["ACL", "SETUSER", name, "+psync"]).await.ok();
            }
            service.clients.take(name, &format!("healed-{name}")).await;
        }

        let answer = check(&service.clients, "least").await;
        assert!(answer.ready, "{answer:#?}");
        let lines: Vec<_> = answer.findings.iter().map(|finding| (finding.severity(), finding.remedy.clone())).collect();
        // Without ACL DRYRUN some rights are told by their use alone.
        let (side, untold) = if engine.is_modern() { (&SIDE[..2], "+psync +acl|list") } else { (&SIDE[..], "+psync") };
        assert!(lines.contains(&(Severity::Info, format!("ACL SETUSER least {}", side.join(" ")))), "{lines:?}");
        assert!(lines.contains(&(Severity::Info, format!("ACL SETUSER least {untold}"))), "{lines:?}");
        // The rights stand in the order in which they were asked about.
        let warned = lines.iter().find(|(severity, _)| *severity == Severity::Warning).expect("there is a warning").1.clone();
        let mut warned: Vec<_> = warned.split(' ').skip(3).collect();
        let mut expected = advised(engine).to_vec();
        warned.sort_unstable();
        expected.sort_unstable();
        assert_eq!(warned, expected);

        let answer = check(&service.clients, "full").await;
        let about_rights = answer.findings.iter().filter(|finding| finding.remedy.starts_with("ACL") && !finding.remedy.ends_with("+psync"));
        assert_eq!(about_rights.count(), 0, "{answer:#?}");
        service.stop().await;
    }
}
