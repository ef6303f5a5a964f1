//! What the `.proto` files say of their parts.

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, MethodDescriptor};
use std::collections::HashMap;

/// The comment in front of each part, by file and by the part's path in it.
pub(super) struct Comments {
    texts: HashMap<String, HashMap<Vec<i32>, String>>,
    services: HashMap<String, String>,
}

impl Comments {
    pub(super) fn of(pool: &DescriptorPool) -> Self {
        let mut texts: HashMap<String, HashMap<Vec<i32>, String>> = HashMap::new();
        for file in pool.files() {
            let locations = file.file_descriptor_proto().source_code_info.iter().flat_map(|info| &info.location);
            let of_file = locations.filter_map(|location| Some((location.path.clone(), flowing(location.leading_comments.as_ref()?))));
            texts.insert(file.name().to_owned(), of_file.collect());
        }
        let mut comments = Self { texts, services: HashMap::new() };
        comments.services =
            pool.services().map(|service| (service.full_name().to_owned(), comments.at(service.parent_file().name(), service.path()))).collect();
        comments
    }

    fn at(&self, file: &str, path: &[i32]) -> String {
        self.texts.get(file).and_then(|texts| texts.get(path)).cloned().unwrap_or_default()
    }

    /// Of a service, by its full name.
    pub(super) fn service(&self, name: &str) -> String {
        self.services.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn method(&self, method: &MethodDescriptor) -> String {
        self.at(method.parent_file().name(), method.path())
    }

    pub(super) fn message(&self, message: &MessageDescriptor) -> String {
        self.at(message.parent_file().name(), message.path())
    }

    pub(super) fn field(&self, field: &FieldDescriptor) -> String {
        self.at(field.parent_file().name(), field.path())
    }

    /// Of an enum, with what each of its values says.
    pub(super) fn enumeration(&self, kind: &EnumDescriptor) -> String {
        let file = kind.parent_file();
        let mut lines = vec![self.at(file.name(), kind.path())];
        lines.extend(kind.values().filter_map(|value| {
            let text = self.at(file.name(), value.path());
            (!text.is_empty()).then(|| format!("- `{}`: {text}", value.name()))
        }));
        lines.retain(|line| !line.is_empty());
        lines.join("\n")
    }
}

/// The same text with the line breaks of its paragraphs taken out.
fn flowing(comment: &str) -> String {
    let paragraphs = comment.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.filter(|paragraph| !paragraph.is_empty()).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    #[test]
    fn the_descriptors_hold_the_comments() {
        let comments = Comments::of(&pb::commented_pool());
        let service = pb::pool().get_service_by_name("redkeep.v1.BackupService").unwrap();
        let create = service.methods().find(|method| method.name() == "Create").unwrap();
        assert_eq!(comments.method(&create), "Takes a backup of a cluster.");
        let field = create.input().get_field_by_name("cluster_id").unwrap();
        assert_eq!(comments.field(&field), "Cluster to back up.");
        assert!(comments.service("redkeep.v1.BackupService").starts_with("Takes, keeps, proves"));
        assert_eq!(flowing(" a\n b\n\n\n c\n"), "a b\n\nc");
    }
}
