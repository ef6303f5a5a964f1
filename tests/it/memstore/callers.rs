//! Goal: callers are in their own project with their own right, and strangers learn nothing. Method: tokens of several kinds,
//! and two projects with things of the same names.

use super::{BUCKETS, Door, Pair, setup};
use crate::support::service::Service;
use chrono::{DateTime, TimeDelta, Utc};
use redkeep::auth::Roles;
use std::path::Path;

/// `[auth]` with a file of tokens.
const TOKENS: &str = "mode = \"tokens\"\nfile = \"tokens\"";

async fn token(file: &Path, subject: &str, roles: &[(&str, &str)], until: Option<DateTime<Utc>>) -> String {
    let roles = Roles::read(roles.iter().copied()).unwrap();
    redkeep::auth::tokens::create(file, subject.to_owned(), roles, until).await.unwrap().0
}

struct Town {
    _pairs: [Pair; 2],
    service: Service,
    tokens: std::path::PathBuf,
}

/// The cluster `main` in the project `default`, and `shop-1` in `shop`.
async fn town() -> Town {
    let pairs = [Pair::willing().await, Pair::willing().await];
    let setup = pairs[1].join(pairs[0].join(setup().auth(TOKENS).section(BUCKETS), "main", ""), "shop-1", "folder_id = \"shop\"");
    let tokens = setup.folder().join("tokens");
    std::fs::write(&tokens, "").unwrap();
    // The file is read at the start.
    token(&tokens, "nobody", &[("default", "auditor")], Some(Utc::now() - TimeDelta::seconds(5))).await;
    Town { _pairs: pairs, service: setup.start().await, tokens }
}

impl Town {
    /// A token that the running service knows.
    async fn token(&self, subject: &str, roles: &[(&str, &str)]) -> String {
        let token = token(&self.tokens, subject, roles, None).await;
        crate::support::until("the token is known", super::SOON, async || {
            (Door::with(&self.service, &[("X-Auth-Token", &token)]).get("/v1/backups").await.status != 401).then_some(())
        })
        .await;
        token
    }
}

#[tokio::test]
async fn strangers_are_told_nothing() {
    let town = town().await;
    let expired = token(&town.tokens, "late", &[("default", "admin")], Some(Utc::now() - TimeDelta::seconds(5))).await;
    let good = town.token("alice", &[("default", "editor")]).await;
    Door::with(&town.service, &[("X-Auth-Token", &good)]).take("main", "abcd").await;
    let bearer = format!("Bearer {good}");
    let twice: &[(&str, &str)] = &[("X-Auth-Token", &good), ("X-Auth-Token", &good)];
    for (headers, words) in [
        (&[][..], "needs a token"),
        (&[("X-Auth-Token", "")], "needs a token"),
        (&[("Authorization", bearer.as_str())], "needs a token"),
        (&[("X-Auth-Token", "rk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")], "is not known"),
        (&[("X-Auth-Token", "a b")], "holds no token"),
        (&[("X-Auth-Token", bearer.as_str())], "holds no token"),
        (&[("X-Auth-Token", expired.as_str())], "has expired"),
        (twice, "more than one"),
    ] {
        let door = Door::with(&town.service, headers);
        // What is there, what is not, and what is no request at all look the same.
        let answers = [
            door.get("/v1/backups").await,
            door.backup("abcd").await,
            door.backup("nobody").await,
            door.delete("abcd").await,
            door.create("main", "-").await,
            door.post("/v1/backups", "no json").await,
            door.copy("abcd", "copy-1").await,
            door.export("nobody", "reports", "x.rdb").await,
        ];
        for answer in answers {
            let message = answer.refuses(401, "UNAUTHENTICATED");
            assert!(message.contains(words), "{words} in {message}");
            assert!(!message.contains(&good) && !message.contains(&expired), "{message}");
        }
    }
    // A token is told by its header whatever the case of its name, and beside another that means something else.
    let door = Door::with(&town.service, &[("x-auth-TOKEN", &good), ("Authorization", "Basic eDp5")]);
    assert_eq!(door.names("").await, ["abcd"]);
    town.service.stop().await;
}

