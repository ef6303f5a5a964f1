//! When backups of a cluster are taken by themselves: the part of a cluster's settings that can be changed, and its retention
//! policies.

use super::page::Page;
use super::{Api, convert, fleet, request, status};
use crate::cluster::calendar::{BadDays, Days, Field};
use crate::cluster::policy::{ClusterChanges, POLICY_DESCRIPTION_CHARS, POLICY_NAME_CHARS, Policy, RETAIN_DAYS, Setting};
use crate::fleet::Definition;
use crate::pb::google::r#type::TimeOfDay;
use crate::pb::{self, managed, mdb, operation as wire};
use chrono::Utc;
use prost::{Message, Name};
use prost_reflect::DynamicMessage;
use tonic::{Request, Response, Status};

/// The paths that can be changed.
const PATHS: [&str; 5] = ["name", "description", "labels", "config_spec.backup_window_start", "config_spec.backup_retain_period_days"];

/// What is said of every other path.
const ONLY: &str = "cannot be changed here; only name, description, labels, config_spec.backup_window_start and \
    config_spec.backup_retain_period_days can";

#[tonic::async_trait]
impl managed::backup_retention_policy_service_server::BackupRetentionPolicyService for Api {
    async fn get(&self, request: Request<managed::GetBackupRetentionPolicyRequest>) -> Result<Response<mdb::BackupRetentionPolicy>, Status> {
        let (grant, request) = request::reading(request)?;
        let cluster = self.cluster(&grant, &request.cluster_id)?;
        let policy = cluster.policies.iter().find(|policy| policy.id == request.policy_id);
        policy.map(|policy| Response::new(convert::policy(policy))).ok_or_else(|| status::not_found("retention policy", &request.policy_id))
    }

