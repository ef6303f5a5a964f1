//! Letting go of a target: at the good end, and after a failure, when its state has to be told.

use super::follows;
use crate::cluster::Role;
use crate::operation::Left;
use crate::redis::connection::{Connection, Reply};
use crate::redis::facts::Facts;
use crate::redis::{Error, Target};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a target that does not answer is waited for: it may have ended.
const SILENCE: Duration = Duration::from_secs(5);

/// How often a target that cannot be freed yet is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// Makes a target that has loaded the dump a primary, and sets back how it receives dumps. One that is a primary already stays
/// as it is, and one that somebody else has taken meanwhile is left alone.
///
/// # Errors
///
/// What the connection or the target says; it has the dump, and may still follow the feed. [`Error::Taken`] for one that was
/// taken.
pub async fn finish(target: &Target, left: &Left) -> Result<(), super::Error> {
    match free(target, left).await? {
        Freed::Done { .. } => Ok(()),
        Freed::Elsewhere(_) => Err(super::Error::Taken(format!("{} was made a replica of another by somebody else", target.name))),
        Freed::NotYet => Err(Error::NotReady { host: target.name.clone(), what: "it is loading".to_owned() }.into()),
    }
}

/// Sets back how the target receives dumps. Best effort: it answered that it takes the command before.
async fn set_back(control: &mut Connection, left: &Left) {
    let Some(before) = &left.diskless_load else { return };
    if let Ok(Reply::Error(text)) = control.command(&[b"CONFIG", b"SET", b"repl-diskless-load", before.as_bytes()]).await {
        tracing::warn!(target = control.host(), "repl-diskless-load could not be set back to {before}: {text}");
    }
}

/// Frees a target that was told to follow a feed, unless somebody else has taken it, and tells in words in which state it is.
/// Gives up after `limit`. Keeps in `left` how many keys it was left with.
pub async fn release(target: &Target, left: &mut Left, limit: Duration) -> String {
    let until = Instant::now() + limit;
    let mut heard = Instant::now();
    let (host, port) = (&left.feed_host, left.feed_port);
    let mut state = format!("the target does not answer; if it comes back as a replica of {host}:{port}, where nobody is, REPLICAOF NO ONE frees it");
    loop {
        match timeout_at(until, free(target, left)).await {
            Ok(Ok(Freed::Done { facts, was_ours })) => {
                if was_ours {
                    // Nobody else could write to it, so what it holds came from us or was there before.
                    left.keys = left.keys.max(facts.keys);
                }
                let what = if facts.keys == 0 { "the target is empty".to_owned() } else { format!("the target holds {} keys", facts.keys) };
                return format!("{what}, and follows nobody");
            }
            Ok(Ok(Freed::Elsewhere(facts))) => {
                let primary = facts.primary.as_ref().map_or_else(|| "another".to_owned(), ToString::to_string);
                return format!("the target follows {primary} and was left alone");
            }
            Ok(Ok(Freed::NotYet)) => {
                heard = Instant::now();
                state = "the target is still loading what it was sent; when it is done, REPLICAOF NO ONE makes it a primary".to_owned();
            }
            Ok(Err(fault)) if fault.is_passing() => {}
            Ok(Err(fault)) => return format!("the target could not be freed ({fault}); REPLICAOF NO ONE frees it from {host}:{port}"),
            Err(_) => return state,
        }
        if Instant::now() + AGAIN >= until || heard.elapsed() > SILENCE {
            return state;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

enum Freed {
    Done {
        facts: Box<Facts>,
        /// Whether it followed the feed until now.
        was_ours: bool,
    },
    Elsewhere(Box<Facts>),
    NotYet,
}

async fn free(target: &Target, left: &Left) -> Result<Freed, Error> {
    let mut control = Connection::open(target).await?;
    let facts = Facts::ask(&mut control).await?;
    let is_ours = facts.role == Role::Replica && follows(&facts, left);
    if facts.role == Role::Replica && !is_ours {
        set_back(&mut control, left).await;
        return Ok(Freed::Elsewhere(Box::new(facts)));
    }
    if facts.loading {
        return Ok(Freed::NotYet);
    }
    if is_ours {
        match control.call(&[b"REPLICAOF", b"NO", b"ONE"]).await {
            Err(Error::NotReady { .. }) => return Ok(Freed::NotYet),
            answer => drop(answer?),
        }
    }
    set_back(&mut control, left).await;
    Ok(Freed::Done { facts: Box::new(Facts::ask(&mut control).await?), was_ours: is_ours })
}
