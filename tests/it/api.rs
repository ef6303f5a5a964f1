//! What callers may rely on, through both schemas and real connections. Each module tells the stories of one question.
//!
//! Most sources here are scripted: they give a small snapshot at once, never, or when the test lets them.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod backups;
mod clusters;
mod doors;
mod idempotency;
mod operations;
mod refusals;
mod shapes;
mod stop;

use crate::support::scripted::ScriptedRedis;
use crate::support::service::{Service, Setup};

/// An identifier that was never given out.
const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";

/// A setup with the cluster `main` on this source, where nothing is waited for at the end of a test.
fn setup(source: &ScriptedRedis) -> Setup {
    Setup::new().executor("drain", "\"0s\"").cluster("main", &[&source.address()], "")
}

/// A service whose cluster `main` gives a snapshot at once.
async fn willing() -> (ScriptedRedis, Service) {
    let source = ScriptedRedis::willing().await;
    let service = setup(&source).start().await;
    (source, service)
}

/// A service whose cluster `main` begins a snapshot and never gives it.
async fn stalling() -> (ScriptedRedis, Service) {
    let source = ScriptedRedis::stalling().await;
    let service = setup(&source).start().await;
    (source, service)
}
