//! `redkeep backup`: taking, listing, showing, changing, copying, exporting, importing and deleting backups.

use super::client::{Session, changing};
use super::error::Error;
use super::table::{self, Facts, Grid};
use super::{
    BackupCommand, CopyBackup, CreateBackup, DeleteBackup, Expires, ExportBackup, ImportBackup, ListOfCluster, Output, UpdateBackup, json, labels, operation,
    print, restore, text,
};
use crate::pb::own::backup::{Level, State};
use crate::pb::own::{self, Backup, ShardArtifact};
use chrono::{DateTime, Utc};
use tonic::Response;

/// Carries out a command on backups.
pub(super) async fn run(session: &Session, command: BackupCommand) -> Result<(), Error> {
    match command {
        BackupCommand::Create(args) => create(session, args).await,
        BackupCommand::List(args) => list(session, args).await,
        BackupCommand::Get(args) => get(session, args.id).await,
        BackupCommand::Update(args) => update(session, args).await,
        BackupCommand::Copy(args) => copy(session, args).await,
        BackupCommand::Export(args) => export(session, args).await,
        BackupCommand::Import(args) => import(session, args).await,
        BackupCommand::DownloadLinks(args) => download_links(session, args.id).await,
        BackupCommand::Restore(args) => restore::run(session, args).await,
        BackupCommand::Delete(args) => delete(session, args).await,
    }
}

