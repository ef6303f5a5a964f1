//! Is the source still what it was? A backup of one that turned empty, or of another behind the old address, is kept and flagged.
//!
//! What a source was at its last good backup is in the store: run id, history, number of keys, and the smallest keyed hashes of
//! its keys, which show how many of them are there again without naming one.

use super::attempt::{Context, End};
use super::backup::internal;
use crate::artifacts::manifest::ShardManifest;
use crate::backup::{SlotRange, Suspicion};
use crate::store::{Baseline, Lineage, SKETCH_KEY_BYTES, SketchKey};
use crate::telemetry::metrics::SUSPICIONS;
use aws_lc_rs::{digest, rand};
use chrono::Utc;
use std::collections::{BTreeMap, BTreeSet};

/// Fewest hashes of the baseline that tell anything, where not all of both sides are known.
const COMPARABLE: usize = 8;

/// Most reasons of one suspicion; what goes beyond is told as a number.
const REASONS: usize = 16;

/// The key under which names of keys are hashed for this cluster.
pub(super) async fn key(context: &Context) -> Result<SketchKey, End> {
    let mut fresh = [0; SKETCH_KEY_BYTES];
    rand::fill(&mut fresh).map_err(|_| internal("the machine gave no random bytes"))?;
    Ok(context.inner.store.sketch_key(&context.operation.cluster_id, SketchKey(fresh)).await?)
}

/// Records what the source was, and tells what speaks against it. To be asked once all shards are taken.
pub(super) async fn examine(context: &Context, shards: &[ShardManifest]) -> Result<Option<Suspicion>, End> {
    let (store, operation) = (&context.inner.store, &context.operation);
    let now: Vec<Lineage> = shards.iter().map(lineage).collect();
    store.record_lineage(context.id(), context.epoch(), now.clone()).await?;
    let Some(baseline) = store.baseline(&operation.folder_id, &operation.cluster_id).await? else { return Ok(None) };
    let (is_known, reasons) = judge(&baseline, &now);
    if !is_known {
        tracing::info!(operation.id = %context.id(), cluster.id = %operation.cluster_id, "the source has another run id and history than at the backup before");
    }
    if reasons.is_empty() {
        return Ok(None);
    }
    tracing::warn!(operation.id = %context.id(), cluster.id = %operation.cluster_id, reasons = reasons.join("; "), "the source looks wrong; the backup is SUSPECT");
    context.inner.count(&SUSPICIONS, &[]);
    Ok(Some(Suspicion { reasons, raised_at: Utc::now(), cleared: None }))
}

/// What the source of a shard was.
pub(super) fn lineage(shard: &ShardManifest) -> Lineage {
    let walk = &shard.walk;
    let is_whole = walk.opaque.is_none();
    let short = |text: &str| if text.len() <= Lineage::TEXT_BYTES { text.to_owned() } else { String::new() };
    Lineage {
        shard: short(&shard.name),
        run_id: short(&shard.run_id),
        replication_id: short(&shard.replication_id),
        replication_id2: short(&shard.replication_id2),
        // A walk that was not followed to the end knows fewer than there are.
        keys: if is_whole { walk.databases.iter().map(|database| database.keys).sum() } else { shard.source_keys },
        slots: slots(&shard.slots),
        sketch: if is_whole { walk.sketch.clone() } else { Vec::new() },
    }
}

/// A number that stands for these slots; 0 for none.
fn slots(ranges: &[SlotRange]) -> u64 {
    if ranges.is_empty() {
        return 0;
    }
    let bytes: Vec<u8> = ranges.iter().flat_map(|range| [range.first.to_le_bytes(), range.last.to_le_bytes()].concat()).collect();
    let digest = digest::digest(&digest::SHA256, &bytes);
    digest.as_ref().first_chunk::<8>().map_or(1, |bytes| u64::from_le_bytes(*bytes)).max(1)
}

