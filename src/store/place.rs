//! Places of a failure domain: how many snapshots may be taken there at once, over all processes.

use super::Error;
use crate::operation::OperationId;

/// A place of a failure domain for the snapshot of one shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The failure domain: the machine, by name or address.
    pub domain: String,
    /// The shard.
    pub shard: String,
}

impl Place {
    /// Longest name of a domain or of a shard, in bytes.
    pub const NAME_BYTES: usize = 512;

    /// Most places of one operation.
    pub const OF_OPERATION: usize = 1024;

    /// Most places and turns of one domain that are looked at.
    pub const OF_DOMAIN: usize = 10_000;

    /// Whether its names can be kept.
    pub(super) fn check(&self) -> Result<(), Error> {
        let fits = |name: &str| (1..=Self::NAME_BYTES).contains(&name.len()) && !name.contains('\0');
        if fits(&self.domain) && fits(&self.shard) {
            Ok(())
        } else {
            Err(Error::Invalid(format!("a place is named by 1 to {} bytes without a zero byte", Self::NAME_BYTES)))
        }
    }
}

/// What [`Store::take_place`](super::Store::take_place) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The place is the attempt's.
    Granted,
    /// The attempt waits; this operation comes before it, and may be its own with another shard.
    After(OperationId),
}