async fn create(session: &Session, args: CreateBackup) -> Result<(), Error> {
    let request = own::CreateBackupRequest {
        cluster_id: args.cluster,
        name: args.name.unwrap_or_default(),
        labels: labels(args.labels)?,
        expires_at: args.expires.and_then(|expires| expires.at(Utc::now())).map(text::stamp),
    };
    let request = changing(request, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.backups().create(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

async fn list(session: &Session, args: ListOfCluster) -> Result<(), Error> {
    let cluster_id = args.cluster.unwrap_or_default();
    let list = session
        .pages(args.limit.rows, |page_size, page_token| {
            let mut client = session.backups();
            let (folder_id, cluster_id) = (session.folder.clone(), cluster_id.clone());
            let request = own::ListBackupsRequest { folder_id, cluster_id, page_size, page_token };
            async move {
                let page = client.list(request).await?.into_inner();
                Ok(Response::new((page.backups, page.next_page_token)))
            }
        })
        .await?;
    match session.output {
        Output::Json => print::value(&json::list("backups", &list.rows)?)?,
        Output::Table => print::answer(&rows_text(&list.rows, Utc::now()))?,
    }
    if list.is_cut {
        print::note("there are more; --limit 0 shows all");
    }
    Ok(())
}

async fn get(session: &Session, backup_id: String) -> Result<(), Error> {
    let backup = session.call(session.backups().get(own::GetBackupRequest { backup_id })).await?;
    match session.output {
        Output::Json => print::value(&json::message(&backup)?),
        Output::Table => print::answer(&describe(&backup, Utc::now())),
    }
}

async fn update(session: &Session, args: UpdateBackup) -> Result<(), Error> {
    let (wait, key) = (args.change.wait, args.change.idempotency_key.clone());
    let request = changing(update_request(args, Utc::now())?, key.as_deref())?;
    let operation = session.change(session.backups().update(request)).await?;
    operation::settle(session, operation, wait).await
}

async fn copy(session: &Session, args: CopyBackup) -> Result<(), Error> {
    let request = own::CopyBackupRequest { backup_id: args.id, name: args.name.unwrap_or_default() };
    let request = changing(request, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.backups().copy(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

async fn export(session: &Session, args: ExportBackup) -> Result<(), Error> {
    let path = args.path.unwrap_or_default();
    let request = own::ExportBackupRequest { backup_id: args.id, bucket: args.bucket, path, as_stored: args.as_stored };
    let request = changing(request, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.backups().export(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

async fn import(session: &Session, args: ImportBackup) -> Result<(), Error> {
    let (folder_id, name) = (session.folder.clone(), args.name.unwrap_or_default());
    let request = own::ImportBackupRequest { folder_id, cluster_id: args.cluster, bucket: args.bucket, keys: args.objects, name };
    let request = changing(request, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.backups().import(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

async fn delete(session: &Session, args: DeleteBackup) -> Result<(), Error> {
    let request = changing(own::DeleteBackupRequest { backup_id: args.id }, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.backups().delete(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

async fn download_links(session: &Session, backup_id: String) -> Result<(), Error> {
    let answer = session.call(session.backups().get_download_links(own::GetDownloadLinksRequest { backup_id })).await?;
    match session.output {
        Output::Json => print::value(&json::message(&answer)?),
        Output::Table => print::answer(&links_text(&answer.links, Utc::now())),
    }
}

/// Each link on a line of its own, unbroken, so that it can be taken from there.
fn links_text(links: &[own::DownloadLink], now: DateTime<Utc>) -> String {
    let one = |link: &own::DownloadLink| {
        let ends = text::instant(link.expires_at.as_ref()).map_or_else(|| "-".to_owned(), |at| text::distance(at, now));
        let (file, sha256) = (text::or_dash(&link.file_name), text::or_dash(&link.sha256));
        format!("{file}  {}  ends {ends}\nSHA-256 {sha256}\n{}", text::size(link.bytes), text::escape(&link.url))
    };
    links.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

/// The change that the flags ask for; the mask names each of them, so that nothing else is touched.
fn update_request(args: UpdateBackup, now: DateTime<Utc>) -> Result<own::UpdateBackupRequest, Error> {
    let mut paths = Vec::new();
    let mut mark = |path: &str, is_given: bool| {
        if is_given {
            paths.push(path.to_owned());
        }
    };
    mark("name", args.name.is_some());
    mark("labels", !args.labels.is_empty() || args.no_labels);
    mark("expires_at", args.expires.is_some());
    mark("holds", !args.holds.is_empty() || args.no_holds);
    Ok(own::UpdateBackupRequest {
        backup_id: args.id,
        update_mask: Some(prost_types::FieldMask { paths }),
        name: args.name.unwrap_or_default(),
        labels: labels(args.labels)?,
        expires_at: args.expires.and_then(|expires: Expires| expires.at(now)).map(text::stamp),
        holds: args.holds,
        clear_suspect: args.clear_suspect,
    })
}

fn rows_text(backups: &[Backup], now: DateTime<Utc>) -> String {
    let mut grid = Grid::new(&["ID", "NAME", "CLUSTER", "STATE", "LEVEL", "SIZE", "STORED", "KEYS", "CREATED", "AGE", "EXPIRES", "HELD", "SUSPECT"]);
    for backup in backups {
        let created = text::instant(backup.created_at.as_ref());
        let amount = |number: i64, show: fn(i64) -> String| if backup.shards.is_empty() { "-".to_owned() } else { show(number) };
        grid.row([
            text::escape(&backup.id).into(),
            text::or_dash(&backup.name).into(),
            text::or_dash(&backup.cluster_id).into(),
            table::state(table::known(backup.state().as_str_name())),
            table::state(table::known(backup.level().as_str_name())),
            amount(backup.size_bytes, text::size).into(),
            amount(backup.stored_bytes, text::size).into(),
            amount(keys(backup), text::count).into(),
            text::time(created).into(),
            text::age(created, now).into(),
            text::instant(backup.expires_at.as_ref()).map_or_else(|| "never".to_owned(), |instant| text::distance(instant, now)).into(),
            if backup.holds.is_empty() { "-" } else { "yes" }.into(),
            if is_suspect(backup) { "yes" } else { "-" }.into(),
        ]);
    }
    grid.text()
}

/// Whether its source looked wrong and nobody has cleared that.
fn is_suspect(backup: &Backup) -> bool {
    backup.suspicion.as_ref().is_some_and(|suspicion| suspicion.cleared_at.is_none())
}

fn keys(backup: &Backup) -> i64 {
    backup.shards.iter().map(|shard| shard.keys).fold(0, i64::saturating_add)
}

fn describe(backup: &Backup, now: DateTime<Utc>) -> String {
    let mut told = facts(backup, now);
    for shard in &backup.shards {
        told += &format!("\n\n{}", shard_facts(shard, now));
    }
    told
}

fn facts(backup: &Backup, now: DateTime<Utc>) -> String {
    let instant = |stamp: &Option<prost_types::Timestamp>| text::instant(stamp.as_ref());
    let (started, completed) = (instant(&backup.started_at), instant(&backup.completed_at));
    let mut facts = Facts::new();
    facts.add("Backup", text::escape(&backup.id));
    facts.add("Name", text::or_dash(&backup.name));
    facts.add("State", table::state(state(backup.state())));
    if let Some(error) = &backup.error {
        facts.add("Error", text::or_dash(&error.message));
        facts.add_some("Reason", operation::reason(error));
    }
    facts.add("Level", table::state(level(backup.level())));
    facts.add("Cluster", format!("{} (folder {})", text::or_dash(&backup.cluster_id), text::or_dash(&backup.folder_id)));
    facts.add("Type", table::known(backup.r#type().as_str_name()));
    facts.add("Created", text::time_and_distance(instant(&backup.created_at), now));
    facts.add("Started", text::time(started));
    facts.add("Completed", text::time(completed));
    facts.add("Took", text::span(started, completed));
    facts.add("Expires", instant(&backup.expires_at).map_or_else(|| "never".to_owned(), |at| text::time_and_distance(Some(at), now)));
    facts.add_some("Files go", instant(&backup.purge_at).map(|at| text::time_and_distance(Some(at), now)));
    if backup.holds.is_empty() {
        facts.add("Holds", "none");
    }
    for hold in &backup.holds {
        let since = text::time(instant(&hold.created_at));
        facts.add("Hold", format!("{} (by {} at {since})", text::escape(&hold.reason), text::or_dash(&hold.created_by)));
    }
    if let Some(suspicion) = &backup.suspicion {
        for reason in &suspicion.reasons {
            facts.add("SUSPECT", text::escape(reason));
        }
        let cleared = instant(&suspicion.cleared_at).map(|at| format!("by {} at {}", text::or_dash(&suspicion.cleared_by), text::time(Some(at))));
        match cleared {
            Some(cleared) => facts.add("Cleared", cleared),
            None => facts
                .add("What to do", format!("look at the source; if it is as it should be: redkeep backup update {} --clear-suspect", text::escape(&backup.id))),
        }
    }
    if !backup.shards.is_empty() {
        let compression = text::or_dash(&backup.compression);
        facts.add("Size", format!("{}, stored as {} ({compression})", text::size(backup.size_bytes), text::size(backup.stored_bytes)));
        facts.add("Keys", text::count(keys(backup)));
        let skew = if backup.shards.len() > 1 { format!(", skew {} ms", text::count(backup.skew_ms)) } else { String::new() };
        facts.add("Consistency", format!("{}{skew}", table::known(backup.consistency().as_str_name())));
    }
    for recipient in &backup.age_recipients {
        facts.add("Encrypted to", text::escape(recipient));
    }
    facts.add("Path", text::or_dash(&backup.path));
    facts.add("Labels", text::labels(&backup.labels));
    facts.add("Operation", text::or_dash(&backup.operation_id));
    facts.add_some("Busy with", (!backup.busy_operation_id.is_empty()).then(|| format!("operation {}", text::escape(&backup.busy_operation_id))));
    facts.text()
}

fn shard_facts(shard: &ShardArtifact, now: DateTime<Utc>) -> String {
    use own::shard_artifact::Checksum;
    let instant = |stamp: &Option<prost_types::Timestamp>| text::instant(stamp.as_ref());
    let mut facts = Facts::new();
    facts.add("Shard", text::or_dash(&shard.name));
    facts.add("Source host", format!("{} ({})", text::or_dash(&shard.source_host), text::or_dash(&shard.source_role)));
    facts.add("Engine", format!("{} {}, RDB version {}", text::or_dash(&shard.engine), text::or_dash(&shard.engine_version), shard.rdb_version));
    facts.add("Level", table::state(level(shard.level())));
    facts.add_some("Not walked", (!shard.opaque_reason.is_empty()).then(|| text::escape(&shard.opaque_reason)));
    let checksum = match shard.checksum() {
        Checksum::Verified => "VERIFIED (in the dump, and it holds)",
        Checksum::Absent => "ABSENT (the source writes none)",
        Checksum::Unspecified => "-",
    };
    facts.add("Checksum", table::state(checksum));
    for digest in &shard.sha256 {
        facts.add("SHA-256", text::escape(digest));
    }
    facts.add("Size", format!("{}, stored as {}", text::size(shard.size_bytes), text::size(shard.stored_bytes)));
    facts.add("Keys", format!("{}, {} of them with an expiry", text::count(shard.keys), text::count(shard.expiring_keys)));
    if shard.databases.len() > 1 {
        let each = shard.databases.iter().map(|database| format!("db{}: {}", database.index, text::count(database.keys)));
        facts.add("Databases", each.collect::<Vec<_>>().join(", "));
    }
    if !shard.types.is_empty() {
        let each = shard.types.iter().map(|(name, keys)| format!("{}: {}", text::escape(name), text::count(*keys)));
        facts.add("Types", each.collect::<Vec<_>>().join(", "));
    }
    facts.add_some("Functions", (shard.functions > 0).then(|| format!("{} libraries", text::count(shard.functions))));
    facts.add("Snapshot", text::time_and_distance(instant(&shard.snapshot_at), now));
    facts.add("Upload", text::span(instant(&shard.upload_started_at), instant(&shard.upload_ended_at)));
    facts.add_some("Source memory", (shard.used_memory_bytes > 0).then(|| text::size(shard.used_memory_bytes)));
    facts.add_some("Fork", (shard.fork_us > 0).then(|| format!("{} µs", text::count(shard.fork_us))));
    facts.add_some("Copied on write", (shard.copy_on_write_bytes > 0).then(|| text::size(shard.copy_on_write_bytes)));
    if let Some(impact) = &shard.impact {
        facts.add_some("Chosen because", (!impact.chosen_because.is_empty()).then(|| text::escape(&impact.chosen_because)));
        let waits = impact.waited_for.iter().map(|wait| text::escape(wait));
        facts.add_some("Waited for", (!impact.waited_for.is_empty()).then(|| waits.collect::<Vec<_>>().join(", ")));
        facts.add_some("Rate", (impact.bytes_per_second > 0).then(|| format!("{}/s", text::size(impact.bytes_per_second))));
        facts.add_some("Shared", impact.shared_round.then(|| "a replica of the source synchronised at the same time".to_owned()));
    }
    if !shard.slots.is_empty() {
        let range = |slots: &own::SlotRange| if slots.first == slots.last { slots.first.to_string() } else { format!("{}-{}", slots.first, slots.last) };
        facts.add("Slots", shard.slots.iter().map(range).collect::<Vec<_>>().join(", "));
        facts.add_some("Stray keys", (shard.stray_keys > 0).then(|| format!("{} outside of the slots", text::count(shard.stray_keys))));
    }
    for moving in &shard.moves {
        facts.add("Moved", text::escape(moving));
    }
    facts.add_some("Side state", shard.side_state.then(|| "beside the dump: users, modules, configuration, topology".to_owned()));
    let position = (!shard.replication_id.is_empty()).then(|| format!("{}:{}", text::escape(&shard.replication_id), shard.replication_offset));
    facts.add_some("Replication", position);
    facts.text()
}

fn state(state: State) -> &'static str {
    match state {
        State::Unspecified => "-",
        State::Creating => "CREATING (its operation has not ended)",
        State::Available => "AVAILABLE (whole and restorable)",
        State::Error => "ERROR (its creation failed; nothing is stored, and it can be deleted)",
        State::Deleting => "DELETING (its files go after the grace time)",
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Unspecified => "-",
        Level::Framed => "FRAMED (the transfer was whole)",
        Level::Sealed => "SEALED (the end mark stands and the checksum holds)",
        Level::Walked => "WALKED (every record was read and counted)",
        Level::Loaded => "LOADED (a real server loaded it and the counts matched)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Client, Command};
    use clap::Parser;

    fn update(line: &str) -> own::UpdateBackupRequest {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Client(Client::Backup(crate::cli::Backups { command: BackupCommand::Update(args), .. })) = cli.command else { panic!("{line}") };
        update_request(args, "2030-01-01T00:00:00Z".parse().unwrap()).unwrap()
    }

    #[test]
    fn only_what_is_named_changes() {
        for (flags, paths) in [
            ("--name n", vec!["name"]),
            ("--label a=b --expires never", vec!["labels", "expires_at"]),
            ("--no-labels --no-holds", vec!["labels", "holds"]),
            ("--hold why --expires 1d", vec!["expires_at", "holds"]),
            ("--clear-suspect", vec![]),
        ] {
            let request = update(&format!("redkeep backup update b {flags}"));
            assert_eq!(request.update_mask.unwrap().paths, paths, "{flags}");
            assert_eq!(request.clear_suspect, flags.contains("clear-suspect"), "{flags}");
            assert_eq!(request.expires_at.map(|at| at.seconds), flags.contains("1d").then_some(1_893_456_000 + 86400), "{flags}");
        }
    }

    #[test]
    fn a_label_has_one_value() {
        let twice = vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert_eq!(labels(twice).unwrap_err().exit(), crate::cli::Exit::Usage);
    }

    fn sample() -> Backup {
        let shard = ShardArtifact {
            name: "shard1".to_owned(),
            source_host: "b:6379".to_owned(),
            source_role: "replica".to_owned(),
            engine: "redis".to_owned(),
            engine_version: "7.2.5".to_owned(),
            rdb_version: 11,
            size_bytes: 12 << 20,
            stored_bytes: 4 << 20,
            sha256: vec!["ab".repeat(32)],
            checksum: own::shard_artifact::Checksum::Verified.into(),
            level: Level::Walked.into(),
            keys: 250_000,
            expiring_keys: 1200,
            ..Default::default()
        };
        let hold = own::Hold { reason: "case\x1b[31m 1729".to_owned(), created_by: "anonymous".to_owned(), created_at: None };
        Backup {
            id: "b1".to_owned(),
            folder_id: "default".to_owned(),
            cluster_id: "main".to_owned(),
            name: "nightly".to_owned(),
            state: State::Available.into(),
            level: Level::Walked.into(),
            created_at: Some(prost_types::Timestamp { seconds: 1_893_456_000, nanos: 0 }),
            expires_at: Some(prost_types::Timestamp { seconds: 1_893_456_000 + 30 * 86400, nanos: 0 }),
            size_bytes: 12 << 20,
            stored_bytes: 4 << 20,
            compression: "zstd:1".to_owned(),
            path: "default/main/b1".to_owned(),
            shards: vec![shard],
            holds: vec![hold],
            ..Default::default()
        }
    }

    #[test]
    fn a_suspicion_is_told_with_what_to_do() {
        let suspicion = own::Suspicion { reasons: vec!["the source is empty".to_owned()], ..Default::default() };
        let suspect = Backup { suspicion: Some(suspicion.clone()), ..sample() };
        let now = DateTime::from_timestamp(1_893_463_200, 0).unwrap();
        let told = describe(&suspect, now);
        assert!(told.contains("the source is empty") && told.contains("redkeep backup update b1 --clear-suspect"), "{told}");
        let stamp = Some(prost_types::Timestamp { seconds: 1_893_456_000, nanos: 0 });
        let cleared = Backup { suspicion: Some(own::Suspicion { cleared_by: "me".to_owned(), cleared_at: stamp, ..suspicion }), ..sample() };
        let told = describe(&cleared, now);
        assert!(told.contains("by me at 2030-01-01T00:00:00Z") && !told.contains("--clear-suspect"), "{told}");
        let marks = |backup: &Backup| rows_text(std::slice::from_ref(backup), now).lines().nth(1).unwrap().trim_end().ends_with("yes");
        assert_eq!((marks(&suspect), marks(&cleared), marks(&sample())), (true, false, false));
    }

    #[test]
    fn a_person_at_night_can_read_it() {
        let told = describe(&sample(), DateTime::from_timestamp(1_893_463_200, 0).unwrap());
        for part in [
            "State        AVAILABLE (whole and restorable)",
            "Level        WALKED (every record was read and counted)",
            "Created      2030-01-01T00:00:00Z (2h ago)",
            "Expires      2030-01-31T00:00:00Z (in 29d)",
            "Hold         case\\u{1b}[31m 1729 (by anonymous at -)",
            "Size         12.0 MiB, stored as 4.0 MiB (zstd:1)",
            "Keys         250,000",
            "Path         default/main/b1",
            "Source host  b:6379 (replica)",
            "Checksum     VERIFIED",
            "SHA-256      abab",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        assert!(!told.contains('\x1b'));
    }

    #[test]
    fn a_row_shows_numbers_only_when_there_are_some() {
        let now = DateTime::from_timestamp(1_893_463_200, 0).unwrap();
        let draft = Backup { id: "b2".to_owned(), state: State::Creating.into(), ..Default::default() };
        let told = rows_text(&[sample(), draft], now);
        let rows: Vec<_> = told.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows[0], "b1 nightly main AVAILABLE WALKED 12.0 MiB 4.0 MiB 250,000 2030-01-01T00:00:00Z 2h in 29d yes -");
        assert_eq!(rows[1], "b2 - - CREATING - - - - - - never - -");
    }
}
