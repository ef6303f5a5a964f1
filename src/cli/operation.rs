//! `redkeep operation`, and how every changing command ends: what an operation is called, and how it went.

use super::client::Session;
use super::error::{Error, Exit};
use super::table::{self, Facts, Grid};
use super::{OperationCommand, Output, json, print, text, wait};
use crate::pb;
use chrono::{DateTime, Utc};
use pb::operation::Operation;
use pb::operation::operation::Result as Outcome;
use pb::own::Progress;
use pb::own::progress::Step;
use prost::{Message, Name};
use prost_reflect::{ReflectMessage, Value};
use tonic::{Code, Response};

/// Carries out a command on operations.
pub(super) async fn run(session: &Session, command: OperationCommand) -> Result<(), Error> {
    match command {
        OperationCommand::List(args) => list(session, args.cluster.unwrap_or_default(), args.limit.rows).await,
        OperationCommand::Get(args) => get(session, args.id).await,
        OperationCommand::Wait(args) => {
            let operation = wait::follow(session, &args.id).await?;
            conclude(session, &operation)
        }
        OperationCommand::Cancel(args) => cancel(session, args.id).await,
    }
}

/// Ends a changing command that was answered with `operation`: follows it if wanted, and tells how it went or how to follow it.
pub(super) async fn settle(session: &Session, operation: Operation, wants_end: bool) -> Result<(), Error> {
    if operation.done {
        return conclude(session, &operation);
    }
    let id = text::escape(&operation.id);
    if wants_end {
        print::note(&format!("operation {id} started: {}", text::escape(&operation.description)));
        let operation = wait::follow(session, &operation.id).await?;
        return conclude(session, &operation);
    }
    match session.output {
        Output::Json => print::value(&json::operation(&operation)?),
        Output::Table => print::answer(&started(&operation)),
    }
}

async fn list(session: &Session, cluster_id: String, rows: usize) -> Result<(), Error> {
    let list = session
        .pages(rows, |page_size, page_token| {
            let mut client = session.operation_states();
            let (folder_id, cluster_id) = (session.folder.clone(), cluster_id.clone());
            let request = pb::own::ListOperationsRequest { folder_id, cluster_id, page_size, page_token };
            async move {
                let page = client.list(request).await?.into_inner();
                Ok(Response::new((page.operations, page.next_page_token)))
            }
        })
        .await?;
    match session.output {
        Output::Json => print::value(&json::operations(&list.rows)?)?,
        Output::Table => print::answer(&rows_text(&list.rows, Utc::now()))?,
    }
    if list.is_cut {
        print::note("there are more; --limit 0 shows all");
    }
    Ok(())
}

async fn get(session: &Session, operation_id: String) -> Result<(), Error> {
    let request = pb::operation::GetOperationRequest { operation_id };
    let operation = session.call(session.operations().get(request)).await?;
    match session.output {
        Output::Json => print::value(&json::operation(&operation)?),
        Output::Table => print::answer(&facts(&operation, Utc::now())),
    }
}

async fn cancel(session: &Session, operation_id: String) -> Result<(), Error> {
    let request = pb::operation::CancelOperationRequest { operation_id };
    let operation = session.call(session.operations().cancel(request)).await?;
    let id = text::escape(&operation.id);
    match session.output {
        Output::Json => print::value(&json::operation(&operation)?),
        Output::Table if operation.done => print::answer(&format!("operation {id} has ended: {}", state(&operation))),
        Output::Table => print::answer(&format!("operation {id} was asked to stop\nsee how it ends with: redkeep operation wait {id}")),
    }
}

/// Prints an operation that has ended; a failure is an error.
fn conclude(session: &Session, operation: &Operation) -> Result<(), Error> {
    let line = outcome(operation);
    match (session.output, &line) {
        (Output::Json, _) => print::value(&json::operation(operation)?)?,
        (Output::Table, Ok(line)) => print::answer(line)?,
        (Output::Table, Err(_)) => {}
    }
    line.map(|_| ())
}

