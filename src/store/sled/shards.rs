//! The names of shards: one row a cluster.

use super::judge::Judge;
use super::keys;
use super::rows::Rows;
use crate::cluster::{ClusterId, ShardNames};
use crate::store::Error;

pub(super) fn names(rows: &Rows, cluster: &ClusterId) -> Result<ShardNames, Error> {
    Ok(rows.read(&keys::shards(cluster))?.unwrap_or_default())
}

impl Judge {
    /// Gives the shards of a cluster their names.
    pub(super) fn name_shards(&mut self, cluster: &ClusterId, found: &[Vec<String>]) -> Result<ShardNames, Error> {
        let mut known = names(&self.rows, cluster)?;
        if known.learn(found) {
            self.rows.write(keys::shards(cluster), &known)?;
        }
        Ok(known)
    }
}
