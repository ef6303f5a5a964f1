//! Goal: everybody sees what is theirs and does what their role allows, whatever the call. Method: two folders with things in
//! both; every method of the descriptors called with a token of the other folder, and with a token of too small a role.

use super::{Folk, TOKENS, bearer, operations, two_folders};
use crate::support::answers::{bare, keyed, response};
use crate::support::service::OPERATION;
use bytes::{Buf, BufMut};
use prost_reflect::{DynamicMessage, Kind, MethodDescriptor, Value};
use redkeep::api::access::{Rule, rule};
use redkeep::auth::Role;
use redkeep::pb::{managed, own};
use std::collections::BTreeMap;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Messages as they are on the wire.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        *self
    }
    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

/// Calls a method, whatever it is, and gives the code of the answer.
async fn call(channel: &Channel, token: &str, method: &MethodDescriptor, message: Vec<u8>) -> Result<(), Status> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    grpc.server_streaming(request, path.parse().unwrap(), Raw).await?.into_inner().message().await.map(drop)
}

/// What a request may name: things of the folder `shop` by the fields that stand for them, and values where one is needed.
fn things(backup_id: &str, operation_id: &str) -> BTreeMap<&'static str, String> {
    let things = [
        ("cluster_id", "main"),
        ("backup_id", backup_id),
        ("operation_id", operation_id),
        ("folder_id", "shop"),
        ("resource_id", "main"),
        ("shard_name", "shard1"),
        ("name", "stolen"),
        ("bucket", "reports"),
        ("path", "stolen"),
        ("policy_id", "weekly"),
        ("policy_name", "stolen"),
    ];
    things.into_iter().map(|(field, value)| (field, value.to_owned())).collect()
}

/// A request that names these things wherever it names one of their kind, and that is otherwise as small as the rules allow.
fn request(method: &MethodDescriptor, things: &BTreeMap<&str, String>) -> Vec<u8> {
    use prost::Message;
    let mut message = DynamicMessage::new(method.input());
    for field in method.input().fields() {
        if let Some(thing) = things.get(field.name()).filter(|_| field.kind() == Kind::String && !field.is_list()) {
            message.set_field(&field, Value::String(thing.clone()));
        } else if field.name() == "keys" && field.is_list() {
            message.set_field(&field, Value::List(vec![Value::String("stolen.rdb".into())]));
        } else if let Kind::Message(kind) = field.kind()
            && field.name() == "config_spec"
        {
            message.set_field(&field, Value::Message(DynamicMessage::new(kind)));
        } else if field.name() == "environment" {
            message.set_field(&field, Value::EnumNumber(managed::cluster::Environment::Production as i32));
        } else if let Kind::Message(kind) = field.kind()
            && field.name() == "connection"
        {
            let mut connection = DynamicMessage::new(kind);
            connection.set_field_by_name("nodes", Value::List(vec![Value::String("127.0.0.1:1".into())]));
            message.set_field(&field, Value::Message(connection));
        }
    }
    message.encode_to_vec()
}