/// One line on an operation that has succeeded.
///
/// # Errors
///
/// How it failed or was cancelled, with its reason.
fn outcome(operation: &Operation) -> Result<String, Error> {
    let id = text::escape(&operation.id);
    let took = text::span(text::instant(operation.created_at.as_ref()), text::instant(operation.modified_at.as_ref()));
    match &operation.result {
        Some(Outcome::Error(status)) => {
            let how = if status.code == Code::Cancelled as i32 { "was cancelled" } else { "failed" };
            let reason = reason(status).map_or_else(String::new, |reason| format!(" ({reason})"));
            Err(Error::new(Exit::Failed, format!("operation {id} {how}: {}{reason}", text::escape(&status.message))))
        }
        Some(Outcome::Response(any)) => {
            let about = About::of(operation);
            if matches!(about.kind.as_str(), "CreateBackupMetadata" | "CopyBackupMetadata" | "ImportBackupMetadata")
                && let Some(backup) = response::<pb::own::Backup>(any)
            {
                let size = text::size(backup.size_bytes);
                let keys = text::count(backup.shards.iter().map(|shard| shard.keys).sum());
                let (state, level) = (backup.state().as_str_name(), table::known(backup.level().as_str_name()).to_owned());
                let (id, cluster) = (text::escape(&backup.id), text::escape(&backup.cluster_id));
                return Ok(format!("backup {id} of cluster {cluster} is {state}: {size}, {keys} keys, level {level}, in {took}"));
            }
            if let Some(cluster) = response::<pb::managed::Cluster>(any).filter(|_| about.backup_id.is_empty() || about.kind == "RestoreClusterMetadata") {
                let (id, health) = (text::escape(&cluster.id), table::known(cluster.health().as_str_name()));
                return Ok(format!("{}: done in {took}; cluster {id} was seen with health {health}", text::escape(&operation.description)));
            }
            if let Some(export) = response::<pb::own::ExportResult>(any) {
                let (backup, bucket, size) = (text::escape(&about.backup_id), text::escape(&export.bucket), text::size(export.bytes));
                let keys: String = export.keys.iter().map(|key| format!("\n{}", text::escape(key))).collect();
                return Ok(format!("backup {backup} is in bucket {bucket}: {size} in {} object(s), in {took}{keys}", export.keys.len()));
            }
            if let Some(restored) = response::<pb::own::RestoreResult>(any) {
                let (backup, host, size) = (text::escape(&about.backup_id), text::escape(&restored.host_name), text::size(restored.bytes));
                let numbers = [(restored.expired_keys, "expired since"), (restored.skipped_keys, "skipped"), (restored.replaced_keys, "replaced")];
                let more: String = numbers.iter().filter(|(keys, _)| *keys > 0).map(|(keys, what)| format!(", {} {what}", text::count(*keys))).collect();
                let keys = text::count(restored.keys);
                return Ok(match restored.dry_run {
                    true => format!("{host} would take {keys} keys of backup {backup}{more}; nothing was written"),
                    false => format!("{host} holds {keys} keys of backup {backup}{more}, {size} read, in {took}"),
                });
            }
            let backup = if about.backup_id.is_empty() { String::new() } else { format!(", backup {}", text::escape(&about.backup_id)) };
            Ok(format!("operation {id} succeeded in {took}: {}{backup}", text::escape(&operation.description)))
        }
        None => Err(Error::failed(format_args!("operation {id} has ended, but the service does not say how"))),
    }
}

fn started(operation: &Operation) -> String {
    let id = text::escape(&operation.id);
    let about = About::of(operation);
    let concerned = match (about.backup_id.as_str(), about.cluster_id.as_str()) {
        ("", "") => String::new(),
        ("", cluster) => format!("\ncluster {}", text::escape(cluster)),
        (backup, _) => format!("\nbackup {}", text::escape(backup)),
    };
    format!("operation {id} started: {}{concerned}\nfollow it with: redkeep operation wait {id}", text::escape(&operation.description))
}

/// What the metadata of an operation tells, whatever its type.
#[derive(Default)]
pub(super) struct About {
    /// Short name of the type.
    kind: String,
    cluster_id: String,
    backup_id: String,
    /// How far the operation is, if it tells.
    pub(super) progress: Option<Progress>,
}

impl About {
    /// Reads the metadata by the names of its fields.
    pub(super) fn of(operation: &Operation) -> Self {
        let Some(metadata) = operation.metadata.as_ref().and_then(json::unpack) else { return Self::default() };
        let word = |name| metadata.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
        let progress = match metadata.get_field_by_name("progress").as_deref() {
            Some(Value::Message(progress)) if metadata.has_field_by_name("progress") => progress.transcode_to().ok(),
            _ => None,
        };
        Self { kind: metadata.descriptor().name().to_owned(), cluster_id: word("cluster_id"), backup_id: word("backup_id"), progress }
    }
}

