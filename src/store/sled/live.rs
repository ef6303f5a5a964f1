//! Which operation falls due next: an index in memory of those that have not ended.
//!
//! Built at open and kept by the writer, so that a claim does not scan the disk. Readers take hints from it.

use crate::cluster::Timestamp;
use crate::operation::{Operation, OperationId, State};
use crate::store::Zones;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is known of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    due_at: Timestamp,
    zone: Option<String>,
    queued: bool,
}

impl Entry {
    /// The entry of an operation; none when it has ended.
    pub(super) fn of(operation: &Operation) -> Option<Self> {
        let queued = match &operation.state {
            State::Queued { .. } => true,
            State::Running { .. } | State::Cancelling { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => false,
        };
        operation.due_at().map(|due_at| Self { due_at, zone: operation.zone.clone(), queued })
    }
}

/// All operations that have not ended.
#[derive(Debug, Default)]
pub(super) struct Live {
    entries: HashMap<OperationId, Entry>,
    by_zone: BTreeMap<Option<String>, BTreeSet<(Timestamp, OperationId)>>,
    queued: usize,
}

impl Live {
    /// Sets the entry of an operation, or removes it, and gives the one before.
    pub(super) fn set(&mut self, id: OperationId, entry: Option<Entry>) -> Option<Entry> {
        let before = self.entries.remove(&id);
        if let Some(before) = &before {
            self.queued -= usize::from(before.queued);
            if let Some(due) = self.by_zone.get_mut(&before.zone) {
                due.remove(&(before.due_at, id));
                if due.is_empty() {
                    self.by_zone.remove(&before.zone);
                }
            }
        }
        if let Some(entry) = entry {
            self.queued += usize::from(entry.queued);
            self.by_zone.entry(entry.zone.clone()).or_default().insert((entry.due_at, id));
            self.entries.insert(id, entry);
        }
        before
    }

    /// How many operations wait for a worker.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// The operation of these zones that falls due first, with the time.
    pub(super) fn first(&self, zones: &Zones) -> Option<(Timestamp, OperationId)> {
        self.by_zone.iter().filter(|(zone, _)| zones.serve(zone.as_deref())).filter_map(|(_, due)| due.first().copied()).min()
    }
}
