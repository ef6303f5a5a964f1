//! The names of a cluster's shards: given once, and kept by the identifiers of their nodes.
//!
//! A shard keeps its name when another of its nodes becomes the primary, and no number is given twice.

use serde::{Deserialize, Serialize};

/// Most shards of one cluster that have a name.
pub const SHARDS: usize = 1024;

/// Most nodes that are remembered of one cluster. What was seen longest ago is forgotten first.
const NODES: usize = 1100;

/// The shards of a cluster by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardNames {
    shards: Vec<Named>,
    /// The highest number that was given.
    last: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    number: u32,
    /// Identifiers of its nodes, the primary's first, then those seen last.
    nodes: Vec<String>,
}

impl ShardNames {
    /// The name of the shard that a node belongs to.
    pub fn name_of(&self, node: &str) -> Option<String> {
        self.shards.iter().find(|shard| shard.nodes.iter().any(|id| id == node)).map(|shard| format!("shard{}", shard.number))
    }

    /// Gives each shard found its name: by its primary, else by any of its nodes, else a new one. `found` has the identifiers
    /// of each shard's nodes, the primary's first. Tells whether anything is new.
    pub fn learn(&mut self, found: &[Vec<String>]) -> bool {
        let before = self.clone();
        let found = &found[..found.len().min(SHARDS)];
        let mut given: Vec<Option<usize>> = vec![None; found.len()];
        // Who was the primary last has more right to a name than who once was of the shard.
        let rights: [fn(&Named, &[String]) -> bool; 3] = [
            |known, nodes| known.nodes.first() == nodes.first(),
            |known, nodes| nodes.first().is_some_and(|primary| known.nodes.contains(primary)),
            |known, nodes| nodes.iter().any(|node| known.nodes.contains(node)),
        ];
        for right in rights {
            for (index, nodes) in found.iter().enumerate() {
                if given[index].is_none() {
                    let free = |at: &usize| !given.contains(&Some(*at));
                    given[index] = (0..self.shards.len()).filter(free).find(|at| right(&self.shards[*at], nodes));
                }
            }
        }
        for (nodes, at) in found.iter().zip(given) {
            let number = match at {
                Some(at) => self.shards[at].number,
                None => {
                    self.last = self.last.saturating_add(1);
                    self.last
                }
            };
            // A node belongs to one shard: where it was seen last.
            for shard in &mut self.shards {
                if shard.number != number {
                    shard.nodes.retain(|id| !nodes.contains(id));
                }
            }
            match self.shards.iter_mut().find(|shard| shard.number == number) {
                Some(shard) => {
                    let older: Vec<String> = shard.nodes.drain(..).filter(|id| !nodes.contains(id)).collect();
                    shard.nodes = nodes.iter().cloned().chain(older).collect();
                }
                None => self.shards.push(Named { number, nodes: nodes.clone() }),
            }
        }
        self.shards.retain(|shard| !shard.nodes.is_empty());
        self.forget();
        *self != before
    }

    /// Keeps within the bounds.
    fn forget(&mut self) {
        while self.shards.len() > SHARDS {
            self.shards.remove(0);
        }
        let mut count: usize = self.shards.iter().map(|shard| shard.nodes.len()).sum();
        while count > NODES {
            let Some(largest) = self.shards.iter_mut().max_by_key(|shard| shard.nodes.len()) else { return };
            largest.nodes.pop();
            count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(names: &mut ShardNames, found: &[&str]) -> Vec<String> {
        let found: Vec<Vec<String>> = found.iter().map(|nodes| nodes.chars().map(String::from).collect()).collect();
        names.learn(&found);
        found.iter().map(|nodes| names.name_of(&nodes[0]).unwrap_or_default()).collect()
    }

    #[test]
    fn names_stay_with_the_nodes() {
        let mut names = ShardNames::default();
        assert_eq!(learn(&mut names, &["ax", "by", "cz"]), ["shard1", "shard2", "shard3"]);
        assert!(!names.learn(&[vec!["a".to_owned(), "x".to_owned()]]));
        // In another order, after a failover, and with the old primary gone.
        assert_eq!(learn(&mut names, &["cz", "yb", "x"]), ["shard3", "shard2", "shard1"]);
        assert_eq!(names.name_of("a").as_deref(), Some("shard1"));
        // A new shard, and one that went and came back.
        assert_eq!(learn(&mut names, &["x", "d"]), ["shard1", "shard4"]);
        assert_eq!(learn(&mut names, &["c", "d", "e"]), ["shard3", "shard4", "shard5"]);
    }

    #[test]
    fn a_replica_that_changed_its_shard_takes_no_name_along() {
        let mut names = ShardNames::default();
        learn(&mut names, &["ax", "by"]);
        assert_eq!(learn(&mut names, &["a", "bxy"]), ["shard1", "shard2"]);
        assert_eq!(learn(&mut names, &["a", "xy"]), ["shard1", "shard2"]);
        // One that became a primary of its own beside the shard's.
        assert_eq!(learn(&mut names, &["a", "x", "y"]), ["shard1", "shard2", "shard3"]);
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut names = ShardNames::default();
        for round in 0..50 {
            let found: Vec<Vec<String>> = (0..100).map(|shard| vec![format!("{shard}"), format!("{shard}-{round}")]).collect();
            names.learn(&found);
        }
        assert_eq!(names.shards.iter().map(|shard| shard.nodes.len()).sum::<usize>(), NODES);
        assert_eq!((names.name_of("7").as_deref(), names.last), (Some("shard8"), 100));
    }
}
