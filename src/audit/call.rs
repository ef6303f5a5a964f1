//! What becomes known of a call while it is answered: filled by those who learn it, read when the call has ended.

use std::sync::{Arc, Mutex, PoisonError};

/// Longest text that is kept of a field, in characters; longer ones are cut.
pub const TEXT_CHARS: usize = 256;

/// What is known of a call. Each field is absent until somebody has told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Who calls.
    pub subject: Option<String>,
    /// The folder of what the call touches, or was kept from touching.
    pub folder: Option<String>,
    /// What the call is about, as in `backups/<id>` or `clusters/<id>`: the caller's words, not checked.
    pub target: Option<String>,
    /// The operation that the call started, stopped or found.
    pub operation: Option<String>,
    /// Set when the call is to take the suspicion from a backup.
    pub clear_suspect: Option<bool>,
}

/// The record of one call, shared by all who answer it. The default one forgets what it is told: it is for calls of which
/// no line is written.
#[derive(Clone, Debug, Default)]
pub struct CallRecord(Option<Arc<Mutex<Known>>>);

impl CallRecord {
    /// An empty record that keeps what it is told.
    pub fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// Tells who calls.
    pub fn set_subject(&self, subject: &str) {
        self.set(|known| &mut known.subject, subject);
    }

    /// Tells the folder of what the call touches.
    pub fn set_folder(&self, folder: &str) {
        self.set(|known| &mut known.folder, folder);
    }

    /// Tells what the call is about.
    pub fn set_target(&self, target: &str) {
        self.set(|known| &mut known.target, target);
    }

    /// Tells the operation that the call is answered with.
    pub fn set_operation(&self, operation: &str) {
        self.set(|known| &mut known.operation, operation);
    }

    /// Tells that the call is to take the suspicion from a backup.
    pub fn set_clear_suspect(&self) {
        if let Some(known) = &self.0 {
            known.lock().unwrap_or_else(PoisonError::into_inner).clear_suspect = Some(true);
        }
    }

    /// What was told so far.
    pub fn known(&self) -> Known {
        match &self.0 {
            Some(known) => known.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            None => Known::default(),
        }
    }

    fn set(&self, field: impl FnOnce(&mut Known) -> &mut Option<String>, text: &str) {
        if let Some(known) = &self.0 {
            *field(&mut known.lock().unwrap_or_else(PoisonError::into_inner)) = Some(text.chars().take(TEXT_CHARS).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_share_a_record_fill_it() {
        let record = CallRecord::new();
        let other = record.clone();
        other.set_subject("me");
        record.set_target(&"é".repeat(1000));
        let known = other.known();
        assert_eq!((known.subject.as_deref(), known.folder), (Some("me"), None));
        assert_eq!(known.target.unwrap().chars().count(), TEXT_CHARS);
    }

    #[test]
    fn the_default_record_forgets() {
        let record = CallRecord::default();
        record.set_folder("default");
        assert_eq!(record.known(), Known::default());
    }
}
