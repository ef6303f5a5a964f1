use super::*;
use crate::pb::{iam, managed, own};
use prost::{Message, Name};

/// Field and description of every violation, in order; empty when the request passes.
fn faults<M: Message + Name>(message: &M) -> Vec<(String, String)> {
    let Err(status) = request(&M::full_name(), &message.encode_to_vec()) else { return Vec::new() };
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let details = status.get_error_details();
    let violations: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|it| (it.field.clone(), it.description.clone())).collect();
    assert_eq!(status.message(), format!("{} {}", violations[0].0, violations[0].1));
    violations
}

/// The same in one line each.
fn lines<M: Message + Name>(message: &M) -> Vec<String> {
    faults(message).into_iter().map(|(field, description)| format!("{field} {description}")).collect()
}

fn creation() -> own::CreateBackupRequest {
    own::CreateBackupRequest { cluster_id: "main".to_owned(), ..Default::default() }
}

fn update() -> own::UpdateBackupRequest {
    own::UpdateBackupRequest { backup_id: "b".to_owned(), ..Default::default() }
}

fn list() -> own::ListBackupsRequest {
    own::ListBackupsRequest::default()
}

fn cluster() -> managed::CreateClusterRequest {
    managed::CreateClusterRequest {
        folder_id: "default".to_owned(),
        name: "main".to_owned(),
        environment: managed::cluster::Environment::Production as i32,
        config_spec: Some(managed::ConfigSpec::default()),
        host_specs: vec![managed::HostSpec::default()],
        ..Default::default()
    }
}