    async fn list(
        &self,
        request: Request<managed::ListBackupRetentionPoliciesRequest>,
    ) -> Result<Response<managed::ListBackupRetentionPoliciesResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let page = Page::new(request.page_size, &request.page_token, "cluster.policies", &[&request.cluster_id])?;
        let cluster = self.cluster(&grant, &request.cluster_id)?;
        Ok(Response::new(page_of(&page, cluster.policies.clone())))
    }

    async fn list_by_folder(
        &self,
        request: Request<managed::ListBackupRetentionPoliciesByFolderRequest>,
    ) -> Result<Response<managed::ListBackupRetentionPoliciesResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let page = Page::new(request.page_size, &request.page_token, "folder.policies", &[&request.folder_id])?;
        let clusters = self.executor.fleet().list(&request::folder_id(&grant, &request.folder_id)?);
        Ok(Response::new(page_of(&page, clusters.iter().flat_map(|cluster| cluster.policies.clone()).collect())))
    }

    async fn create(&self, request: Request<managed::CreateBackupRetentionPolicyRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let cluster = self.cluster(&grant, &request.cluster_id)?;
        let id = request.cluster_id.clone();
        let policy = new_policy(&cluster, request)?;
        let operation = self.executor.create_policy(&cluster, policy, caller).await.map_err(|refused| fleet::refusal(refused, &id))?;
        Ok(Response::new(convert::operation(&operation)))
    }

    async fn delete(&self, request: Request<managed::DeleteBackupRetentionPolicyRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let cluster = self.cluster(&grant, &request.cluster_id)?;
        if !cluster.policies.iter().any(|policy| policy.id == request.policy_id) {
            return Err(status::not_found("retention policy", &request.policy_id));
        }
        let operation = self.executor.delete_policy(&cluster, request.policy_id, caller).await;
        let operation = operation.map_err(|refused| fleet::refusal(refused, &request.cluster_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }
}

impl Api {
    pub(super) async fn update_cluster(&self, request: Request<managed::UpdateClusterRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let cluster = self.cluster(&grant, &request.cluster_id)?;
        let id = request.cluster_id.clone();
        let changes = changes(request)?;
        let operation = self.executor.update_cluster(&cluster, changes, caller).await.map_err(|refused| fleet::refusal(refused, &id))?;
        Ok(Response::new(convert::operation(&operation)))
    }
}

fn page_of(page: &Page, policies: Vec<Policy>) -> managed::ListBackupRetentionPoliciesResponse {
    let (policies, next_page_token) = page.of(policies, |policy| format!("{}\0{}", policy.cluster_id, policy.id));
    managed::ListBackupRetentionPoliciesResponse { policies: policies.iter().map(convert::policy).collect(), next_page_token }
}

/// Reads what is to change. Without a mask every field that can be changed is meant, absent ones too, and no other may be set.
fn changes(request: managed::UpdateClusterRequest) -> Result<ClusterChanges, Status> {
    let paths = request.update_mask.as_ref().map(|mask| mask.paths.clone()).filter(|paths| !paths.is_empty());
    let paths = match paths {
        Some(paths) => paths,
        None => {
            refuse_others(&request)?;
            PATHS.map(str::to_owned).to_vec()
        }
    };
    let mut changes = ClusterChanges::default();
    let config = request.config_spec.unwrap_or_default();
    for path in paths {
        match path.as_str() {
            "name" => changes.name = Some(request.name.clone()),
            "description" => changes.description = Some(request.description.clone()),
            "labels" => changes.labels = Some(request::labels(request.labels.clone())),
            "config_spec.backup_window_start" => {
                changes.window_start = Some(config.backup_window_start.map_or(Ok(Setting::Off), |time| minute(time).map(Setting::To))?);
            }
            "config_spec.backup_retain_period_days" => {
                changes.retain_days = Some(match config.backup_retain_period_days {
                    None => Setting::Off,
                    Some(days) => Setting::To(retain_days("config_spec.backup_retain_period_days", days)?),
                });
            }
            other => return Err(status::invalid(&path_shown(other), ONLY)),
        }
    }
    Ok(changes)
}

/// A path from a mask as it is shown: bounded.
fn path_shown(path: &str) -> String {
    path.chars().take(100).filter(|c| !c.is_control()).collect()
}

/// Refuses fields that cannot be changed and are set.
fn refuse_others(request: &managed::UpdateClusterRequest) -> Result<(), Status> {
    let own = ["cluster_id", "update_mask", "name", "description", "labels", "config_spec"];
    if let Some(field) = set_fields(request)?.into_iter().find(|field| !own.contains(&field.as_str())) {
        return Err(status::invalid(&field, ONLY));
    }
    let Some(config) = &request.config_spec else { return Ok(()) };
    match set_fields(config)?.into_iter().find(|field| !["backup_window_start", "backup_retain_period_days"].contains(&field.as_str())) {
        Some(field) => Err(status::invalid(&format!("config_spec.{field}"), ONLY)),
        None => Ok(()),
    }
}

/// The names of the fields that a message has set.
fn set_fields<T: Message + Name>(message: &T) -> Result<Vec<String>, Status> {
    let descriptor = pb::pool().get_message_by_name(&T::full_name());
    let dynamic = descriptor.and_then(|descriptor| DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok());
    let dynamic = dynamic.ok_or_else(|| Status::internal("a request could not be read by its descriptor"))?;
    Ok(dynamic.fields().map(|(field, _)| field.name().to_owned()).collect())
}

/// Reads a time of day to the minute.
fn minute(time: TimeOfDay) -> Result<u16, Status> {
    let TimeOfDay { hours, minutes, seconds, nanos } = time;
    let legal = (0..24).contains(&hours) && (0..60).contains(&minutes) && seconds == 0 && nanos == 0;
    let minute = u16::try_from(hours.saturating_mul(60).saturating_add(minutes)).ok().filter(|_| legal);
    minute.ok_or_else(|| status::invalid("config_spec.backup_window_start", "must be a time of day in whole minutes, from 00:00 to 23:59"))
}

fn retain_days(field: &str, days: i64) -> Result<u32, Status> {
    let legal = u32::try_from(days).ok().filter(|days| (1..=RETAIN_DAYS).contains(days));
    legal.ok_or_else(|| status::invalid(field, format!("must be from 1 to {RETAIN_DAYS}")))
}

fn new_policy(cluster: &Definition, request: managed::CreateBackupRetentionPolicyRequest) -> Result<Policy, Status> {
    let managed::CreateBackupRetentionPolicyRequest { cluster_id: _, cron, retain_for_days, description, policy_name } = request;
    for (field, text, most) in [("policy_name", &policy_name, POLICY_NAME_CHARS), ("description", &description, POLICY_DESCRIPTION_CHARS)] {
        if text.chars().count() > most || text.chars().any(char::is_control) {
            return Err(status::invalid(field, format!("must have at most {most} characters, and no control characters")));
        }
    }
    // Minute and hour are left aside: the time of day is the cluster's window.
    let mdb::CronTab { minute: _, hour: _, day_of_month, month, day_of_week } = cron.unwrap_or_default();
    if [&day_of_month, &month, &day_of_week].iter().all(|text| text.is_empty()) {
        return Err(status::invalid("cron", "must name days of the month, months or days of the week; `*` means every day"));
    }
    let cron = [String::new(), String::new(), day_of_month, month, day_of_week];
    Days::read(&cron).map_err(|bad| {
        let field = match bad {
            BadDays::Form(Field::DayOfMonth) => "cron.day_of_month",
            BadDays::Form(Field::Month) => "cron.month",
            BadDays::Form(Field::DayOfWeek) => "cron.day_of_week",
            BadDays::Never => "cron",
        };
        status::invalid(field, bad.to_string())
    })?;
    let retain_days = retain_days("retain_for_days", retain_for_days)?;
    let id = uuid::Uuid::now_v7().to_string();
    Ok(Policy { id, cluster_id: cluster.id.clone(), name: policy_name, description, created_at: Utc::now(), cron, retain_days })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use prost_types::FieldMask;

    fn request(paths: &[&str]) -> managed::UpdateClusterRequest {
        let mask = Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
        managed::UpdateClusterRequest { cluster_id: "main".into(), update_mask: mask, ..Default::default() }
    }

    fn window(hours: i32, minutes: i32) -> managed::ConfigSpec {
        managed::ConfigSpec { backup_window_start: Some(TimeOfDay { hours, minutes, ..Default::default() }), ..Default::default() }
    }

    fn refused(request: managed::UpdateClusterRequest) -> String {
        use tonic_types::StatusExt;
        changes(request).unwrap_err().get_error_details().bad_request().unwrap().field_violations[0].field.clone()
    }

    #[test]
    fn only_what_the_mask_names_changes() {
        let named = managed::UpdateClusterRequest { name: "n".into(), description: "d".into(), config_spec: Some(window(22, 30)), ..request(&["name"]) };
        assert_eq!(changes(named).unwrap(), ClusterChanges { name: Some("n".into()), ..ClusterChanges::default() });
        let set = managed::UpdateClusterRequest { config_spec: Some(window(22, 30)), ..request(&["config_spec.backup_window_start"]) };
        assert_eq!(changes(set).unwrap(), ClusterChanges { window_start: Some(Setting::To(22 * 60 + 30)), ..ClusterChanges::default() });
        let off = request(&["config_spec.backup_window_start", "config_spec.backup_retain_period_days"]);
        let both = ClusterChanges { window_start: Some(Setting::Off), retain_days: Some(Setting::Off), ..ClusterChanges::default() };
        assert_eq!(changes(off).unwrap(), both);
        // What is set beside the mask is not looked at.
        assert!(changes(managed::UpdateClusterRequest { deletion_protection: true, ..request(&["labels"]) }).is_ok());
    }

    #[test]
    fn without_a_mask_all_is_meant_and_nothing_else_may_be_said() {
        let bare = managed::UpdateClusterRequest { update_mask: None, ..request(&[]) };
        let all = changes(bare.clone()).unwrap();
        assert_eq!((all.name.as_deref(), all.window_start, all.retain_days), (Some(""), Some(Setting::Off), Some(Setting::Off)));
        assert_eq!(refused(managed::UpdateClusterRequest { deletion_protection: true, ..bare.clone() }), "deletion_protection");
        let version = managed::ConfigSpec { version: "7.2".into(), ..Default::default() };
        assert_eq!(refused(managed::UpdateClusterRequest { config_spec: Some(version), ..bare }), "config_spec.version");
    }

    #[test]
    fn what_cannot_be_changed_is_named() {
        for path in ["config_spec", "config_spec.version", "deletion_protection", "nonsense", "maintenance_window"] {
            assert_eq!(refused(request(&["name", path])), path);
        }
        let window_of = |time| managed::ConfigSpec { backup_window_start: Some(time), ..Default::default() };
        let time = |hours, minutes, seconds| TimeOfDay { hours, minutes, seconds, nanos: 0 };
        for bad in [time(24, 0, 0), time(-1, 0, 0), time(1, 60, 0), time(1, 0, 1), time(i32::MAX, 0, 0), time(2, -60, 0)] {
            let asked = managed::UpdateClusterRequest { config_spec: Some(window_of(bad)), ..request(&["config_spec.backup_window_start"]) };
            assert_eq!(refused(asked), "config_spec.backup_window_start", "{bad:?}");
        }
    }
}
