//! Whether a target may be filled. Every question is asked before anything is changed.

use super::{Bar, Error, Request, follows};
use crate::cluster::Role;
use crate::operation::Left;
use crate::redis;
use crate::redis::connection::{Connection, Reply};
use crate::redis::engines::{self, Brand, Engine, Need, Version};
use crate::redis::facts::{self, Facts};
use std::path::PathBuf;

/// The setting by which a target loads a dump from the socket, without a copy on its disk.
const DISKLESS_LOAD: &str = "repl-diskless-load";

/// A target that may be filled.
pub struct Ready {
    /// The connection on which it is told what to do.
    pub(super) control: Connection,
    /// What it says of itself.
    pub(super) facts: Facts,
    /// Whether it replicates over TLS.
    pub(super) secured: bool,
    /// How it receives dumps, and how it is to, where that can be set and differs.
    pub(super) diskless: Option<(String, &'static str)>,
}

impl Ready {
    /// Keys that it holds, which will go.
    pub fn keys(&self) -> u64 {
        self.facts.keys
    }
}

/// Looks at the target. `left` is what an attempt before has left of it: when it still follows that attempt's feed, it is freed.
///
/// # Errors
///
/// [`Error::Refused`] with what stands against it, [`Error::Target`] when it cannot be asked. It is as it was, except that it
/// follows our feed no more.
pub async fn look(request: &Request, left: Option<&Left>) -> Result<Ready, Error> {
    let mut control = Connection::open(&request.target).await?;
    let mut facts = Facts::ask(&mut control).await?;
    let is_ours = left.is_some_and(|left| facts.role == Role::Replica && follows(&facts, left));
    if is_ours {
        control.call(&[b"REPLICAOF", b"NO", b"ONE"]).await?;
        facts = Facts::ask(&mut control).await?;
    }
    judge_role(request, &mut control, &facts).await?;
    judge_version(request, &mut control, &facts).await?;
    let agreed = left.map(|left| if is_ours { u64::MAX } else { left.keys }).max(request.rules.overwrite);
    judge_content(request, &mut control, &facts, agreed).await?;
    let keeps_old = judge_memory(request, &facts)?;
    let secured = setting(&mut control, "tls-replication").await.as_deref() == Some("yes");
    if secured && request.feed.tls.is_none() {
        let what = "it replicates over TLS, and the feed has no certificate; name one in [restore] feed_tls, or let it replicate without TLS";
        return Err(refused(request, Bar::Role, what));
    }
    let is_empty = facts.keys == 0;
    let wanted = if is_empty { Some("on-empty-db") } else { keeps_old.then_some("swapdb") };
    let diskless = match (setting(&mut control, DISKLESS_LOAD).await, wanted) {
        (Some(present), Some(wanted)) if present != wanted => Some((present, wanted)),
        (Some(_), _) => None,
        (None, _) => {
            tracing::info!(target = %request.target.name, "the target's {DISKLESS_LOAD} may not be looked at, so it may write the dump to its disk before it loads it");
            None
        }
    };
    Ok(Ready { control, facts, secured, diskless })
}

fn refused(request: &Request, bar: Bar, what: impl std::fmt::Display) -> Error {
    Error::Refused { bar, what: format!("{} cannot be filled: {what}", request.target.name) }
}

/// A setting of a server; `None` where the account may not ask, or there is none of that name.
pub(super) async fn setting(control: &mut Connection, name: &str) -> Option<String> {
    let reply = control.command(&[b"CONFIG", b"GET", name.as_bytes()]).await.ok()?;
    match reply.elements() {
        [_, value] => value.text(),
        _ => None,
    }
}

async fn judge_role(request: &Request, control: &mut Connection, facts: &Facts) -> Result<(), Error> {
    if facts.engine == facts::Engine::Other {
        return Err(refused(request, Bar::Version, "it is neither Redis nor Valkey, so it does not load a dump as their replicas do"));
    }
    if facts.cluster_mode {
        let what = "it runs in cluster mode, where a server cannot be told to load a dump; restore by key instead, with the method KEYS";
        return Err(refused(request, Bar::Role, what));
    }
    if facts.role == Role::Replica {
        let primary = facts.primary.as_ref().map_or_else(String::new, |primary| format!(" of {primary}"));
        return Err(refused(request, Bar::Role, format!("it is a replica{primary}; restore into its primary, or take it out with REPLICAOF NO ONE")));
    }
    if facts.loading {
        return Err(redis::Error::NotReady { host: request.target.name.clone(), what: "it is loading its data".to_owned() }.into());
    }
    let watchers = control.command(&[b"PUBSUB", b"NUMSUB", b"__sentinel__:hello"]).await?;
    let is_watched = matches!(watchers.elements(), [_, Reply::Integer(count)] if *count > 0);
    if is_watched || request.rules.is_watched {
        let what =
            "Sentinel watches it and would fail it over while it loads; restore into another server, or take it from Sentinel with SENTINEL REMOVE first";
        return Err(refused(request, Bar::Role, what));
    }
    let replicas = facts.connected_replicas.max(facts.replicas.len() as u64);
    if replicas > 0 && !request.rules.allow_replicas {
        let what = format!("it has {replicas} replicas, which would load the dump as well; say so with --allow-replicas (allow_replicas) if that is meant");
        return Err(refused(request, Bar::Role, what));
    }
    Ok(())
}

async fn judge_version(request: &Request, control: &mut Connection, facts: &Facts) -> Result<(), Error> {
    let minimum = request.shard.walk.minimum.clone();
    let brand = if facts.engine == facts::Engine::Valkey { Brand::Valkey } else { Brand::Redis };
    let facts::Version(major, minor, patch) = facts.version;
    let engine = Engine { program: PathBuf::new(), brand, version: Version(major.into(), minor.into(), patch.into()) };
    let need = Need { minimum, engine: request.shard.engine.clone(), version: request.shard.engine_version.clone() };
    if !engine.fits(&need) {
        return Err(refused(request, Bar::Version, format!("it is {engine}, and the dump needs {}", engines::needed(&need))));
    }
    let Some(minimum) = &need.minimum else { return Ok(()) };
    if let Some(highest) = minimum.databases.checked_sub(1).filter(|highest| *highest > 0) {
        let answer = control.command(&[b"SELECT", highest.to_string().as_bytes()]).await?;
        if let Reply::Error(text) = &answer
            && text.to_ascii_lowercase().contains("out of range")
        {
            let what = format!("it has fewer databases than the {} that the dump needs; raise `databases` in its configuration", minimum.databases);
            return Err(refused(request, Bar::Version, what));
        }
        control.call(&[b"SELECT", b"0"]).await?;
    }
    if minimum.modules.is_empty() {
        return Ok(());
    }
    // Modules are listed by other names than those of their types, so none at all is what can be told for sure.
    let has_none = match control.command(&[b"MODULE", b"LIST"]).await? {
        Reply::Array(Some(modules)) => modules.is_empty() && facts.version < facts::Version(8, 0, 0),
        Reply::Array(None) => true,
        Reply::Error(_) | Reply::Simple(_) | Reply::Integer(_) | Reply::Bulk(_) => false,
    };
    if has_none {
        let what = format!("it has no module loaded, and the dump has values of {}; a server without them ends when it loads it", minimum.modules.join(", "));
        return Err(refused(request, Bar::Version, what));
    }
    Ok(())
}

async fn judge_content(request: &Request, control: &mut Connection, facts: &Facts, agreed: Option<u64>) -> Result<(), Error> {
    let keys = facts.keys;
    match agreed {
        None if keys > 0 => {
            let what = format!("it holds {keys} keys, which would go; say so with --overwrite {keys} (overwrite with overwrite_keys) if that is meant");
            return Err(refused(request, Bar::NotEmpty, what));
        }
        Some(most) if keys > most => {
            let what = format!("it holds {keys} keys, and at most {most} may go; look at it again, and say --overwrite {keys} if that is meant");
            return Err(refused(request, Bar::NotEmpty, what));
        }
        Some(_) => return Ok(()),
        None => {}
    }
    // A server without the command has no functions, and one that may not be asked is judged by its keys.
    if let Reply::Array(Some(libraries)) = control.command(&[b"FUNCTION", b"LIST"]).await?
        && !libraries.is_empty()
    {
        let what = format!("it holds {} libraries of functions, which would go; say so with --overwrite 0 (overwrite) if that is meant", libraries.len());
        return Err(refused(request, Bar::NotEmpty, what));
    }
    Ok(())
}

/// Whether there is room for the dump; tells whether there is room for what the target has beside it.
fn judge_memory(request: &Request, facts: &Facts) -> Result<bool, Error> {
    let needed = request.shard.used_memory_bytes;
    if facts.maxmemory_bytes > 0 && needed > facts.maxmemory_bytes {
        let what = format!("its maxmemory is {} bytes, and the source had {needed} bytes in use; raise maxmemory", facts.maxmemory_bytes);
        return Err(refused(request, Bar::Memory, what));
    }
    let memory = request.rules.memory_bytes.unwrap_or(facts.system_memory_bytes);
    if memory > 0 && needed > memory {
        return Err(refused(request, Bar::Memory, format!("it has {memory} bytes of memory, and the source had {needed} bytes in use")));
    }
    let both = needed.saturating_add(facts.used_memory_bytes);
    Ok(memory > 0 && both <= memory && (facts.maxmemory_bytes == 0 || both <= facts.maxmemory_bytes))
}
