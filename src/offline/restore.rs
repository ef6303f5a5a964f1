//! `redkeep restore`: a backup into a running server, with nothing but its storage.

use super::stored;
use crate::cli::{self, Restore, target_login};
use crate::operation::Left;
use crate::redis::tls::{Authorities, Tls};
use crate::redis::{Address, Credentials, Password, Target, feed};
use crate::restore::{self as room, Armed, Request, Rules};
use crate::snapshot::Meter;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is told how far it is.
const TOLD: Duration = Duration::from_secs(5);

/// How long it is tried to free the target after a failure.
const FREE_TIMEOUT: Duration = Duration::from_secs(60);

/// Restores one shard, and prints what it does. Ctrl-C frees the target.
///
/// # Errors
///
/// A sentence, with the state of the target.
pub async fn restore(args: &Restore) -> Result<(), String> {
    let request = request(args).await?;
    let (name, shard) = (&request.target.name, &request.shard);
    let untouched = |error: room::Error| format!("{error}; the target is untouched");

    eprintln!("looking at {name}");
    drop(room::look(&request, None).await.map_err(untouched)?);
    eprintln!("checking {} bytes of {}", shard.size_bytes, shard.name);
    let meter = Meter::default();
    told(&meter, "checked", room::check(&request, &meter)).await.map_err(|fault| untouched(fault.into()))?;
    let ready = room::look(&request, None).await.map_err(untouched)?;
    let going = ready.keys();
    let armed = Armed::bind(&request, ready, None).await.map_err(untouched)?;

    let mut left = armed.left().clone();
    if going > 0 {
        eprintln!("{name} loses the {going} keys that it holds");
    }
    eprintln!("{name} loads the backup from {}:{}", left.feed_host, left.feed_port);
    let started = Instant::now();
    let meter = Meter::default();
    let loaded = tokio::select! {
        loaded = told(&meter, "loaded", armed.load(&request, &meter)) => loaded.map_err(|error| error.to_string()),
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(what) => return Err(format!("{what}; {}", freed(&request.target, &mut left).await)),
    };
    if let Err(error) = room::finish(&request.target, &left).await {
        return Err(format!("{error}; the target has all of the backup, and may still follow a feed that is gone: REPLICAOF NO ONE frees it"));
    }
    let expired = if loaded.expired > 0 { format!(" ({} more have expired since)", loaded.expired) } else { String::new() };
    println!("{name} holds the backup: {} keys{expired}, {} bytes, in {:.1} s", loaded.keys, shard.size_bytes, started.elapsed().as_secs_f64());
    Ok(())
}

async fn request(args: &Restore) -> Result<Request, String> {
    let stored = stored::open(&args.stored).await?;
    let shard = match (stored.shards(args.consent.shard.as_deref())?.as_slice(), &args.consent.shard) {
        ([only], _) => (*only).clone(),
        (several, _) => return Err(format!("the backup has {} shards, and one server takes one; name it with --shard: {}", several.len(), stored.names())),
    };
    let address: Address = args.into.parse().map_err(|fault| format!("--into {fault}"))?;
    let login = target_login(&args.login).map_err(|fault| fault.to_string())?;
    let tls = if login.tls { Some(tls(&login)?) } else { None };
    let credentials = Credentials { username: login.username, password: login.password.map(Password::new) };
    let files = args.feed_cert.clone().zip(args.feed_key.clone()).map(|(cert, key)| feed::TlsFiles { cert, key });
    Ok(Request {
        target: Target { name: address.to_string(), address, credentials, tls },
        rules: Rules { overwrite: args.consent.overwrite, allow_replicas: args.consent.allow_replicas, ..Rules::default() },
        feed: feed::Options { listen: args.feed_listen, advertise: args.feed_advertise.clone(), tls: files },
        storage: stored.storage,
        folder: stored.folder,
        shard,
    })
}

fn tls(login: &cli::Login) -> Result<Tls, String> {
    let authorities = if login.tls_ca.is_empty() { Authorities::System } else { Authorities::Own(login.tls_ca.as_bytes()) };
    Tls::new(authorities, None).map_err(|fault| format!("--tls-ca {fault}"))
}

async fn freed(target: &Target, left: &mut Left) -> String {
    eprintln!("freeing {}", target.name);
    room::release(target, left, FREE_TIMEOUT).await
}

/// Waits for something, and tells every few seconds how far it is.
async fn told<T>(meter: &Meter, what: &str, doing: impl Future<Output = T>) -> T {
    tokio::pin!(doing);
    loop {
        tokio::select! {
            done = &mut doing => return done,
            () = tokio::time::sleep(TOLD) => {
                let waits = meter.waiting_for();
                let waits = if waits.is_empty() { waits } else { format!(", waiting for {waits}") };
                eprintln!("{what} {} of {} bytes{waits}", meter.bytes(), meter.bytes_expected());
            }
        }
    }
}