/// Whether the lineage is known, and what speaks against the source.
///
/// Shards are held against one another where their slots are the same, and the sums in any case: so a shard that gave its slots
/// away is no loss, and one that lost its keys is.
fn judge(baseline: &Baseline, now: &[Lineage]) -> (bool, Vec<String>) {
    let was = format!("in backup {}", baseline.name);
    let mut reasons = Vec::new();
    let total = |shards: &[Lineage]| shards.iter().fold(0_u64, |sum, shard| sum.saturating_add(shard.keys));
    reasons.extend(lost("the source", total(&baseline.shards), total(now), &was));

    let ids: BTreeSet<&str> = baseline.shards.iter().flat_map(identities).collect();
    let unknown: Vec<&Lineage> = now.iter().filter(|shard| !identities(shard).any(|id| ids.contains(id))).collect();
    let is_known = unknown.is_empty();
    if !is_known {
        reasons.extend(foreign("the source", &Sketch::of(&baseline.shards), &Sketch::of(now), &was));
    }
    // With one shard that was all of it.
    if now.len() > 1 {
        let before: BTreeMap<&str, &Lineage> = baseline.shards.iter().map(|shard| (shard.shard.as_str(), shard)).collect();
        for shard in now {
            let Some(same) = before.get(shard.shard.as_str()).filter(|same| same.slots == shard.slots && same.slots != 0) else { continue };
            reasons.extend(lost(&shard.shard, same.keys, shard.keys, &was));
            if unknown.iter().any(|other| other.shard == shard.shard) {
                let (then, now) = (Sketch::of(std::slice::from_ref(*same)), Sketch::of(std::slice::from_ref(shard)));
                reasons.extend(foreign(&shard.shard, &then, &now, &was));
            }
        }
    }
    if reasons.len() > REASONS {
        let more = reasons.len() - REASONS;
        reasons.truncate(REASONS);
        reasons.push(format!("and {more} more"));
    }
    (is_known, reasons)
}

/// What tells that it is the same server, or one with the same history.
fn identities(shard: &Lineage) -> impl Iterator<Item = &str> {
    // A history that there is none of is told as zeros.
    let tells = |id: &&str| id.bytes().any(|byte| byte != b'0');
    [shard.run_id.as_str(), shard.replication_id.as_str(), shard.replication_id2.as_str()].into_iter().filter(tells)
}

fn lost(what: &str, before: u64, now: u64, was: &str) -> Option<String> {
    match (before, now) {
        (0, _) => None,
        (_, 0) => Some(format!("{what} is empty; {was} it had {before} keys")),
        _ if now < before.div_ceil(2) => Some(format!("{what} has {now} keys; {was} it had {before}, more than twice as many")),
        _ => None,
    }
}

fn foreign(what: &str, before: &Sketch, now: &Sketch, was: &str) -> Option<String> {
    let (recur, of) = before.recurring(now)?;
    (recur * 2 < of).then(|| format!("{what} has another run id and another history than {was}, and of {of} keys looked at only {recur} are there again"))
}

/// The smallest hashes of a set of keys.
struct Sketch {
    hashes: Vec<u64>,
    /// Up to where it holds every hash of the set; `None` when it holds them all.
    until: Option<u64>,
    /// Whether a shard that has keys has no hashes, so that nothing can be told.
    is_blind: bool,
}

impl Sketch {
    /// Of all keys of these shards.
    fn of(shards: &[Lineage]) -> Self {
        let all: BTreeSet<u64> = shards.iter().flat_map(|shard| shard.sketch.iter().copied()).collect();
        let full = shards.iter().filter(|shard| shard.sketch.len() >= Lineage::SKETCH);
        let until = full.filter_map(|shard| shard.sketch.last().copied()).min();
        let is_blind = shards.iter().any(|shard| shard.keys > 0 && shard.sketch.is_empty());
        let hashes = all.into_iter().filter(|hash| until.is_none_or(|until| *hash <= until)).collect();
        Self { hashes, until, is_blind }
    }

