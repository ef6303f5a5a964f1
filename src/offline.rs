//! Commands on the files of a service that is not running, or not yet, or no more.

mod fetch;
mod restore;
mod stored;

pub use fetch::fetch;
pub use restore::restore;

use crate::config;
use crate::secrets::Key;
use crate::store::sled;
use std::path::Path;

/// Checks that the records of the embedded store hold together, and prints what was found. Changes nothing.
///
/// # Errors
///
/// A sentence: the configuration has faults, another process holds the store, or records do not hold together.
pub async fn verify_store(file: Option<&Path>) -> Result<(), String> {
    let config = config::load(file, &[]).map_err(|fault| fault.to_string())?;
    let path = config.store.clone();
    let verified = tokio::task::spawn_blocking(move || sled::verify(&path)).await.map_err(|_| "the check was interrupted".to_owned())?;
    let report = verified.map_err(|fault| fault.to_string())?;
    println!(
        "{}: {} rows, {} bytes; {} operations ({} not ended), {} backups, {} adopted clusters, {} attempts ({} to be removed)",
        config.store.display(),
        report.rows,
        report.bytes,
        report.operations,
        report.live,
        report.backups,
        report.clusters,
        report.attempts,
        report.doomed
    );
    for fault in &report.faults {
        println!("fault: {fault}");
    }
    if report.is_clean() {
        println!("every row holds together");
        Ok(())
    } else {
        Err(format!("the store does not hold together: {} fault(s)", report.fault_count))
    }
}

/// Writes a new key for `[secrets] key_file`, and tells its id.
///
/// # Errors
///
/// A sentence: the file is there already, or cannot be written.
pub fn new_key(file: &Path) -> Result<(), String> {
    let key = Key::create(file).map_err(|fault| format!("{} {fault}", file.display()))?;
    println!("{}: key {}; name the file in [secrets] key_file, and keep a copy in a safe place", file.display(), key.id());
    Ok(())
}