fn pairs(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn requests_that_keep_the_rules_pass() {
    assert_eq!(lines(&creation()), [""; 0]);
    assert_eq!(
        lines(&own::CreateBackupRequest { cluster_id: "c".repeat(50), name: "n".repeat(63), labels: pairs(&[("k", ""), ("a/b", "1.2")]), expires_at: None }),
        [""; 0]
    );
    assert_eq!(lines(&update()), [""; 0]);
    assert_eq!(lines(&list()), [""; 0]);
    assert_eq!(lines(&cluster()), [""; 0]);
    assert_eq!(lines(&managed::BackupClusterRequest { cluster_id: "é".repeat(50) }), [""; 0], "characters are counted, not bytes");
    assert_eq!(lines(&iam::CreateIamTokenRequest { identity: Some(iam::create_iam_token_request::Identity::Jwt("x".to_owned())) }), [""; 0]);
}

#[test]
fn identifiers_are_required_and_short() {
    let table = [
        (String::new(), "cluster_id must be given"),
        ("c".repeat(51), "cluster_id must have at most 50 characters, it has 51"),
        ("é".repeat(51), "cluster_id must have at most 50 characters, it has 51"),
    ];
    for (cluster_id, line) in table {
        assert_eq!(lines(&managed::BackupClusterRequest { cluster_id: cluster_id.clone() }), [line]);
        assert_eq!(lines(&own::CreateBackupRequest { cluster_id, ..creation() }), [line]);
    }
    assert_eq!(lines(&own::ListBackupsRequest { cluster_id: "c".repeat(51), ..list() }), ["cluster_id must have at most 50 characters, it has 51"]);
}

#[test]
fn pages_have_bounds() {
    for page_size in [0, 1, 1000] {
        assert_eq!(lines(&own::ListBackupsRequest { page_size, ..list() }), [""; 0]);
    }
    for page_size in [-1, 1001, i64::MIN, i64::MAX] {
        assert_eq!(lines(&own::ListBackupsRequest { page_size, ..list() }), ["page_size must be from 0 to 1000"]);
    }
    assert_eq!(
        lines(&own::ListBackupsRequest { page_size: 1001, page_token: "t".repeat(101), ..list() }),
        ["page_size must be from 0 to 1000", "page_token must have at most 100 characters, it has 101"]
    );
}

#[test]
fn labels_are_checked_key_by_key() {
    let many: Vec<(String, String)> = (0..65).map(|number| (format!("k{number}"), String::new())).collect();
    assert_eq!(lines(&own::CreateBackupRequest { labels: many.iter().cloned().collect(), ..creation() }), ["labels must have at most 64 elements, it has 65"]);
    assert_eq!(lines(&own::CreateBackupRequest { labels: many.into_iter().skip(1).collect(), ..creation() }), [""; 0]);

    let labels =
        pairs(&[("", "x"), ("Bad", "x"), ("bad value", "x"), ("good", "Bad"), ("long", &"v".repeat(64)), (&"k".repeat(64), "x"), (&"l".repeat(65), "x")]);
    assert_eq!(
        lines(&own::CreateBackupRequest { labels, ..creation() }),
        [
            r#"labels[""] must have a key of 1 to 63 characters, it has 0"#.to_owned(),
            r#"labels["Bad"] must have a key that matches [a-z][-_./\@0-9a-z]*"#.to_owned(),
            r#"labels["bad value"] must have a key that matches [a-z][-_./\@0-9a-z]*"#.to_owned(),
            r#"labels["good"] must match [-_./\@0-9a-z]*"#.to_owned(),
            format!("labels[\"{}\"] must have a key of 1 to 63 characters, it has 64", "k".repeat(64)),
            format!("labels[\"{}\"...] must have a key of 1 to 63 characters, it has 65", "l".repeat(64)),
            r#"labels["long"] must have at most 63 characters, it has 64"#.to_owned(),
        ]
    );
}

#[test]
fn elements_are_checked_one_by_one_and_against_each_other() {
    let holds = |holds: &[&str]| own::UpdateBackupRequest { holds: holds.iter().map(|hold| (*hold).to_owned()).collect(), ..update() };
    assert_eq!(lines(&holds(&["audit", "law"])), [""; 0]);
    assert_eq!(
        lines(&holds(&["audit", "law", "", "audit"])),
        ["holds[2] must have 1 to 256 characters, it has 0", "holds[3] must differ from all others, it repeats holds[0]",]
    );
    assert_eq!(lines(&holds(&["x"; 17])), ["holds must have at most 16 elements, it has 17"]);
}

#[test]
fn an_empty_list_is_counted_too() {
    let import = own::ImportBackupRequest { cluster_id: "c".to_owned(), bucket: "b".to_owned(), ..Default::default() };
    assert_eq!(lines(&import), ["keys must have 1 to 1000 elements, it has 0"]);
    assert_eq!(lines(&managed::CreateClusterRequest { host_specs: Vec::new(), ..cluster() }), ["host_specs must have at least 1 element, it has 0"]);
}

#[test]
fn one_member_of_a_oneof_must_be_set() {
    assert_eq!(lines(&iam::CreateIamTokenRequest { identity: None }), ["identity must have exactly one of yandex_passport_oauth_token, jwt"]);
    let jwt = iam::create_iam_token_request::Identity::Jwt("s".repeat(8001));
    assert_eq!(lines(&iam::CreateIamTokenRequest { identity: Some(jwt) }), ["jwt must have at most 8000 characters, it has 8001"]);
    let into = own::RestoreIntoRequest { backup_id: "b".to_owned(), ..Default::default() };
    assert_eq!(lines(&into), ["target must have exactly one of host, address, cluster_id"]);
}

#[test]
fn patterns_are_for_the_whole_string() {
    for name in ["", "a", "nightly-2026.01_x", "9"] {
        assert_eq!(lines(&own::CreateBackupRequest { name: name.to_owned(), ..creation() }), [""; 0], "{name}");
    }
    for name in ["-a", "a b", "a\n", "é", "a/b"] {
        assert_eq!(lines(&own::CreateBackupRequest { name: name.to_owned(), ..creation() }), ["name must match ([a-zA-Z0-9][a-zA-Z0-9_.-]*)?"], "{name}");
    }
}

#[test]
fn required_means_not_the_default() {
    let request = managed::CreateClusterRequest { environment: 0, config_spec: None, name: String::new(), ..cluster() };
    assert_eq!(lines(&request), ["name must be given", "environment must be given", "config_spec must be given"]);
}

#[test]
fn what_is_inside_is_checked_where_it_is_present() {
    let mut request = cluster();
    let redis = pb::managed::config::RedisConfig { databases: Some(0), maxmemory_percent: Some(76), list_max_listpack_size: Some(-5), ..Default::default() };
    request.config_spec = Some(managed::ConfigSpec { backup_retain_period_days: Some(6), redis: Some(redis), ..Default::default() });
    request.host_specs.push(managed::HostSpec { shard_name: "a b".to_owned(), ..Default::default() });
    request.maintenance_window = Some(managed::MaintenanceWindow { policy: None });
    assert_eq!(
        lines(&request),
        [
            "config_spec.redis.databases must be from 1 to 2147483647",
            "config_spec.redis.maxmemory_percent must be from 1 to 75",
            "config_spec.backup_retain_period_days must be from 7 to 60",
            "host_specs[1].shard_name must match [a-zA-Z0-9_-]*",
            "maintenance_window.policy must have exactly one of anytime, weekly_maintenance_window",
        ]
    );
}

#[test]
fn a_default_of_a_scalar_without_presence_is_absent() {
    for (hour, line) in [(0, None), (1, None), (24, None), (25, Some("maintenance_window.weekly_maintenance_window.hour must be from 1 to 24"))] {
        let window = managed::WeeklyMaintenanceWindow { hour, ..Default::default() };
        let policy = managed::maintenance_window::Policy::WeeklyMaintenanceWindow(window);
        let request = managed::CreateClusterRequest { maintenance_window: Some(managed::MaintenanceWindow { policy: Some(policy) }), ..cluster() };
        assert_eq!(lines(&request), line.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn nothing_that_was_sent_is_repeated() {
    let secret = "s3cr3t with spaces";
    let user = managed::UserSpec { name: secret.to_owned(), passwords: vec![secret.to_owned(), secret.to_owned()], ..Default::default() };
    let request = managed::CreateUserRequest { cluster_id: secret.repeat(9), user_spec: Some(user) };
    let status = super::request(&managed::CreateUserRequest::full_name(), &request.encode_to_vec()).unwrap_err();
    assert_eq!(status.get_error_details().bad_request().unwrap().field_violations.len(), 3, "{status:?}");
    assert!(!format!("{status:?} {}", String::from_utf8_lossy(status.details())).contains(secret), "{status:?}");
}

#[test]
fn a_refusal_has_a_limit() {
    let import = |keys: Vec<String>| own::ImportBackupRequest { cluster_id: "c".to_owned(), bucket: "b".to_owned(), keys, ..Default::default() };
    assert_eq!(faults(&import(vec!["k".repeat(1025); 1000])).len(), VIOLATIONS);

    let labels = (0..64).map(|number| (format!("{}{number:02}", "K".repeat(62)), String::new())).collect();
    let faults = faults(&own::CreateBackupRequest { labels, ..creation() });
    let size_bytes: usize = faults.iter().map(|(field, description)| field.len() + description.len()).sum();
    assert!(faults.len() > 20 && size_bytes <= VIOLATIONS_BYTES, "{} violations, {size_bytes} bytes", faults.len());
}

#[test]
fn only_requests_are_checked() {
    for name in ["redkeep.v1.Backup", "yandex.cloud.operation.Operation", "redkeep.v1.CreateBackupMetadata", "no.such.Message", ""] {
        assert!(request(name, b"\xff\xff").is_ok(), "{name}");
    }
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    // An unfinished length, a string that is no UTF-8, a wrong wire type, groups without end.
    let table: [&[u8]; 4] = [b"\x0a\x05a", b"\x0a\x02\xc3\x28", b"\x08\x01", &b"\x0b".repeat(1 << 20)];
    for bytes in table {
        let status = request("redkeep.v1.CreateBackupRequest", bytes).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("the request is no valid redkeep.v1.CreateBackupRequest: "), "{status}");
    }
    let fields_of_later_clients = b"\x0a\x01c\xfa\x3f\x03new";
    assert!(request("redkeep.v1.CreateBackupRequest", fields_of_later_clients).is_ok());
}

#[test]
fn a_rule_that_means_nothing_is_a_fault_of_ours() {
    let plans = Plans::read(&plan::tests::altered("redkeep.v1.GetBackupRequest", "length", "many"));
    let status = check(&plans, "redkeep.v1.GetBackupRequest", b"\x0a\x01b").unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(status.message(), "the rule of redkeep.v1.GetBackupRequest.backup_id cannot be read: `many` is no range");
    assert!(check(&plans, "redkeep.v1.DeleteBackupRequest", b"\x0a\x01b").is_ok());
}
