//! Commands on the data of a service that is not running.

use crate::config;
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
