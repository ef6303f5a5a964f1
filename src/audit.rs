//! The audit log: one line of JSON for each call that changes something, and for each that hands out data or a token.
//!
//! A line tells who called what, when, from where and with what result; never what was in the request, and never a secret.
//! Lines are only ever appended. One thread writes them, in groups, and a call is answered when its line has been written:
//! what was acknowledged has exactly one line, also after the process was killed. The file is synced within a second, so a
//! power cut may take the lines of the last one; who asked for each operation is in the store besides.
//!
//! A line that cannot be written holds up no backup: it goes to the service's log as an error, and it is counted.
//!
//! Owns the form of a line, the queue and the files. Knows nothing of the wire: what a call is, is told by those who answer it.

mod call;
mod file;

pub use call::{CallRecord, Known, TEXT_CHARS};
pub use file::Fault;

use crate::telemetry::metrics::{self, Metrics};
use chrono::{DateTime, SecondsFormat, Utc};
use file::Files;
use metrics::{AUDIT_FAILURES, AUDIT_LINES};
use serde::Serialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Lines that wait to be written; the calls of more wait for a place.
const QUEUE: usize = 1024;

/// Most lines of one write.
const GROUP: usize = 256;

/// Longest time for which a call waits until its line is written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for which a written line is not synced.
const SYNC_PERIOD: Duration = Duration::from_secs(1);

/// How the audit log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The file of the newest lines. Full ones lie beside it as `<file>.1` (the newest of them), `<file>.2` and so on.
    pub file: PathBuf,
    /// Length from which on a file counts as full, in bytes.
    pub max_bytes: u64,
    /// Full files that are kept, at least one.
    pub keep: u32,
}

impl Options {
    /// Length of a file, unless it is set: 64 MiB.
    pub const MAX_BYTES: u64 = 64 << 20;

    /// Full files that are kept, unless it is set.
    pub const KEEP: u32 = 10;
}

/// One call, at its end.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it ended.
    pub time: DateTime<Utc>,
    /// The id that is on its answer, too.
    pub request_id: String,
    /// Where it came from; absent where the connection does not tell.
    pub peer: Option<SocketAddr>,
    /// Service and method, as in `redkeep.v1.BackupService/Create`; of what the service does by itself its own word.
    pub method: &'static str,
    /// What its caller and its answer told.
    pub known: Known,
    /// The name of its status code, such as `OK` or `PERMISSION_DENIED`.
    pub outcome: &'static str,
}

/// An entry as it is written: every key is there, what is not known is null.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    subject: Option<&'a str>,
    peer: Option<SocketAddr>,
    method: &'a str,
    folder: Option<&'a str>,
    target: Option<&'a str>,
    operation: Option<&'a str>,
    clear_suspect: Option<bool>,
    outcome: &'a str,
}

impl Entry {
    /// The line, with its end.
    fn line(&self) -> Vec<u8> {
        let line = Line {
            time: self.time.to_rfc3339_opts(SecondsFormat::Micros, true),
            request_id: &self.request_id,
            subject: self.known.subject.as_deref(),
            peer: self.peer,
            method: self.method,
            folder: self.known.folder.as_deref(),
            target: self.known.target.as_deref(),
            operation: self.known.operation.as_deref(),
            clear_suspect: self.known.clear_suspect,
            outcome: self.outcome,
        };
        let mut bytes = serde_json::to_vec(&line).expect("texts, an address and nulls are always JSON");
        bytes.push(b'\n');
        bytes
    }
}

/// A line on its way to the thread that writes.
struct Waiting {
    line: Vec<u8>,
    /// Told whether it was written.
    written: oneshot::Sender<bool>,
    _place: OwnedSemaphorePermit,
}

struct Inner {
    /// None once it is closed.
    lines: Mutex<Option<Sender<Waiting>>>,
    places: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
    metrics: Metrics,
}

/// The way to the audit log. Cheap to clone; the file is closed with the last one.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Audit" } else { "Audit(none)" })
    }
}

impl Audit {
    /// Opens the file, and makes it, for this user alone, if it is not there. It blocks. A line that the process before left
    /// unfinished is ended.
    ///
    /// # Errors
    ///
    /// [`Fault`], when the file cannot be opened for appending.
    pub fn open(options: Options, metrics: Metrics) -> Result<Self, Fault> {
        let files = Files::open(options)?;
        let (lines, waiting) = channel();
        let (written, failures) = (metrics.counter(&AUDIT_LINES, &[]), metrics.counter(&AUDIT_FAILURES, &[]));
        let writer = Builder::new().name("audit-writer".to_owned()).spawn(move || write_all(files, &waiting, &written, &failures)).map_err(Fault::Thread)?;
        let (lines, writer) = (Mutex::new(Some(lines)), Mutex::new(Some(writer)));
        Ok(Self(Some(Arc::new(Inner { lines, places: Arc::new(Semaphore::new(QUEUE)), writer, metrics }))))
    }

    /// No audit log is kept.
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether one is kept.
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Writes the line of a call. On return the file has it, or it was logged as an error and counted: nothing else can be done.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the line may not be written.
    pub async fn write(&self, entry: &Entry) {
        let Some(inner) = &self.0 else { return };
        let line = entry.line();
        let written = tokio::time::timeout(WRITE_TIMEOUT, inner.submit(line.clone())).await;
        if !matches!(written, Ok(true)) {
            inner.metrics.counter(&AUDIT_FAILURES, &[]).increment(1);
            let line = String::from_utf8_lossy(&line);
            tracing::error!(line = line.trim_end(), late = written.is_err(), "a line of the audit log was not written; it is kept here alone");
        }
    }

