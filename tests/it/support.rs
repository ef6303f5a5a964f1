//! Real servers, a scripted server, data of every kind and a comparer.
//!
//! Owns everything that a test needs from the outside world of Redis. It knows nothing of Redkeep: it must be able to
//! say that Redkeep is wrong.
//!
//! Time-outs here bound a wait, they never are the wait: every loop looks again at short intervals. The runtime's clock
//! must not be paused beside a real server.
//!
//! A bench includes it as `#[path = "../tests/it"] mod it { pub mod support; }`.

// Every test uses a part.
#![allow(dead_code)]

pub mod answers;
pub mod cluster;
pub mod compare;
pub mod data;
pub mod engines;
pub mod http;
pub mod issuer;
pub mod load;
pub mod local;
pub mod objects;
pub mod proxy;
pub mod rdb_bytes;
pub mod resp;
pub mod scripted;
pub mod sentinel;
pub mod server;
pub mod service;
#[cfg(test)]
#[allow(unused_imports, reason = "a bench has no harness, hence no tests")]
mod tests;

use std::time::{Duration, Instant};

/// Time between two looks at something that is awaited.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Looks until `look` gives a value.
///
/// # Panics
///
/// When there is none within `bound`; `what` says what was awaited.
pub async fn until<T>(what: &str, bound: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started_at = Instant::now();
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(started_at.elapsed() < bound, "{what}: not within {bound:?}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