#[tokio::test]
async fn no_method_shows_or_touches_a_foreign_thing() {
    let (_sources, setup) = two_folders().await;
    let folk = Folk::of(&setup);
    let owner = folk.token("owner", &[("shop", "admin")]).await;
    let stranger = folk.token("stranger", &[("news", "admin")]).await;
    let nobody = folk.token("nobody", &[("empty", "admin")]).await;
    let service = setup.auth(TOKENS).start().await;
    let clients = bearer(&service, &owner).await;
    let operation = clients.create("main", "first").await.unwrap();
    let backup: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    let things = things(&backup.id, &operation.id);

    let channel = Channel::from_shared(service.endpoint.clone()).unwrap().connect().await.unwrap();
    let mut built = 0;
    for method in redkeep::pb::pool().services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        if rule(&path) == Some(Rule::Open) {
            continue;
        }
        let message = request(&method, &things);
        for (token, who) in [(&stranger, "a stranger"), (&nobody, "one of an empty folder")] {
            let refused = call(&channel, token, &method, message.clone()).await.expect_err(&path);
            match refused.code() {
                Code::NotFound => {
                    // A thing that is there is refused in the words for one that is not.
                    assert!(refused.message().ends_with(" not found"), "{path} for {who}: {refused:?}");
                    built += 1;
                }
                Code::Unimplemented => {}
                _ => panic!("{path} for {who}; where the rules of the request refuse it, `things` needs more: {refused:?}"),
            }
        }
    }
    assert!(built >= 2 * 21, "only {built} calls were judged");
    let after = clients.backup(&backup.id).await.unwrap();
    assert_eq!(after, backup, "nothing was changed");
    assert_eq!(operations(&clients, "shop").await.unwrap().len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn no_method_works_for_too_small_a_role() {
    let (_sources, setup) = two_folders().await;
    let folk = Folk::of(&setup);
    let owner = folk.token("owner", &[("shop", "admin")]).await;
    let mut tokens = BTreeMap::new();
    for role in Role::ALL {
        tokens.insert(role, folk.token(role.as_str(), &[("shop", role.as_str())]).await);
    }
    // A great role elsewhere lends nothing here.
    let mixed = folk.token("mixed", &[("shop", "auditor"), ("news", "admin")]).await;
    let nothing = folk.token("nothing", &[("*", "auditor")]).await;
    let service = setup.auth(TOKENS).start().await;
    let clients = bearer(&service, &owner).await;
    let operation = clients.create("main", "first").await.unwrap();
    let backup: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    let things = things(&backup.id, &operation.id);
    let channel = Channel::from_shared(service.endpoint.clone()).unwrap().connect().await.unwrap();
    for method in redkeep::pb::pool().services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let Some(Rule::Needs(needed)) = rule(&path) else { continue };
        let message = request(&method, &things);
        let is_refused = async |token: &str| {
            let code = call(&channel, token, &method, message.clone()).await.err().map(|status| status.code());
            assert!(!matches!(code, Some(Code::Unauthenticated | Code::NotFound)), "{path}: {code:?}");
            code == Some(Code::PermissionDenied)
        };
        for (role, token) in tokens.iter().filter(|(role, _)| **role < needed) {
            assert!(is_refused(token).await, "{path} for {role}");
        }
        if needed > Role::Auditor {
            // Whether the call is built or not, it is refused.
            let code = call(&channel, &mixed, &method, message.clone()).await.err().map(|status| status.code());
            assert!(matches!(code, Some(Code::PermissionDenied | Code::Unimplemented)), "{path}: {code:?}");
            assert!(is_refused(&nothing).await, "{path}");
        }
        if needed <= Role::Viewer {
            assert!(!is_refused(&tokens[&needed]).await, "{path} for {needed}");
        }
    }
    assert_eq!(clients.backup(&backup.id).await.unwrap(), backup, "nothing was changed");
    service.stop().await;
}

#[tokio::test]
async fn lists_show_what_the_caller_sees() {
    let (_sources, setup) = two_folders().await;
    let folk = Folk::of(&setup);
    let both = folk.token("both", &[("shop", "editor"), ("news", "editor")]).await;
    let auditor = folk.token("auditor", &[("*", "auditor")]).await;
    let viewer = folk.token("viewer", &[("shop", "viewer")]).await;
    let service = setup.auth(TOKENS).start().await;
    let (both, auditor, viewer) = (bearer(&service, &both).await, bearer(&service, &auditor).await, bearer(&service, &viewer).await);
    for (cluster, name) in [("main", "of-shop"), ("press", "of-news")] {
        let operation = both.create(cluster, name).await.unwrap();
        both.ended(&operation.id, OPERATION).await;
    }
    let clusters = async |clients: &crate::support::service::Clients, folder: &str| {
        let request = managed::ListClustersRequest { folder_id: folder.into(), ..Default::default() };
        let answer = bare(clients.clusters.clone().list(request).await).map_err(|status| status.code())?;
        Ok::<_, Code>(answer.clusters.into_iter().map(|cluster| cluster.id).collect::<Vec<_>>())
    };
    let backups = async |clients: &crate::support::service::Clients, folder: &str| {
        let request = own::ListBackupsRequest { folder_id: folder.into(), ..Default::default() };
        let answer = bare(clients.backups.clone().list(request).await).map_err(|status| status.code())?;
        Ok::<_, Code>(answer.backups.into_iter().map(|backup| backup.name).collect::<Vec<_>>())
    };
    assert_eq!(clusters(&both, "shop").await, Ok(vec!["main".to_owned()]));
    assert_eq!(clusters(&both, "news").await, Ok(vec!["press".to_owned()]));
    assert_eq!(backups(&both, "shop").await, Ok(vec!["of-shop".to_owned()]));
    assert_eq!(clusters(&viewer, "shop").await, Ok(vec!["main".to_owned()]));
    assert_eq!(backups(&viewer, "shop").await, Ok(vec!["of-shop".to_owned()]));
    assert_eq!(clusters(&viewer, "news").await, Err(Code::NotFound));
    assert_eq!(backups(&viewer, "news").await, Err(Code::NotFound));
    assert_eq!(backups(&viewer, "").await, Err(Code::NotFound), "the default folder is one like any other");
    let other = own::ListBackupsRequest { folder_id: "shop".into(), cluster_id: "press".into(), ..Default::default() };
    assert!(bare(viewer.backups.clone().list(other).await).unwrap().backups.is_empty(), "naming another folder's cluster shows nothing");

    // An auditor sees clusters and operations, and no backups.
    assert_eq!(clusters(&auditor, "shop").await, Ok(vec!["main".to_owned()]));
    assert_eq!(operations(&auditor, "news").await.unwrap().len(), 1);
    assert_eq!(backups(&auditor, "shop").await, Err(Code::PermissionDenied));
    let of_cluster = managed::ListClusterBackupsRequest { cluster_id: "main".into(), ..Default::default() };
    assert_eq!(auditor.clusters.clone().list_backups(of_cluster).await.unwrap_err().code(), Code::PermissionDenied);
    service.stop().await;
}