    /// Writes and syncs what waits, and closes the file. Lines that come later are logged as errors. It blocks.
    pub fn close(&self) {
        if let Some(inner) = &self.0 {
            inner.close();
        }
    }
}

impl Inner {
    /// Hands a line over, and waits until it is written; false when it could not be.
    async fn submit(&self, line: Vec<u8>) -> bool {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return false };
        let (written, answer) = oneshot::channel();
        let waiting = Waiting { line, written, _place: place };
        let sent = match &*lock(&self.lines) {
            Some(lines) => lines.send(waiting).is_ok(),
            None => false,
        };
        sent && answer.await.unwrap_or(false)
    }

    fn close(&self) {
        drop(lock(&self.lines).take());
        if let Some(writer) = lock(&self.writer).take()
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes the audit log panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes lines in the order in which they come until nobody can send any more.
fn write_all(mut files: Files, waiting: &Receiver<Waiting>, written: &::metrics::Counter, failures: &::metrics::Counter) {
    let mut sync_at: Option<Instant> = None;
    let mut group = Vec::with_capacity(GROUP);
    loop {
        let first = match sync_at {
            None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => waiting.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match first {
            Ok(line) => group.push(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        group.extend(waiting.try_iter().take(GROUP - group.len()));
        if !group.is_empty() {
            let count = files.append(group.iter().map(|waiting| waiting.line.as_slice()), || failures.increment(1));
            written.increment(count as u64);
            sync_at.get_or_insert_with(|| Instant::now() + SYNC_PERIOD);
            for (index, waiting) in group.drain(..).enumerate() {
                // Who waited may have gone meanwhile.
                let _ = waiting.written.send(index < count);
            }
        }
        if sync_at.is_some_and(|at| at <= Instant::now()) {
            sync_at = None;
            sync(&files, failures);
        }
    }
    sync(&files, failures);
}

fn sync(files: &Files, failures: &::metrics::Counter) {
    if let Err(fault) = files.sync() {
        failures.increment(1);
        tracing::error!(error = %fault, "the audit log could not be synced; a power cut may take its last lines");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn entry(request_id: &str) -> Entry {
        let known = Known { subject: Some("me".into()), folder: Some("default".into()), target: Some("clusters/a\"\n".into()), ..Known::default() };
        Entry {
            time: DateTime::from_timestamp(1_800_000_000, 42_000).unwrap(),
            request_id: request_id.to_owned(),
            peer: "127.0.0.1:9".parse().ok(),
            method: "redkeep.v1.BackupService/Create",
            known,
            outcome: "OK",
        }
    }

    fn open(file: &Path, max_bytes: u64, keep: u32) -> (Audit, Metrics) {
        let metrics = Metrics::new();
        (Audit::open(Options { file: file.to_owned(), max_bytes, keep }, metrics.clone()).unwrap(), metrics)
    }

    #[test]
    fn a_line_is_json_with_every_key() {
        let line = String::from_utf8(entry("r").line()).unwrap();
        let expected = concat!(
            r#"{"time":"2027-01-15T08:00:00.000042Z","request_id":"r","subject":"me","peer":"127.0.0.1:9","#,
            r#""method":"redkeep.v1.BackupService/Create","folder":"default","target":"clusters/a\"\n","operation":null,"clear_suspect":null,"outcome":"OK"}"#,
            "\n"
        );
        assert_eq!(line, expected);
    }

    #[tokio::test]
    async fn every_line_is_written_once_while_files_turn_over() {
        // Goal: nothing is lost or doubled under load. Method: 64 tasks, a new file every few lines, all files kept; then each
        // line that was acknowledged is looked for.
        let folder = tempfile::tempdir().unwrap();
        let (audit, metrics) = open(&folder.path().join("audit.jsonl"), 4096, 1000);
        let tasks = (0..64).map(|task| {
            let audit = audit.clone();
            tokio::spawn(async move {
                for number in 0..32 {
                    audit.write(&entry(&format!("{task}-{number}"))).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut files = 0;
        for file in std::fs::read_dir(folder.path()).unwrap() {
            files += 1;
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(text.len() <= 4096 && text.ends_with('\n'));
            for line in text.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                *seen.entry(line["request_id"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        assert!(files > 50, "{files}");
        assert_eq!((seen.len(), seen.values().max()), (64 * 32, Some(&1)));
        assert!(metrics.render().contains("redkeep_audit_lines_total 2048") && metrics.render().contains("redkeep_audit_failures_total 0"));
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_written_is_counted() {
        let (audit, metrics) = open(Path::new("/dev/full"), 4096, 1);
        audit.write(&entry("r")).await;
        assert!(metrics.render().contains("redkeep_audit_failures_total 1"), "{}", metrics.render());
        // So is one that comes too late.
        audit.close();
        audit.write(&entry("r")).await;
        assert!(metrics.render().contains("redkeep_audit_failures_total 2"));
        assert!(metrics.render().contains("redkeep_audit_lines_total 0"));
    }

    #[tokio::test]
    async fn what_was_handed_over_is_written_at_the_close() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let (audit, _) = open(&file, 4096, 1);
        let writes = (0..10).map(|number| entry(&number.to_string())).collect::<Vec<_>>();
        futures_util::future::join_all(writes.iter().map(|entry| audit.write(entry))).await;
        drop(audit);
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 10);
    }

    #[tokio::test]
    async fn without_a_file_nothing_is_written() {
        let audit = Audit::none();
        assert!(!audit.is_kept());
        audit.write(&entry("r")).await;
        audit.close();
    }
}
