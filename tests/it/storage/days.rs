//! Goal: when storage has a bad day the source is spared, the backup comes true as soon as it can, and nothing is left over. Method: the
//! real service, a proxy that makes the bad day before a real object server, a scripted source that counts its forks.
//!
//! An outage of ten minutes is one of seconds here, unless `REDKEEP_OUTAGE_SECS` says 600: what grows with its length is the number of
//! attempts that end before the fork.

use super::*;
use crate::support::scripted::{ScriptedRedis, generated_length};
use crate::support::service::{Clients, OPERATION, Service, Setup, error_of};
use crate::support::until;
use aws_lc_rs::digest;
use redkeep::artifacts::PART_BYTES;
use redkeep::pb::own;
use std::time::Instant;

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(60);

/// A service whose artifacts go through a proxy to a bucket, with a source of three parts and a little.
struct Day {
    bucket: Bucket,
    proxy: Proxy,
    source: ScriptedRedis,
    service: Service,
}

impl Day {
    async fn begin(kind: Kind, extra: &str) -> Option<Self> {
        let bucket = Bucket::open(kind).await?;
        let proxy = Proxy::start(bucket.server()).await;
        if kind == Kind::S3 {
            bucket.write_secrets("test", "old-token");
        }
        let source = ScriptedRedis::start(vec![generated_length(3 * PART_BYTES as u64, 4096, None)]).await;
        if kind == Kind::Google {
            // Its credentials name where it is.
            bucket.write_secrets_for(&proxy.address());
        }
        let artifacts = format!("{}compression = \"none\"\n{extra}", bucket.lines_through("a", &proxy.address()));
        let service = Setup::new().artifacts(&artifacts).cluster("main", &[&source.address()], "").start().await;
        Some(Self { bucket, proxy, source, service })
    }

    fn forks(&self) -> u64 {
        self.source.counts().psyncs as u64
    }

    /// Takes a backup, and checks that its bytes are those of its digest.
    async fn take(&self, name: &str) -> own::Backup {
        let backup = self.service.clients.take("main", name).await;
        let stored = self.bucket.read(&format!("a/{}/shard1-0.rdb", backup.path)).await;
        let found: String = digest::digest(&digest::SHA256, &stored).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!([found], *backup.shards[0].sha256, "{name}");
        backup
    }

    /// Waits until there is nothing in the bucket but what these backups consist of.
    async fn nothing_else_is_left(&self, backups: &[&own::Backup]) {
        let is_theirs = |key: &String| backups.iter().any(|backup| key.starts_with(&format!("a/{}/", backup.path)) && !key.ends_with(".upload"));
        until("all other objects and uploads are gone", SOON, async || {
            (self.bucket.objects().await.iter().all(is_theirs) && self.bucket.unfinished().await.is_empty()).then_some(())
        })
        .await;
        for backup in backups {
            let files: Vec<String> = self.bucket.objects().await.into_iter().filter(|key| key.contains(&backup.path)).collect();
            assert_eq!(files.len(), 4, "{files:?}");
        }
    }
}

/// The error of the latest failed attempt, when there was one.
async fn last_error(clients: &Clients, operation: &str) -> Option<String> {
    Some(clients.progress(operation).await.last_error).filter(|error| !error.is_empty())
}

/// What passes within the time of a part costs no second fork: each kind of refusal and of break, five times for the same part where the
/// store answers, and a connection that goes silent.
#[tokio::test]
async fn what_passes_costs_one_fork() {
    let Some(day) = Day::begin(Kind::S3, "").await else { return };
    let faults = [
        (Fault::Answer(500, "InternalError"), "partNumber=2", 5),
        (Fault::Answer(503, "SlowDown"), "partNumber=2", 5),
        (Fault::Answer(503, "SlowDown"), "?uploads", 2),
        (Fault::Answer(500, "InternalError"), "manifest.json", 2),
        (Fault::Reset, "partNumber=3", 5),
        (Fault::ResetWithin, "partNumber=1", 2),
        (Fault::LoseAnswer, "partNumber=2", 1),
        (Fault::LoseAnswer, "manifest.json", 1),
        (Fault::Answer(400, "RequestTimeout"), "partNumber=2", 1),
        (Fault::Swallow, "partNumber=2", 1),
    ];
    let mut backups = Vec::new();
    for (index, (fault, within, times)) in faults.into_iter().enumerate() {
        let struck = day.proxy.struck();
        let rule = Rule::new(fault).within(within).times(times);
        day.proxy.clear().rule(if within == "?uploads" { rule.method("POST") } else { rule.method("PUT") });
        backups.push(day.take(&format!("b{index}")).await);
        assert_eq!((day.proxy.struck() - struck, day.forks()), (times, index as u64 + 1), "{fault:?} {within}");
    }
    day.nothing_else_is_left(&backups.iter().collect::<Vec<_>>()).await;
    day.service.stop().await;
}

