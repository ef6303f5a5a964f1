//! Logs, numbers, and the points at which a test can stop the process.

pub mod metrics;

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging to standard error; `REDKEEP_LOG` filters (`info` by default), `REDKEEP_LOG_FORMAT=json` is for programs.
///
/// A second call changes nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env("REDKEEP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let json = std::env::var("REDKEEP_LOG_FORMAT").is_ok_and(|format| format == "json");
    let started = if json {
        registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
    } else {
        let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(coloured)).try_init()
    };
    // The only fault is that logging has begun already.
    let _ = started;
}

/// Ends the process at once, as a kill would, when the variable `REDKEEP_CRASH_AT` names this point. Compiled in for tests
/// only.
#[cfg(feature = "crash-points")]
pub fn crash_point(name: &str) {
    if std::env::var("REDKEEP_CRASH_AT").is_ok_and(|at| at == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Does nothing outside of tests.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn crash_point(_name: &str) {}

/// Never goes on when the variable `REDKEEP_HANG_AT` names this point: so a test meets work in its middle. Compiled in for
/// tests only.
#[cfg(feature = "crash-points")]
pub async fn hang_point(name: &str) {
    if std::env::var("REDKEEP_HANG_AT").is_ok_and(|at| at == name) {
        match std::env::var_os("REDKEEP_HANG_UNTIL") {
            Some(path) => {
                while !std::path::Path::new(&path).exists() {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
            None => std::future::pending::<()>().await,
        }
    }
}

/// Does nothing outside of tests.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub async fn hang_point(_name: &str) {}