/// Where an operation stands, in one word. The wire tells only `done`; the rest follows from the progress.
fn state(operation: &Operation) -> &'static str {
    match &operation.result {
        Some(Outcome::Error(status)) if status.code == Code::Cancelled as i32 => "CANCELLED",
        Some(Outcome::Error(_)) => "FAILED",
        Some(Outcome::Response(_)) => "SUCCEEDED",
        None if operation.done => "DONE",
        None => match About::of(operation).progress {
            Some(progress) if progress.step() == Step::Unspecified || progress.next_attempt_at.is_some() => "QUEUED",
            Some(_) => "RUNNING",
            None => "PENDING",
        },
    }
}

/// The kind of a failure, for programs: the reason that its details name.
pub(super) fn reason(status: &pb::google::rpc::Status) -> Option<String> {
    let info = status.details.iter().find_map(response::<pb::google::rpc::ErrorInfo>)?;
    (!info.reason.is_empty()).then(|| text::escape(&info.reason))
}

fn response<M: Message + Name + Default>(any: &prost_types::Any) -> Option<M> {
    let name = any.type_url.rsplit_once('/')?.1;
    if name == M::full_name() { M::decode(any.value.as_slice()).ok() } else { None }
}

fn rows_text(operations: &[Operation], now: DateTime<Utc>) -> String {
    let mut grid = Grid::new(&["ID", "STATE", "STEP", "CLUSTER", "DESCRIPTION", "CREATED", "AGE"]);
    for operation in operations {
        let about = About::of(operation);
        let created = text::instant(operation.created_at.as_ref());
        let step = about.progress.as_ref().map_or("-", |progress| table::known(progress.step().as_str_name()));
        grid.row([
            text::escape(&operation.id).into(),
            table::state(state(operation)),
            step.into(),
            text::or_dash(&about.cluster_id).into(),
            text::or_dash(&operation.description).into(),
            text::time(created).into(),
            text::age(created, now).into(),
        ]);
    }
    grid.text()
}

