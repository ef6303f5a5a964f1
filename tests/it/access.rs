//! Who may come in, as what, and what they see: over real connections to the real server.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod exchange;
mod jwt;
mod roles;
mod tokens;

use crate::support::scripted::ScriptedRedis;
use crate::support::service::{Clients, Service, Setup};
use chrono::{DateTime, Utc};
use redkeep::auth::Roles;
use redkeep::pb::own;
use std::path::PathBuf;
use tonic::{Code, Status};

/// `[auth]` with the token file that [`Folk::new`] makes.
pub const TOKENS: &str = "mode = \"tokens\"\nfile = \"tokens\"";

/// Lines of a cluster of the folder `shop`, which has a policy.
const SHOP: &str = "folder_id = \"shop\"\n[[clusters.policies]]\nname = \"weekly\"\ndays_of_week = \"sun\"\nretain_days = 7";

/// A setup whose cluster `main` is in the folder `shop`, and whose cluster `press` is in `news`.
async fn two_folders() -> ([ScriptedRedis; 2], Setup) {
    let sources = [ScriptedRedis::willing().await, ScriptedRedis::willing().await];
    let setup = Setup::new().executor("drain", "\"0s\"").cluster_apart("main", &sources[0].address(), SHOP).cluster_apart(
        "press",
        &sources[1].address(),
        "folder_id = \"news\"",
    );
    (sources, setup)
}

/// Those who have tokens of one file.
pub struct Folk(PathBuf);

impl Folk {
    /// Nobody yet, in the file of a setup with [`TOKENS`].
    pub fn of(setup: &Setup) -> Self {
        let file = setup.folder().join("tokens");
        std::fs::write(&file, "# nobody yet\n").unwrap();
        Self(file)
    }

    /// A new token.
    pub async fn token(&self, subject: &str, roles: &[(&str, &str)]) -> String {
        self.token_until(subject, roles, None).await
    }

    async fn token_until(&self, subject: &str, roles: &[(&str, &str)], until: Option<DateTime<Utc>>) -> String {
        let roles = Roles::read(roles.iter().copied()).unwrap();
        redkeep::auth::tokens::create(&self.0, subject.to_owned(), roles, until).await.unwrap().0
    }
}

/// Clients of a service as the bearer of a token.
async fn bearer(service: &Service, token: &str) -> Clients {
    Clients::connect_as(&service.endpoint, token).await
}

/// Asks for the operations of a folder, as the plainest call that needs a role.
async fn operations(clients: &Clients, folder: &str) -> Result<Vec<redkeep::pb::operation::Operation>, Status> {
    let request = own::ListOperationsRequest { folder_id: folder.into(), ..Default::default() };
    Ok(clients.own_operations.clone().list(request).await?.into_inner().operations)
}

/// Holds that a caller is not recognised, for a reason with these words, and that the answer does not tell what was sent.
async fn assert_unrecognised(service: &Service, token: &str, words: &str) {
    let status = operations(&bearer(service, token).await, "shop").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{token}: {status:?}");
    assert!(status.message().contains(words), "{words} in {}", status.message());
    assert!(token.len() < 8 || !format!("{status:?}").contains(token), "{status:?}");
    assert!(status.metadata().get("www-authenticate").is_some_and(|value| value.as_bytes().starts_with(b"Bearer realm=")), "{status:?}");
}
