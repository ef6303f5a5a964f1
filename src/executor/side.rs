//! Storing what a dump does not hold beside it: before the fork, so that storage in trouble costs none.

use super::attempt::{Context, End};
use super::backup::hex_sha256;
use super::fault;
use crate::artifacts::manifest::SideFile;
use crate::redis::side::{PasswordHashes, Side};
use crate::snapshot;
use std::time::Duration;
use tokio::time::timeout;

/// Longest side state, in bytes, before it is encrypted.
const SIDE_BYTES: usize = 1024 * 1024;

/// Longest wait for the source to tell all of it.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);

/// Asks the source for its side state and stores it. A source that cannot be asked is told as one that told nothing: that is
/// no reason not to back it up.
pub(super) async fn store(context: &Context, request: &snapshot::Request) -> Result<SideFile, End> {
    let hashes = if context.inner.options.side_password_hashes { PasswordHashes::Kept } else { PasswordHashes::LeftOut };
    let side = match timeout(ASK_TIMEOUT, Side::ask(&request.source, hashes)).await {
        Ok(Ok(side)) => side,
        Ok(Err(fault)) => silent(&request.source.name, fault.to_string()),
        Err(_) => silent(&request.source.name, format!("no answer within {} s", ASK_TIMEOUT.as_secs())),
    };
    let storage = &context.inner.storage;
    let encryption = storage.encryption();
    let failed = |error| fault::storage(&context.operation, &error);
    let bytes = encryption.seal_small(side.json(SIDE_BYTES)).map_err(failed)?;
    let file =
        SideFile { file: format!("{}-side.json{}", request.shard_name, encryption.suffix()), stored_bytes: bytes.len() as u64, sha256: hex_sha256(&bytes) };
    storage.create(&request.folder, &file.file, bytes).await.map_err(failed)?;
    Ok(file)
}

fn silent(host: &str, why: String) -> Side {
    Side { host: host.to_owned(), missing: [("everything".to_owned(), why)].into(), ..Side::default() }
}
