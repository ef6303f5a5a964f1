//! What a list is to hold, from the query of its address.

use super::answer::Refusal;
use crate::backup::Backup;
use crate::cluster::{ClusterId, FolderId};
use crate::store::BackupFilter;

/// What a list is to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    cluster_name: Option<String>,
    cluster_id: Option<String>,
}

impl Filter {
    /// Reads a query. Both spellings of a filter are one; an empty value is none; parameters that are not known are left
    /// aside.
    pub(super) fn new(query: &str) -> Result<Self, Refusal> {
        let mut filter = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let (field, place) = match key.as_ref() {
                "clusterName" | "cluster-name" => ("clusterName", &mut filter.cluster_name),
                "clusterId" | "cluster-id" => ("clusterId", &mut filter.cluster_id),
                _ => continue,
            };
            if value.is_empty() {
                continue;
            }
            if place.get_or_insert_with(|| value.clone().into_owned()) != value.as_ref() {
                return Err(Refusal::Field { field, what: "must be given once, or with the same value".to_owned() });
            }
        }
        Ok(filter)
    }

    /// The rows among which those that fit are; `None` when none can fit.
    pub(super) fn rows(&self, project: &FolderId) -> Option<BackupFilter> {
        match &self.cluster_id {
            None => Some(BackupFilter::Folder(project.clone())),
            Some(id) => id.parse::<ClusterId>().ok().map(BackupFilter::Cluster),
        }
    }

    /// Whether a backup fits.
    pub(super) fn fits(&self, backup: &Backup) -> bool {
        self.cluster_id.as_ref().is_none_or(|id| backup.cluster_id.as_str() == id)
            && self.cluster_name.as_ref().is_none_or(|name| super::render::cluster_name(backup) == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read() {
        let filter = |name: Option<&str>, id: Option<&str>| Ok(Filter { cluster_name: name.map(str::to_owned), cluster_id: id.map(str::to_owned) });
        for (query, expected) in [
            ("", filter(None, None)),
            ("clusterName=main", filter(Some("main"), None)),
            ("cluster-name=main", filter(Some("main"), None)),
            ("clusterId=c-1&cluster-name=main", filter(Some("main"), Some("c-1"))),
            ("cluster-id=c-1", filter(None, Some("c-1"))),
            ("clusterName=main&clusterName=main&cluster-name=main", filter(Some("main"), None)),
            ("clusterName=&clusterName=main&clusterName=", filter(Some("main"), None)),
            ("clusterName", filter(None, None)),
            ("clusterName=a+b%20c%2B", filter(Some("a b c+"), None)),
            ("clustername=main&limit=1&page=%ff", filter(None, None)),
        ] {
            assert_eq!(Filter::new(query), expected, "{query}");
        }
        for (query, named) in
            [("clusterName=a&clusterName=b", "clusterName"), ("clusterId=a&cluster-id=b", "clusterId"), ("cluster-name=a&clusterName=A", "clusterName")]
        {
            assert!(matches!(Filter::new(query), Err(Refusal::Field { field, .. }) if field == named), "{query}");
        }
    }
}
