//! Operations that were read lately, so that who asks again and again how far one is costs no thread and no parsing.
//!
//! An entry is what the tree holds, durable and unchanged: the writer takes out what a batch touches before the batch becomes
//! visible, and a reader puts in only what it read while no batch was under way.

use super::keys::{self, Kind};
use super::rows::Writes;
use crate::operation::{Operation, OperationId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most operations that are kept. When there are as many, all are let go.
const ENTRIES: usize = 512;

/// Operations that were read lately.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<OperationId, Arc<Operation>>>);

impl Recent {
    /// The operation with this id, if it is kept.
    pub(super) fn get(&self, id: OperationId) -> Option<Arc<Operation>> {
        self.entries().get(&id).cloned()
    }

    /// Keeps what was read when no batch was under way, if `is_current` says, while nothing can be taken out, that none was begun
    /// since.
    pub(super) fn keep(&self, operation: &Operation, is_current: impl FnOnce() -> bool) {
        let mut entries = self.entries();
        if !is_current() {
            return;
        }
        if entries.len() >= ENTRIES {
            entries.clear();
        }
        entries.insert(operation.id, Arc::new(operation.clone()));
    }

    /// Takes out what a batch is about to change. The batch counts as begun already.
    pub(super) fn forget(&self, writes: &Writes) {
        let mut entries = self.entries();
        if entries.is_empty() {
            return;
        }
        for key in writes.keys().filter(|key| key.first() == Some(&Kind::Operation.byte())) {
            if let Some(id) = keys::last_operation(key) {
                entries.remove(&id);
            }
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<OperationId, Arc<Operation>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
