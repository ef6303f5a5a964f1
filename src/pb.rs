//! The wire: generated types of every `.proto` file, and the pool of their descriptors.
//!
//! Knows nothing of what the messages are for.

use prost_reflect::DescriptorPool;
use std::sync::LazyLock;

#[allow(missing_docs, clippy::all, clippy::unwrap_used, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));
}

pub use generated::google;
pub use generated::redkeep;
pub use generated::yandex;

pub use generated::redkeep::v1 as own;
pub use generated::yandex::cloud::endpoint;
pub use generated::yandex::cloud::iam::v1 as iam;
pub use generated::yandex::cloud::mdb::redis::v1 as managed;
pub use generated::yandex::cloud::mdb::v1 as mdb;
pub use generated::yandex::cloud::operation;

impl std::fmt::Debug for own::Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Every file with its imports, options and comments, as an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/redkeep.binpb"));

/// The same without comments.
const BARE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pool.binpb"));

/// The pool of all descriptors, without comments. Custom options are kept in it.
pub fn pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| decoded(BARE));
    &POOL
}

/// A pool with the comments of the files, several times as large; to be let go of when they have been read.
pub fn commented_pool() -> DescriptorPool {
    decoded(DESCRIPTORS)
}

fn decoded(descriptors: &[u8]) -> DescriptorPool {
    DescriptorPool::decode(descriptors).expect("the descriptor set was encoded by the build script")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::Value;

    #[test]
    fn options_survive_the_build() {
        let service = pool().get_service_by_name("yandex.cloud.mdb.redis.v1.ClusterService").unwrap();
        let backup = service.methods().find(|method| method.name() == "Backup").unwrap();
        let http = pool().get_extension_by_name("google.api.http").unwrap();
        let rule = backup.options().get_extension(&http).into_owned();
        let Value::Message(rule) = rule else { panic!("the rule is a message") };
        assert_eq!(rule.get_field_by_name("post").unwrap().as_str(), Some("/managed-redis/v1/clusters/{cluster_id}:backup"));
        assert_eq!(rule.get_field_by_name("additional_bindings").unwrap().as_list().unwrap().len(), 1);
    }

    #[test]
    fn a_password_is_never_printed() {
        let credentials = own::Credentials { username: "backup".into(), password: "hunter2".into() };
        let request =
            own::UpdateConnectionRequest { connection: Some(own::Connection { credentials: Some(credentials), ..Default::default() }), ..Default::default() };
        assert!(!format!("{request:?}").contains("hunter2"));
    }

    #[test]
    fn what_answers_hold_can_be_named() {
        for name in ["google.protobuf.Empty", "google.rpc.BadRequest", "google.rpc.RequestInfo", "redkeep.v1.Backup"] {
            assert!(pool().get_message_by_name(name).is_some(), "{name}");
        }
    }
}