    /// How many of the hashes that both sides would hold recur, and of how many; `None` when that tells nothing.
    fn recurring(&self, now: &Self) -> Option<(usize, usize)> {
        // That it is empty is told by the numbers.
        if self.is_blind || now.is_blind || now.hashes.is_empty() {
            return None;
        }
        let until = [self.until, now.until].into_iter().flatten().min();
        let mine: Vec<&u64> = self.hashes.iter().filter(|hash| until.is_none_or(|until| **hash <= until)).collect();
        let least = if until.is_some() { COMPARABLE } else { 1 };
        if mine.len() < least {
            return None;
        }
        Some((mine.iter().filter(|hash| now.hashes.binary_search(hash).is_ok()).count(), mine.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::BackupId;

    const OLD: &str = "aaaa";
    const NEW: &str = "bbbb";

    /// The smallest hashes of the keys of a range; spread as a hash would.
    fn sketch(keys: std::ops::Range<u64>) -> Vec<u64> {
        let mut all: Vec<u64> = keys.map(|key| (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(0xBF58_476D_1CE4_E5B9)).collect();
        all.sort_unstable();
        all.truncate(Lineage::SKETCH);
        all
    }

    fn shard(name: &str, id: &str, keys: std::ops::Range<u64>) -> Lineage {
        Lineage {
            shard: name.into(),
            run_id: format!("run-{id}"),
            replication_id: format!("history-{id}"),
            replication_id2: "0".repeat(40),
            keys: keys.end - keys.start,
            slots: 0,
            sketch: sketch(keys),
        }
    }

    fn baseline(shards: Vec<Lineage>) -> Baseline {
        Baseline { backup_id: BackupId::new(), name: "before".parse().unwrap(), started_at: None, shards }
    }

    fn one(before: Lineage, now: Lineage) -> (bool, Vec<String>) {
        judge(&baseline(vec![before]), &[now])
    }

    #[test]
    fn a_source_that_lost_its_keys_is_suspect_whoever_it_is() {
        for id in [OLD, NEW] {
            let (_, reasons) = one(shard("shard1", OLD, 0..100), shard("shard1", id, 0..0));
            assert_eq!(reasons[0], "the source is empty; in backup before it had 100 keys");
        }
        assert_eq!(one(shard("shard1", OLD, 0..100), shard("shard1", OLD, 0..50)), (true, vec![]));
        let (_, reasons) = one(shard("shard1", OLD, 0..101), shard("shard1", OLD, 0..50));
        assert_eq!(reasons, ["the source has 50 keys; in backup before it had 101, more than twice as many"]);
        assert_eq!(one(shard("shard1", OLD, 0..0), shard("shard1", OLD, 0..0)), (true, vec![]));
    }

    #[test]
    fn one_id_that_both_have_makes_a_lineage_known() {
        let before = shard("shard1", OLD, 0..100);
        let other = shard("shard1", NEW, 500..600);
        let known = [
            Lineage { run_id: before.run_id.clone(), ..other.clone() },
            Lineage { replication_id: before.replication_id.clone(), ..other.clone() },
            // After a failover the history before is the one that was.
            Lineage { replication_id2: before.replication_id.clone(), ..other.clone() },
        ];
        for now in known {
            assert_eq!(one(before.clone(), now), (true, vec![]));
        }
        let (is_known, reasons) = one(before, other);
        assert_eq!((is_known, reasons.len()), (false, 1), "{reasons:?}");
        assert!(reasons[0].contains("of 100 keys looked at only 0 are there again"), "{reasons:?}");
    }

    #[test]
    fn an_unknown_lineage_with_the_same_keys_is_only_recorded() {
        for (now, is_suspect) in [(0..100_000, false), (40_000..140_000, false), (60_000..160_000, true), (0..1_000_000, false), (0..60_000, false)] {
            let (is_known, reasons) = one(shard("shard1", OLD, 0..100_000), shard("shard1", NEW, now.clone()));
            assert_eq!((is_known, !reasons.is_empty()), (false, is_suspect), "{now:?} {reasons:?}");
        }
    }

    #[test]
    fn sizes_that_differ_are_compared_where_both_know_all() {
        // Small against large: of the few hashes below the bound too few are left to tell.
        assert_eq!(one(shard("shard1", OLD, 0..20), shard("shard1", NEW, 1_000..1_000_000)).1, [""; 0]);
        // Small against small: all is known, so one key can tell.
        assert_eq!(one(shard("shard1", OLD, 0..1), shard("shard1", NEW, 5..900)).1.len(), 1);
        // Large against what holds all of it and much more.
        assert_eq!(one(shard("shard1", OLD, 0..5_000), shard("shard1", NEW, 0..900_000)).1, [""; 0]);
        assert_eq!(one(shard("shard1", OLD, 0..5_000), shard("shard1", NEW, 5_000..30_000)).1.len(), 1);
        // Nothing is known of the names.
        let blind = Lineage { sketch: Vec::new(), ..shard("shard1", NEW, 500..600) };
        assert_eq!(one(shard("shard1", OLD, 0..100), blind), (false, vec![]));
    }

    #[test]
    fn a_resharding_raises_nothing() {
        let with = |slots, shard: Lineage| Lineage { slots, ..shard };
        let before = baseline(vec![with(1, shard("shard1", "a", 0..3_000)), with(2, shard("shard2", "b", 3_000..6_000))]);
        // All of the first shard's slots and keys went to a third, which is new.
        let now = [with(2, shard("shard2", "b", 3_000..6_000)), with(1, shard("shard3", "c", 0..3_000))];
        assert_eq!(judge(&before, &now), (false, vec![]));
        // Emptied, with its slots gone.
        let now = [with(0, shard("shard1", "a", 0..0)), with(3, shard("shard2", "b", 0..6_000))];
        assert_eq!(judge(&before, &now), (true, vec![]));
    }

    #[test]
    fn one_shard_that_restarted_empty_is_seen() {
        let with = |slots, shard: Lineage| Lineage { slots, ..shard };
        let shards = |third: Lineage| vec![with(1, shard("shard1", "a", 0..500)), with(2, shard("shard2", "b", 500..1_000)), with(3, third)];
        let before = baseline(shards(shard("shard3", "c", 1_000..1_500)));
        let (is_known, reasons) = judge(&before, &shards(shard("shard3", "d", 0..0)));
        assert!(!is_known);
        assert!(reasons.iter().any(|reason| reason == "shard3 is empty; in backup before it had 500 keys"), "{reasons:?}");
        let (_, reasons) = judge(&before, &shards(shard("shard3", "d", 9_000..9_500)));
        assert!(matches!(reasons.as_slice(), [only] if only.starts_with("shard3 has another run id")), "{reasons:?}");
        assert_eq!(judge(&before, &shards(shard("shard3", "d", 1_000..1_500))), (false, vec![]));
    }

    #[test]
    fn reasons_are_bounded() {
        let many =
            |keys: u64| -> Vec<Lineage> { (0..100).map(|index| Lineage { slots: index + 1, ..shard(&format!("shard{index}"), "a", 0..keys) }).collect() };
        let (_, reasons) = judge(&baseline(many(10)), &many(0));
        assert_eq!((reasons.len(), reasons.last().map(String::as_str)), (REASONS + 1, Some("and 85 more")));
    }

    #[test]
    fn slots_are_told_apart() {
        let range = |first, last| SlotRange { first, last };
        assert_eq!(slots(&[]), 0);
        assert_eq!(slots(&[range(0, 5)]), slots(&[range(0, 5)]));
        assert_ne!(slots(&[range(0, 5)]), slots(&[range(0, 6)]));
    }
}
