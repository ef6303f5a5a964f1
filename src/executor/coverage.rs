//! Whether the snapshots of all shards together hold every slot once: nothing may have moved between them.

use super::attempt::{Context, End};
use super::fault;
use super::shards::Chosen;
use crate::artifacts::manifest::ShardManifest;
use crate::backup::SlotRange;
use crate::failure::{Failure, Reason};
use crate::fleet::{Definition, Slots};
use crate::operation::Fault;
use crate::redis::cluster::{MOVES, moved, named};
use std::collections::{BTreeMap, BTreeSet};

/// What was known of the slots before the first snapshot, by the name of the shard.
pub(super) struct Before(BTreeMap<String, Known>);

struct Known {
    slots: Vec<SlotRange>,
    moves: Vec<String>,
}

impl Before {
    /// What the sources were chosen by.
    pub(super) fn of(shards: &[Chosen]) -> Self {
        Self(shards.iter().map(|shard| (shard.name.clone(), Known { slots: shard.slots.clone(), moves: shard.moves.clone() })).collect())
    }

    fn is_clustered(&self) -> bool {
        self.0.values().any(|known| !known.slots.is_empty())
    }
}

/// Looks at the slots again after the last snapshot, and notes on the shards what was on its way.
///
/// A slot that changed its shard meanwhile may be in both of their snapshots or in none, so another attempt follows. When
/// slots have moved during that one too, the cluster is one whose slots always move: the backup is kept, and says which.
/// A failover within a shard changes nothing: its slots stay where they are.
pub(super) async fn look_again(context: &Context, cluster: &Definition, before: &Before, shards: &mut [ShardManifest]) -> Result<(), End> {
    if !before.is_clustered() {
        return Ok(());
    }
    context.wait_for("the servers to answer");
    let after = context.inner.fleet.slots(cluster).await.map_err(|error| fault::check(&context.operation, error))?;
    context.wait_for("");
    let after = after.ok_or_else(|| again(context, "nobody could be asked for the slots after the snapshots".to_owned()))?;
    if let Some(fault) = &after.fault {
        return Err(again(context, format!("after the snapshots {fault}")));
    }
    let changes = changes(before, &after);
    if !changes.is_empty() {
        let words: Vec<String> = changes.iter().map(|(name, slots)| format!("{} of {name}", named(slots))).collect();
        let message = format!("slots moved during the snapshots: {}", words.join("; "));
        let is_second = context.operation.last_failure.as_ref().is_some_and(|failure| failure.reason == Reason::SourceTopology);
        if !is_second {
            return Err(again(context, message));
        }
        tracing::warn!(operation.id = %context.id(), "{message}; it was so before, and the backup is kept");
    }
    for shard in shards {
        let mut words: BTreeSet<String> = before.0.get(&shard.name).map(|known| known.moves.iter().cloned().collect()).unwrap_or_default();
        words.extend(changes.get(&shard.name).map(|slots| format!("{} moved during the snapshots", named(slots))));
        shard.moves = words.into_iter().take(MOVES).collect();
    }
    Ok(())
}

/// The slots that came to a shard or left it, by the name of the shard.
fn changes(before: &Before, after: &Slots) -> BTreeMap<String, Vec<SlotRange>> {
    let names: BTreeSet<&String> = before.0.keys().chain(after.owned.keys()).collect();
    let change = |name: &String| {
        let (before, after) = (before.0.get(name).map_or(&[][..], |known| known.slots.as_slice()), after.owned.get(name).map_or(&[][..], Vec::as_slice));
        moved(before, after)
    };
    names.into_iter().map(|name| (name.clone(), change(name))).filter(|(_, slots)| !slots.is_empty()).collect()
}

fn again(context: &Context, message: String) -> End {
    End::Retry { fault: Fault::Forked, failure: Failure::new(Reason::SourceTopology, message), wait: fault::backoff(&context.operation) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_its_shard_counts() {
        let range = |first, last| vec![SlotRange { first, last }];
        let known = |slots| Known { slots, moves: Vec::new() };
        let before = Before([("shard1".to_owned(), known(range(0, 99))), ("shard2".to_owned(), known(range(100, 16_383)))].into());
        let after = |first, second| Slots { owned: [("shard1".to_owned(), first), ("shard2".to_owned(), second)].into(), moves: Vec::new(), fault: None };
        assert_eq!(changes(&before, &after(range(0, 99), range(100, 16_383))), BTreeMap::new());
        let changed = changes(&before, &after(range(0, 98), range(99, 16_383)));
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), [("shard1".to_owned(), range(99, 99)), ("shard2".to_owned(), range(99, 99))]);
    }
}
