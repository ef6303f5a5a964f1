//! Places of failure domains: who has one, who waits, and when they are let go.
//!
//! A row tells the attempt that has a place or waits for it, so a later attempt does not inherit it. An attempt whose lease has
//! lapsed is looked past and its row removed when another asks; everything else that ends an attempt removes its rows itself.

use super::judge::{Judge, refused};
use super::keys::{self, Key, Kind};
use super::rows::damaged;
use crate::operation::{Epoch, Operation, OperationId, State};
use crate::store::{Error, Place, Turn};
use serde::{Deserialize, Serialize};

/// Who has a place, or waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// The attempt.
    pub epoch: Epoch,
    /// Whether it has the place; else it waits for its turn.
    pub is_taken: bool,
}

/// A row of a domain: its key, and whose it is.
struct Entry {
    key: Key,
    id: OperationId,
    shard: String,
    held: Held,
}

impl Judge {
    pub(super) fn take_place(&mut self, id: OperationId, epoch: Epoch, place: &Place, limit: usize) -> Result<Turn, Error> {
        place.check()?;
        let operation = self.rows.operation(id)?.ok_or(Error::NoOperation)?;
        operation.goes_on(epoch).map_err(refused)?;
        if !operation.spec.forks() {
            return Err(Error::Invalid("only what forks a source takes a place of its machine".to_owned()));
        }
        let own = keys::place(&place.domain, id, &place.shard);
        let before = self.rows.read::<Held>(&own)?.filter(|held| held.epoch == epoch);
        if before.is_some_and(|held| held.is_taken) {
            return Ok(Turn::Granted);
        }
        if self.rows.scan(keys::places_of(id), Place::OF_OPERATION)?.len() >= Place::OF_OPERATION {
            return Err(Error::Invalid(format!("an operation has at most {} places", Place::OF_OPERATION)));
        }
        // Whoever has a place is before us, and whoever waits with an earlier turn.
        let mut ahead = Vec::new();
        for Entry { key, id: other, shard, held } in self.held_in(&place.domain)? {
            if key == own {
                continue;
            }
            if !self.stands(other, held.epoch)? {
                self.rows.remove(key);
                self.rows.remove(keys::place_of(other, &place.domain, &shard));
            } else if held.is_taken || (other, &shard) < (id, &place.shard) {
                ahead.push(other);
            }
        }
        let turn = match ahead.first() {
            Some(first) if ahead.len() >= limit.max(1) => Turn::After(*first),
            Some(_) | None => Turn::Granted,
        };
        let held = Held { epoch, is_taken: turn == Turn::Granted };
        if before != Some(held) {
            self.rows.write(own, &held)?;
            self.rows.mark(keys::place_of(id, &place.domain, &place.shard))?;
        }
        Ok(turn)
    }

    /// The places and turns of a domain, in order of turn.
    fn held_in(&self, domain: &str) -> Result<Vec<Entry>, Error> {
        let mut all = Vec::new();
        for (key, _) in self.rows.scan(keys::places(domain), Place::OF_DOMAIN)? {
            let (id, shard) = keys::place_in(domain, &key).ok_or_else(|| damaged(Kind::Place, "its key is no place"))?;
            let held = self.rows.read::<Held>(&key)?.ok_or_else(|| damaged(Kind::Place, "it went while it was read"))?;
            all.push(Entry { key, id, shard, held });
        }
        Ok(all)
    }

    /// Whether an attempt is under way and its lease holds.
    fn stands(&self, id: OperationId, epoch: Epoch) -> Result<bool, Error> {
        Ok(self.rows.operation(id)?.is_some_and(|operation| operation.is_leased(epoch, self.now())))
    }

    pub(super) fn free_place(&mut self, id: OperationId, epoch: Epoch, place: &Place) -> Result<(), Error> {
        place.check()?;
        let key = keys::place(&place.domain, id, &place.shard);
        if self.rows.read::<Held>(&key)?.is_some_and(|held| held.epoch == epoch) {
            self.rows.remove(key);
            self.rows.remove(keys::place_of(id, &place.domain, &place.shard));
        }
        Ok(())
    }

    /// Frees the places of every attempt of an operation that is over.
    pub(super) fn free_places(&mut self, operation: &Operation) -> Result<(), Error> {
        let is_held = match &operation.state {
            State::Running { .. } | State::Cancelling { .. } => true,
            State::Queued { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => false,
        };
        for (mark, _) in self.rows.scan(keys::places_of(operation.id), Place::OF_OPERATION)? {
            let (id, domain, shard) = keys::read_place_of(&mark).ok_or_else(|| damaged(Kind::PlaceOf, "its key is no place"))?;
            let key = keys::place(&domain, id, &shard);
            let stays = is_held && self.rows.read::<Held>(&key)?.is_some_and(|held| held.epoch == operation.epoch);
            if !stays {
                self.rows.remove(key);
                self.rows.remove(mark);
            }
        }
        Ok(())
    }
}
