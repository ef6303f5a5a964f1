//! Which operation falls due next: an index in memory of those that have not ended, and how many there are of each kind.
//!
//! Built at open and kept by the writer, so that a claim does not scan the disk. Readers take hints from it.

use crate::cluster::Timestamp;
use crate::failure::Reason;
use crate::operation::{Operation, OperationId, State};
use crate::store::{Census, Zones};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    due_at: Timestamp,
    zone: Option<String>,
    created_at: Timestamp,
    kind: &'static str,
    state: &'static str,
    queued: bool,
}

impl Entry {
    /// The entry of an operation; none when it has ended.
    pub(super) fn of(operation: &Operation) -> Option<Self> {
        let queued = match &operation.state {
            State::Queued { .. } => true,
            State::Running { .. } | State::Cancelling { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => false,
        };
        let (kind, state) = (operation.spec.kind(), operation.state.as_str());
        operation.due_at().map(|due_at| Self { due_at, zone: operation.zone.clone(), created_at: operation.created_at, kind, state, queued })
    }
}

/// The end of one operation, to be counted once the command that ended it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    kind: &'static str,
    outcome: &'static str,
    reason: Option<Reason>,
}

impl Ended {
    /// The end of an operation in a terminal state.
    pub(super) fn of(operation: &Operation) -> Self {
        let reason = match &operation.state {
            State::Failed(failure) => Some(failure.reason),
            State::Queued { .. } | State::Running { .. } | State::Cancelling { .. } | State::Succeeded(_) | State::Cancelled => None,
        };
        Self { kind: operation.spec.kind(), outcome: operation.state.as_str(), reason }
    }
}

/// All operations that have not ended.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// In order of id, which is the order of creation.
    entries: BTreeMap<OperationId, Entry>,
    by_zone: BTreeMap<Option<String>, BTreeSet<(Timestamp, OperationId)>>,
    queued: usize,
    open: BTreeMap<(&'static str, &'static str), u64>,
    ended: BTreeMap<(&'static str, &'static str), u64>,
    failures: BTreeMap<&'static str, u64>,
}

impl Live {
    /// Sets the entry of an operation, or removes it, and gives the one before.
    pub(super) fn set(&mut self, id: OperationId, entry: Option<Entry>) -> Option<Entry> {
        let before = self.entries.remove(&id);
        if let Some(before) = &before {
            self.queued -= usize::from(before.queued);
            if let Some(count) = self.open.get_mut(&(before.kind, before.state)) {
                *count -= 1;
            }
            if let Some(due) = self.by_zone.get_mut(&before.zone) {
                due.remove(&(before.due_at, id));
                if due.is_empty() {
                    self.by_zone.remove(&before.zone);
                }
            }
        }
        if let Some(entry) = entry {
            self.queued += usize::from(entry.queued);
            *self.open.entry((entry.kind, entry.state)).or_default() += 1;
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

    /// Counts an operation that has ended.
    pub(super) fn count(&mut self, ended: &Ended) {
        *self.ended.entry((ended.kind, ended.outcome)).or_default() += 1;
        if let Some(reason) = ended.reason {
            *self.failures.entry(reason.as_str()).or_default() += 1;
        }
    }

    /// How many operations there are.
    pub(super) fn census(&self, queue_limit: usize) -> Census {
        Census {
            open: self.open.iter().filter(|(_, count)| **count > 0).map(|(key, count)| (*key, *count)).collect(),
            ended: self.ended.clone(),
            failures: self.failures.clone(),
            oldest_created_at: self.entries.values().next().map(|entry| entry.created_at),
            queued: self.queued as u64,
            queue_limit: queue_limit as u64,
        }
    }
}
