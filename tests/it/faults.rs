//! Goal: whatever goes wrong outside, an operation ends as the design says, the source is spared and nothing is left over.
//! Method: the real service beside real servers, and beside a scripted one that lies, stalls and breaks off.

mod bombs;
mod cancel;
mod patience;
mod pipeline;
mod positions;
mod replies;
mod rights;
mod storage;
mod stream;

pub use storage::Mounted;
pub use stream::stalled_with_parts;
mod topology;

use crate::support::scripted::ScriptedRedis;
use crate::support::service::{Clients, error_of, files_below, reason_of};
use crate::support::until;
use redkeep::pb::operation::Operation;
use redkeep::pb::own::backup::State;
use std::path::Path;
use std::time::Duration;

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(30);

/// A backup that is to fail: what the operation says in the end.
async fn fails(clients: &Clients, cluster: &str) -> Operation {
    let operation = clients.create(cluster, &format!("{cluster}-backup")).await.expect("the backup is accepted");
    let operation = clients.ended(&operation.id, SOON).await;
    assert!(error_of(&operation).is_some(), "{cluster}: {operation:#?}");
    operation
}

/// The message of an operation's error.
fn message(operation: &Operation) -> &str {
    error_of(operation).map(|status| status.message.as_str()).unwrap_or_default()
}

/// Checks a final failure: its reason, and that the message has the words.
fn assert_reason(operation: &Operation, reason: &str, words: &[&str]) {
    assert_eq!(reason_of(operation), reason, "{}", message(operation));
    assert_words(operation, words);
}

/// Checks a failure that is repeated until the deadline: it is told as it is or inside the deadline's own.
fn assert_reason_or_deadline(operation: &Operation, reason: &str, words: &[&str]) {
    let told = reason_of(operation);
    assert!(told == reason || told == "DEADLINE_EXCEEDED", "{told} instead of {reason}: {}", message(operation));
    assert_words(operation, words);
}

fn assert_words(operation: &Operation, words: &[&str]) {
    for word in words {
        assert!(message(operation).contains(word), "{word:?} in {:?}", message(operation));
    }
}

/// Checks that no backup can be used, and that the managed schema shows none.
async fn assert_nothing_available(clients: &Clients) {
    let backups = clients.all_backups().await;
    assert!(backups.iter().all(|backup| backup.state() != State::Available), "{backups:#?}");
    let request = redkeep::pb::managed::ListBackupsRequest { folder_id: "default".into(), ..Default::default() };
    assert!(clients.managed_backups.clone().list(request).await.expect("backups are listed").into_inner().backups.is_empty());
}

/// Waits until the collector has left nothing below the root.
async fn wait_empty(root: &Path) {
    until("nothing is left over", SOON, async || files_below(root).is_empty().then_some(())).await;
}

/// A server with a run id of its own, for clusters of several.
async fn scripted(scripts: Vec<crate::support::scripted::Script>) -> ScriptedRedis {
    let server = ScriptedRedis::start(scripts).await;
    server.set_info("run_id", format!("{:040}", server.port()));
    server
}