#[tokio::test]
async fn a_viewer_who_deletes_is_told_which_role_it_takes() {
    let (_sources, setup) = two_folders().await;
    let folk = Folk::of(&setup);
    let (editor, viewer) = (folk.token("editor", &[("shop", "editor")]).await, folk.token("viewer", &[("shop", "viewer")]).await);
    let service = setup.auth(TOKENS).start().await;
    let (editor, viewer) = (bearer(&service, &editor).await, bearer(&service, &viewer).await);
    let operation = editor.create("main", "first").await.unwrap();
    assert_eq!(operation.created_by, "editor");
    let backup: own::Backup = response(&editor.ended(&operation.id, OPERATION).await);
    assert!(viewer.backup(&backup.id).await.is_ok());
    let refused = viewer.backups.clone().delete(own::DeleteBackupRequest { backup_id: backup.id.clone() }).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "this call needs the role editor"));
    let cancel = redkeep::pb::operation::CancelOperationRequest { operation_id: operation.id.clone() };
    assert_eq!(viewer.operations.clone().cancel(cancel).await.unwrap_err().code(), Code::PermissionDenied);
    let deleted = bare(editor.backups.clone().delete(own::DeleteBackupRequest { backup_id: backup.id }).await).unwrap();
    assert!(editor.ended(&deleted.id, OPERATION).await.done);
    service.stop().await;
}

#[tokio::test]
async fn the_keys_of_two_subjects_are_apart() {
    // Goal: nobody gets another one's operation by guessing a key, and a lost role closes the way back to one's own.
    let (_sources, setup) = two_folders().await;
    let folk = Folk::of(&setup);
    let roles = &[("shop", "editor")][..];
    let (alice, bob) = (folk.token("alice", roles).await, folk.token("bob", roles).await);
    let reduced = folk.token("alice", &[("news", "editor")]).await;
    let service = setup.auth(TOKENS).start().await;
    let (alice, bob, reduced) = (bearer(&service, &alice).await, bearer(&service, &bob).await, bearer(&service, &reduced).await);
    let create = |name: &str| own::CreateBackupRequest { cluster_id: "main".into(), name: name.into(), ..Default::default() };
    let first = bare(alice.backups.clone().create(keyed(create("first"), "key")).await).unwrap();
    alice.ended(&first.id, OPERATION).await;
    assert_eq!(bare(alice.backups.clone().create(keyed(create("first"), "key")).await).unwrap().id, first.id);
    let of_bob = bob.backups.clone().create(keyed(create("first"), "key")).await.unwrap_err();
    assert_eq!(of_bob.code(), Code::AlreadyExists, "for bob the key is a new one: {of_bob:?}");
    let other = bare(bob.backups.clone().create(keyed(create("second"), "key")).await).unwrap();
    assert_ne!(other.id, first.id);
    assert_eq!((other.created_by.as_str(), first.created_by.as_str()), ("bob", "alice"));
    let again = reduced.backups.clone().create(keyed(create("first"), "key")).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound, "{again:?}");
    bob.ended(&other.id, OPERATION).await;
    service.stop().await;
}