#[tokio::test]
async fn a_right_is_missed_after_what_is_amiss() {
    // Goal: the documented order of checks: form, fields, existence, right, state, name.
    let town = town().await;
    let editor = town.token("alice", &[("default", "editor")]).await;
    Door::with(&town.service, &[("X-Auth-Token", &editor)]).take("main", "abcd").await;
    let viewer = town.token("victor", &[("default", "viewer")]).await;
    let both = town.token("bob", &[("default", "viewer"), ("shop", "admin")]).await;
    for token in [&viewer, &both] {
        let door = Door::with(&town.service, &[("X-Auth-Token", token), ("X-Project-Id", "default")]);
        assert_eq!(door.names("").await, ["abcd"]);
        door.backup("abcd").await.is(200);
        for (answer, status, code) in [
            (door.post("/v1/backups", "{").await, 400, "INVALID_JSON"),
            (door.create("main", "-").await, 400, "INVALID_ARGUMENT"),
            (door.create("nobody", "efgh").await, 404, "CLUSTER_NOT_FOUND"),
            (door.create("main", "efgh").await, 403, "PERMISSION_DENIED"),
            (door.create("main", "abcd").await, 403, "PERMISSION_DENIED"),
            (door.delete("nobody").await, 404, "BACKUP_NOT_FOUND"),
            (door.delete("abcd").await, 403, "PERMISSION_DENIED"),
            (door.copy("nobody", "copy-1").await, 404, "BACKUP_NOT_FOUND"),
            (door.copy("abcd", "copy-1").await, 403, "PERMISSION_DENIED"),
            (door.export("abcd", "reports/..", "x.rdb").await, 400, "INVALID_ARGUMENT"),
            (door.export("abcd", "nowhere", "x.rdb").await, 404, "BUCKET_NOT_FOUND"),
            (door.export("abcd", "foreign", "x.rdb").await, 403, "PERMISSION_DENIED"),
            (door.export("abcd", "reports", "x.rdb").await, 403, "PERMISSION_DENIED"),
        ] {
            answer.refuses(status, code);
        }
    }
    // Who may not even read hears nothing else.
    let auditor = town.token("audrey", &[("default", "auditor")]).await;
    let door = Door::with(&town.service, &[("X-Auth-Token", &auditor)]);
    for answer in
        [door.get("/v1/backups").await, door.backup("abcd").await, door.backup("nobody").await, door.delete("nobody").await, door.create("x", "-").await]
    {
        answer.refuses(403, "PERMISSION_DENIED");
    }
    town.service.stop().await;
}

#[tokio::test]
async fn everybody_is_in_a_project() {
    let town = town().await;
    let (shop, both, all) = (
        town.token("sam", &[("shop", "editor")]).await,
        town.token("bob", &[("default", "editor"), ("shop", "editor")]).await,
        town.token("root", &[("*", "admin")]).await,
    );
    let door = |token, project| match project {
        "" => Door::with(&town.service, &[("X-Auth-Token", token)]),
        project => Door::with(&town.service, &[("X-Auth-Token", token), ("X-Project-Id", project)]),
    };
    // Who has one project is in it; the others are in `default` unless they say otherwise.
    let in_shop = door(&shop, "").take("shop-1", "abcd").await;
    let in_default = door(&both, "").take("main", "abcd").await;
    assert_eq!((in_shop["projectId"].as_str(), in_default["projectId"].as_str()), (Some("shop"), Some("default")));
    for (token, project, id) in [
        (&shop, "", &in_shop),
        (&shop, "shop", &in_shop),
        (&both, "", &in_default),
        (&both, "shop", &in_shop),
        (&all, "", &in_default),
        (&all, "shop", &in_shop),
    ] {
        let door = door(token, project);
        assert_eq!(door.backup("abcd").await.is(200)["id"], id["id"], "{project}");
        assert_eq!(door.names("").await, ["abcd"], "only the caller's project is listed");
    }
    // A project of others and one that is none are the same.
    for project in ["default", "nowhere"] {
        let door = door(&shop, project);
        for answer in [door.get("/v1/backups").await, door.backup("abcd").await, door.delete("abcd").await, door.create("main", "efgh").await] {
            let message = answer.refuses(403, "PERMISSION_DENIED");
            assert!(message.contains(project), "{message}");
        }
    }
    door(&shop, "No Project").get("/v1/backups").await.refuses(400, "INVALID_ARGUMENT");
    // Things of another project do not exist, and its buckets are closed.
    door(&shop, "").create("main", "efgh").await.refuses(404, "CLUSTER_NOT_FOUND");
    assert!(door(&shop, "").names("?clusterId=main").await.is_empty());
    door(&shop, "").export("abcd", "reports", "x.rdb").await.refuses(403, "BUCKET_FORBIDDEN");
    door(&both, "").export("abcd", "foreign", "x.rdb").await.refuses(403, "BUCKET_FORBIDDEN");
    door(&shop, "").export("abcd", "foreign", "x.rdb").await.object(200);
    town.service.stop().await;
}

#[tokio::test]
async fn while_nobody_logs_in_a_project_may_be_named() {
    let pairs = [Pair::willing().await, Pair::willing().await];
    let setup = pairs[1].join(pairs[0].join(setup(), "main", ""), "shop-1", "folder_id = \"shop\"").section("[memstore]\nproject = \"shop\"");
    let service = setup.start().await;
    Door::of(&service).take("shop-1", "abcd").await;
    Door::of(&service).create("main", "efgh").await.refuses(404, "CLUSTER_NOT_FOUND");
    let default = Door::with(&service, &[("X-Project-Id", "default"), ("X-Auth-Token", "a placeholder")]);
    assert!(default.names("").await.is_empty());
    default.take("main", "efgh").await;
    service.stop().await;
}