/// Goal: what does not pass in the time of a part ends the attempt, and the next one succeeds. Method: a part is reset until the attempt
/// has failed; a part that the store never answers, neither to the first request nor to the second.
#[tokio::test]
async fn a_part_that_cannot_be_stored_costs_one_fork_more() {
    let Some(day) = Day::begin(Kind::S3, "").await else { return };
    day.proxy.rule(Rule::new(Fault::Reset).method("PUT").within("partNumber=2"));
    let clearing = async {
        until("the attempt has failed", SOON, async || {
            let operation = day.service.clients.all_backups().await.pop()?.operation_id;
            last_error(&day.service.clients, &operation).await
        })
        .await;
        day.proxy.clear();
    };
    let (first, ()) = tokio::join!(day.take("resets"), clearing);
    assert_eq!(day.forks(), 2);
    assert!(day.proxy.struck() > 5, "{}", day.proxy.struck());
    let struck = day.proxy.struck();
    day.proxy.rule(Rule::new(Fault::Swallow).method("PUT").within("partNumber=2").times(2));
    let second = day.take("silence").await;
    assert_eq!((day.proxy.struck() - struck, day.forks()), (2, 4));
    day.nothing_else_is_left(&[&first, &second]).await;
    day.service.stop().await;
}

/// Goal: the session token has its end in the middle of the upload; with the new one in its file the same attempt goes on.
#[tokio::test]
async fn a_token_that_ends_in_the_middle_costs_no_fork() {
    let Some(day) = Day::begin(Kind::S3, "").await else { return };
    day.proxy.rule(Rule::new(Fault::Answer(403, "ExpiredToken")).header("old-token").within("partNumber=2"));
    day.proxy.rule(Rule::new(Fault::Answer(403, "ExpiredToken")).header("old-token").within("partNumber=3"));
    let taking = day.take("b");
    let turning = async {
        until("a part is refused", SOON, async || (day.proxy.struck() > 0).then_some(())).await;
        day.bucket.write_secrets("test", "new-token");
    };
    let (backup, ()) = tokio::join!(taking, turning);
    assert_eq!(day.forks(), 1);
    day.nothing_else_is_left(&[&backup]).await;
    day.service.stop().await;
}

/// Goal: a part that was damaged on its way is not stored. Method: the proxy refuses, as S3 does, a body that is not the one that was
/// signed; a bit of it turns before that.
#[tokio::test]
async fn a_part_that_is_damaged_on_its_way_is_not_stored() {
    let Some(day) = Day::begin(Kind::S3, "").await else { return };
    day.proxy.check_bodies().rule(Rule::new(Fault::DamageRequest).method("PUT").within("partNumber=2").times(1));
    day.proxy.rule(Rule::new(Fault::DamageRequest).method("PUT").within("manifest.json").times(1));
    let backup = day.take("b").await;
    assert_eq!((day.proxy.struck(), day.forks()), (2, 1));
    day.nothing_else_is_left(&[&backup]).await;
    day.service.stop().await;
}

