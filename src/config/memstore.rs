//! The section `[memstore]`: the calls under `/v1/backups`.

use super::section::Section;
use crate::cluster::FolderId;

/// Most backups that a quota may allow.
pub const QUOTA: u64 = 10_000;

/// How the MemStore calls work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemStore {
    /// Whether they are served at all.
    pub enabled: bool,
    /// Whether backups of clusters in cluster mode are taken on. They are refused otherwise, before anything is started.
    pub allow_cluster_mode: bool,
    /// Most backups of a project, those that failed included; none when absent. It counts for what comes through these calls.
    pub quota: Option<u64>,
    /// The project of callers who may be in several and name none with `X-Project-Id`.
    pub project: FolderId,
}

/// Reads the section.
pub(super) fn read(mut section: Section<'_>) -> MemStore {
    let enabled = section.flag_or("enabled", true);
    let allow_cluster_mode = section.flag("allow_cluster_mode");
    let quota = Some(section.integer("quota", 0, 0..=QUOTA)).filter(|quota| *quota > 0);
    let project = section.parsed("project", "default");
    section.end();
    MemStore { enabled, allow_cluster_mode, quota, project }
}