fn facts(operation: &Operation, now: DateTime<Utc>) -> String {
    let about = About::of(operation);
    let created = text::instant(operation.created_at.as_ref());
    let modified = text::instant(operation.modified_at.as_ref());
    let mut facts = Facts::new();
    facts.add("Operation", text::escape(&operation.id));
    facts.add("Description", text::or_dash(&operation.description));
    facts.add("State", table::state(state(operation)));
    if let Some(Outcome::Error(status)) = &operation.result {
        facts.add("Error", text::escape(&status.message));
        facts.add_some("Reason", reason(status));
    }
    facts.add_some("Cluster", (!about.cluster_id.is_empty()).then(|| text::escape(&about.cluster_id)));
    facts.add_some("Backup", (!about.backup_id.is_empty()).then(|| text::escape(&about.backup_id)));
    facts.add("Created", format!("{} by {}", text::time_and_distance(created, now), text::or_dash(&operation.created_by)));
    facts.add("Last change", text::time_and_distance(modified, now));
    facts.add("Time", text::span(created, if operation.done { modified } else { Some(now) }));
    if let Some(progress) = &about.progress {
        facts.add("Step", table::known(progress.step().as_str_name()));
        facts.add("Attempt", progress.attempt.to_string());
        facts.add("Progress", wait::amounts(progress));
        facts.add_some("Waits for", (!progress.waiting_for.is_empty()).then(|| text::escape(&progress.waiting_for)));
        let next = text::instant(progress.next_attempt_at.as_ref());
        facts.add_some("Next attempt", next.map(|_| text::time_and_distance(next, now)));
        facts.add_some("Last error", (!progress.last_error.is_empty()).then(|| text::escape(&progress.last_error)));
        for shard in &progress.shards {
            let done = wait::amounts(&Progress { shards: vec![shard.clone()], ..Progress::default() });
            facts.add(&text::escape(&shard.shard_name), format!("{done}, host {}", text::or_dash(&shard.host_name)));
        }
    }
    if !operation.done {
        facts.add("Follow", format!("redkeep operation wait {}", text::escape(&operation.id)));
    }
    facts.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::{Any, Timestamp};

    fn running(progress: Option<Progress>) -> Operation {
        let metadata = pb::own::CreateBackupMetadata { cluster_id: "main".to_owned(), backup_id: "b".to_owned(), progress };
        Operation {
            id: "o".to_owned(),
            description: "Back up cluster main".to_owned(),
            created_at: Some(Timestamp { seconds: 1_893_456_000, nanos: 0 }),
            modified_at: Some(Timestamp { seconds: 1_893_456_013, nanos: 200_000_000 }),
            metadata: Some(json::pack(&metadata)),
            ..Operation::default()
        }
    }

    fn ended(result: Outcome) -> Operation {
        Operation { done: true, result: Some(result), ..running(None) }
    }

    fn failure(code: Code) -> Outcome {
        let info = pb::google::rpc::ErrorInfo { reason: "SOURCE_UNREACHABLE".to_owned(), ..Default::default() };
        let details = vec![json::pack(&info)];
        Outcome::Error(pb::google::rpc::Status { code: code as i32, message: "no host\x07 answers".to_owned(), details })
    }

    #[test]
    fn a_restore_that_only_counted_does_not_say_that_it_wrote() {
        let result = pb::own::RestoreResult { host_name: "a:1".to_owned(), keys: 1000, skipped_keys: 2, ..Default::default() };
        let told = |result: &pb::own::RestoreResult| outcome(&ended(Outcome::Response(json::pack(result)))).unwrap();
        assert!(told(&result).starts_with("a:1 holds 1,000 keys of backup "));
        let counted = told(&pb::own::RestoreResult { dry_run: true, ..result });
        assert!(counted.starts_with("a:1 would take 1,000 keys of backup ") && counted.ends_with(", 2 skipped; nothing was written"), "{counted}");
    }

    #[test]
    fn a_state_is_told_in_one_word() {
        let step = |step: Step| Some(Progress { step: step.into(), ..Progress::default() });
        let later = Progress { next_attempt_at: Some(Timestamp::default()), ..step(Step::Preflight).unwrap() };
        for (operation, word) in [
            (running(None), "PENDING"),
            (running(step(Step::Unspecified)), "QUEUED"),
            (running(step(Step::Seal)), "RUNNING"),
            (running(Some(later)), "QUEUED"),
            (ended(failure(Code::Unavailable)), "FAILED"),
            (ended(failure(Code::Cancelled)), "CANCELLED"),
            (ended(Outcome::Response(Any::default())), "SUCCEEDED"),
        ] {
            assert_eq!(state(&operation), word);
        }
    }

    #[test]
    fn a_failure_is_told_with_its_reason() {
        for (code, told) in [
            (Code::Unavailable, "operation o failed: no host\\u{7} answers (SOURCE_UNREACHABLE)"),
            (Code::Cancelled, "operation o was cancelled: no host\\u{7} answers (SOURCE_UNREACHABLE)"),
        ] {
            let error = outcome(&ended(failure(code))).unwrap_err();
            assert_eq!((error.exit(), error.to_string().as_str()), (Exit::Failed, told));
        }
    }

    #[test]
    fn a_success_is_told_in_one_line() {
        let shard = pb::own::ShardArtifact { keys: 250_000, ..Default::default() };
        let backup = pb::own::Backup {
            id: "b".to_owned(),
            cluster_id: "main".to_owned(),
            state: pb::own::backup::State::Available.into(),
            level: pb::own::backup::Level::Walked.into(),
            size_bytes: 12 << 20,
            shards: vec![shard],
            ..Default::default()
        };
        let line = outcome(&ended(Outcome::Response(json::pack(&backup)))).unwrap();
        assert_eq!(line, "backup b of cluster main is AVAILABLE: 12.0 MiB, 250,000 keys, level WALKED, in 13.2s");
        let export = pb::own::ExportResult { bucket: "reports".to_owned(), keys: vec!["a/b\x07.rdb".to_owned()], bytes: 12 << 20 };
        let line = outcome(&ended(Outcome::Response(json::pack(&export)))).unwrap();
        assert_eq!(line, "backup b is in bucket reports: 12.0 MiB in 1 object(s), in 13.2s\na/b\\u{7}.rdb");
        let empty = Any { type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(), value: Vec::new() };
        let line = outcome(&ended(Outcome::Response(empty))).unwrap();
        assert_eq!(line, "operation o succeeded in 13.2s: Back up cluster main, backup b");
    }

    #[test]
    fn an_operation_that_ended_is_read_from_top_to_bottom() {
        let now = DateTime::from_timestamp(1_893_456_073, 0).unwrap();
        let told = facts(&ended(failure(Code::Unavailable)), now);
        for part in ["State        FAILED", "Error        no host\\u{7} answers", "Created      2030-01-01T00:00:00Z (1m ago) by -", "Time         13.2s"] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        assert!(!told.contains("Follow"), "{told}");
    }

    #[test]
    fn a_row_names_step_and_cluster() {
        let progress = Progress { step: Step::Snapshot.into(), ..Progress::default() };
        let told = rows_text(&[running(Some(progress))], DateTime::from_timestamp(1_893_463_200, 0).unwrap());
        let last = told.lines().last().unwrap();
        assert_eq!(last.split_whitespace().collect::<Vec<_>>().join(" "), "o RUNNING SNAPSHOT main Back up cluster main 2030-01-01T00:00:00Z 2h");
    }
}