/// Goal: no fork while storage is away, at most one more after it, and the operation succeeds. Method: storage goes away in the middle
/// of the upload, and stays away for at least three attempts.
async fn an_outage_costs_one_fork_more(kind: Kind) {
    let Some(day) = Day::begin(kind, "").await else { return };
    let second_part = if kind == Kind::Azure { "comp=block" } else { "partNumber=2" };
    // The connection ends in the middle of a part, and so does everything from then on.
    day.proxy.rule(Rule::new(Fault::ResetWithin).method("PUT").within(second_part).after(usize::from(kind == Kind::Azure)));
    let clients = &day.service.clients;
    let operation = clients.create("main", "b").await.expect("the backup is accepted");
    until("the outage begins", SOON, async || (day.proxy.struck() > 0).then_some(())).await;
    day.proxy.outage(true);
    let begun_at = Instant::now();
    let told = until("storage is away for three attempts", SOON, async || {
        let error = last_error(clients, &operation.id).await?;
        (clients.progress(&operation.id).await.attempt >= 3).then_some(error)
    })
    .await;
    assert!(told.contains("storage"), "{told}");
    let least = std::env::var("REDKEEP_OUTAGE_SECS").ok().and_then(|secs| secs.parse().ok()).unwrap_or_default();
    tokio::time::sleep(Duration::from_secs(least).saturating_sub(begun_at.elapsed())).await;
    assert_eq!(day.forks(), 1, "{kind:?}: after {:?}", begun_at.elapsed());
    day.proxy.clear().outage(false);
    // The next attempt may be up to a minute away.
    let ended = clients.ended(&operation.id, OPERATION + SOON).await;
    assert!(error_of(&ended).is_none(), "{kind:?}: {ended:#?}");
    assert_eq!(day.forks(), 2, "{kind:?}");
    eprintln!("{kind:?}: storage was away for {:.0} s and {} attempts", begun_at.elapsed().as_secs_f64(), clients.progress(&operation.id).await.attempt);
    let backup = clients.all_backups().await.remove(0);
    day.nothing_else_is_left(&[&backup]).await;
    day.service.stop().await;
}

#[tokio::test]
async fn an_outage_of_s3_costs_one_fork_more() {
    an_outage_costs_one_fork_more(Kind::S3).await;
}

#[tokio::test]
async fn an_outage_of_azure_costs_one_fork_more() {
    an_outage_costs_one_fork_more(Kind::Azure).await;
}

#[tokio::test]
async fn an_outage_of_google_costs_one_fork_more() {
    an_outage_costs_one_fork_more(Kind::Google).await;
}

/// Goal: once the manifest is decided nothing is forked again, however long storage is away. Method: everything fails from the manifest
/// on, for at least two attempts.
#[tokio::test]
async fn an_outage_at_the_publication_costs_no_fork() {
    let Some(day) = Day::begin(Kind::S3, "").await else { return };
    day.proxy.rule(Rule::new(Fault::Reset).within("manifest.json"));
    let clients = &day.service.clients;
    let operation = clients.create("main", "b").await.expect("the backup is accepted");
    until("it is tried again", SOON, async || (clients.progress(&operation.id).await.attempt >= 2).then_some(())).await;
    day.proxy.clear();
    let ended = clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    assert_eq!(day.forks(), 1);
    let backup = clients.all_backups().await.remove(0);
    day.nothing_else_is_left(&[&backup]).await;
    day.service.stop().await;
}

/// The other stores, in short: what passes costs one fork.
#[tokio::test]
async fn what_passes_costs_one_fork_elsewhere() {
    for (kind, part, busy) in [(Kind::Azure, "comp=block", "ServerBusy"), (Kind::Google, "partNumber=2", "SlowDown")] {
        let Some(day) = Day::begin(kind, "").await else { return };
        let mut backups = Vec::new();
        for (index, fault) in
            [Fault::Answer(500, "InternalError"), Fault::Answer(503, busy), Fault::Reset, Fault::ResetWithin, Fault::LoseAnswer].into_iter().enumerate()
        {
            day.proxy.clear().rule(Rule::new(fault).method("PUT").within(part).times(2));
            backups.push(day.take(&format!("b{index}")).await);
            assert_eq!(day.forks(), index as u64 + 1, "{kind:?} {fault:?}");
        }
        day.nothing_else_is_left(&backups.iter().collect::<Vec<_>>()).await;
        day.service.stop().await;
    }
}
