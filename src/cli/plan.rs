//! `redkeep cluster update` and `redkeep policy`: what is told of a cluster, and when its backups are taken by themselves.

use super::client::{Session, changing};
use super::error::Error;
use super::table::Grid;
use super::{Change, Connection, EXIT_STATUSES, Limit, Output, arguments, json, labels, operation, print, text};
use crate::cluster::calendar::minute_of;
use crate::pb::google::r#type::TimeOfDay;
use crate::pb::{managed, mdb};
use clap::{ArgGroup, Args, Subcommand};
use prost_types::FieldMask;
use std::str::FromStr;
use tonic::Response;

const UPDATE_EXAMPLES: &str = "\
Examples:
  redkeep cluster update shop --window 22:00 --retain-days 7 --wait
  redkeep cluster update shop --window none
  redkeep cluster update shop --name orders --label team=shop";

const CREATE_EXAMPLES: &str = "\
Examples:
  redkeep policy create shop --name monthly --days-of-month 1 --retain-days 365
  redkeep policy create shop --name weekends --days-of-week sat,sun --retain-days 60 --wait";

/// A value that may be taken away with the word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrNone<T> {
    /// It is taken away.
    None,
    /// It is this.
    Some(T),
}

impl<T> OrNone<T> {
    fn value(self) -> Option<T> {
        match self {
            Self::None => None,
            Self::Some(value) => Some(value),
        }
    }
}

fn window(text: &str) -> Result<OrNone<u16>, String> {
    if text == "none" {
        return Ok(OrNone::None);
    }
    minute_of(text).map(OrNone::Some).ok_or_else(|| "expected a time of day such as 22:00, or none".to_owned())
}

fn days(text: &str) -> Result<OrNone<i64>, String> {
    if text == "none" {
        return Ok(OrNone::None);
    }
    i64::from_str(text).map(OrNone::Some).map_err(|_| "expected a number of days, or none".to_owned())
}

/// Arguments of `cluster update`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("told").required(true).multiple(true).args(["name", "description", "labels", "no_labels", "window", "retain_days"]), after_help = UPDATE_EXAMPLES)]
pub struct UpdateCluster {
    /// Cluster.
    #[arg(value_name = "CLUSTER")]
    pub id: String,
    /// New name.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// New description.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// A label; those given take the place of all that there are.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = arguments::label)]
    pub labels: Vec<(String, String)>,
    /// Take all labels away.
    #[arg(long, conflicts_with = "labels")]
    pub no_labels: bool,
    /// Time of day in UTC at which the window of the daily backup begins, such as 22:00; none for no daily backup.
    #[arg(long, value_name = "HH:MM|none", value_parser = window)]
    pub window: Option<OrNone<u16>>,
    /// Days that scheduled backups are kept, those that are there already too: 7 to 60; none for ever.
    #[arg(long, value_name = "DAYS|none", value_parser = days)]
    pub retain_days: Option<OrNone<i64>>,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// `policy` and what follows.
#[derive(Args, Debug)]
#[command(after_help = EXIT_STATUSES)]
pub struct Policies {
    /// How the service is reached.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// Commands on retention policies.
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// List the policies of a cluster, or of all clusters of the folder.
    List(ListPolicies),
    /// Have a backup taken on certain days, and kept for a time of its own.
    ///
    /// The time of day is the window of the cluster's daily backup, or 22:00 where it has none. On a day that both name there is one
    /// backup, which is kept for the longer of the two times.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreatePolicy),
    /// Take a policy away. Backups that were taken by it stay for as long as they were to.
    Delete(DeletePolicy),
}

/// Arguments of `policy list`.
#[derive(Args, Debug)]
pub struct ListPolicies {
    /// Only those of this cluster.
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// How many.
    #[command(flatten)]
    pub limit: Limit,
}

/// Arguments of `policy create`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("days").required(true).multiple(true).args(["days_of_month", "months", "days_of_week"]))]
pub struct CreatePolicy {
    /// Cluster.
    #[arg(value_name = "CLUSTER")]
    pub cluster: String,
    /// Name, unique in the cluster.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Days of the month as in crontab: 1,15 or */10, L for the last.
    #[arg(long, value_name = "DAYS")]
    pub days_of_month: Option<String>,
    /// Months as in crontab: 1,7 or jan-mar.
    #[arg(long, value_name = "MONTHS")]
    pub months: Option<String>,
    /// Days of the week as in crontab: sun or mon-fri. Beside days of the month either is enough.
    #[arg(long, value_name = "DAYS")]
    pub days_of_week: Option<String>,
    /// Days that its backups are kept: 1 to 3650.
    #[arg(long, value_name = "DAYS")]
    pub retain_days: i64,
    /// What it is for, for a person.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Arguments of `policy delete`.
#[derive(Args, Debug)]
pub struct DeletePolicy {
    /// Cluster.
    #[arg(value_name = "CLUSTER")]
    pub cluster: String,
    /// Policy, by its id.
    #[arg(value_name = "POLICY")]
    pub id: String,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

pub(super) async fn update(session: &Session, args: UpdateCluster) -> Result<(), Error> {
    let mut paths = Vec::new();
    let mut name = |is_told: bool, path: &str| {
        if is_told {
            paths.push(path.to_owned());
        }
    };
    name(args.name.is_some(), "name");
    name(args.description.is_some(), "description");
    name(args.no_labels || !args.labels.is_empty(), "labels");
    name(args.window.is_some(), "config_spec.backup_window_start");
    name(args.retain_days.is_some(), "config_spec.backup_retain_period_days");
    let window = args.window.and_then(OrNone::value);
    let config = managed::ConfigSpec {
        backup_window_start: window.map(|minute| TimeOfDay { hours: i32::from(minute / 60), minutes: i32::from(minute % 60), ..Default::default() }),
        backup_retain_period_days: args.retain_days.and_then(OrNone::value),
        ..Default::default()
    };
    let request = managed::UpdateClusterRequest {
        cluster_id: args.id,
        update_mask: Some(FieldMask { paths }),
        name: args.name.unwrap_or_default(),
        description: args.description.unwrap_or_default(),
        labels: labels(args.labels)?,
        config_spec: Some(config),
        ..Default::default()
    };
    let request = changing(request, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.clusters().update(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

/// Carries out a command on retention policies.
pub(super) async fn run(session: &Session, command: PolicyCommand) -> Result<(), Error> {
    match command {
        PolicyCommand::List(args) => list(session, args).await,
        PolicyCommand::Create(args) => create(session, args).await,
        PolicyCommand::Delete(args) => delete(session, args).await,
    }
}

async fn list(session: &Session, args: ListPolicies) -> Result<(), Error> {
    let list = session
        .pages(args.limit.rows, |page_size, page_token| {
            let (mut client, cluster_id, folder_id) = (session.policies(), args.cluster.clone(), session.folder.clone());
            async move {
                let page = match cluster_id {
                    Some(cluster_id) => client.list(managed::ListBackupRetentionPoliciesRequest { cluster_id, page_size, page_token }).await?,
                    None => client.list_by_folder(managed::ListBackupRetentionPoliciesByFolderRequest { folder_id, page_size, page_token }).await?,
                };
                let page = page.into_inner();
                Ok(Response::new((page.policies, page.next_page_token)))
            }
        })
        .await?;
    match session.output {
        Output::Json => print::value(&json::list("policies", &list.rows)?)?,
        Output::Table => print::answer(&rows_text(&list.rows))?,
    }
    if list.is_cut {
        print::note("there are more; --limit 0 shows all");
    }
    Ok(())
}

fn rows_text(policies: &[mdb::BackupRetentionPolicy]) -> String {
    let mut grid = Grid::new(&["ID", "CLUSTER", "NAME", "DAYS OF MONTH", "MONTHS", "DAYS OF WEEK", "KEPT", "DESCRIPTION"]);
    for policy in policies {
        let cron = policy.cron.clone().unwrap_or_default();
        let field = |text: &str| if text.is_empty() { "*".to_owned() } else { text::escape(text) };
        grid.row([
            text::escape(&policy.policy_id),
            text::escape(&policy.cluster_id),
            text::or_dash(&policy.policy_name),
            field(&cron.day_of_month),
            field(&cron.month),
            field(&cron.day_of_week),
            format!("{} days", policy.retain_for_days),
            text::or_dash(&policy.description),
        ]);
    }
    grid.text()
}

async fn create(session: &Session, args: CreatePolicy) -> Result<(), Error> {
    let cron = mdb::CronTab {
        day_of_month: args.days_of_month.unwrap_or_default(),
        month: args.months.unwrap_or_default(),
        day_of_week: args.days_of_week.unwrap_or_default(),
        ..Default::default()
    };
    let request = managed::CreateBackupRetentionPolicyRequest {
        cluster_id: args.cluster,
        cron: Some(cron),
        retain_for_days: args.retain_days,
        description: args.description.unwrap_or_default(),
        policy_name: args.name,
    };
    let request = changing(request, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.policies().create(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

async fn delete(session: &Session, args: DeletePolicy) -> Result<(), Error> {
    let request = managed::DeleteBackupRetentionPolicyRequest { policy_id: args.id, cluster_id: args.cluster };
    let request = changing(request, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.policies().delete(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::parse;
    use crate::cli::{Client, ClusterCommand, Command};

    #[test]
    fn a_plan_is_described() {
        let line = "redkeep cluster update shop --window 22:30 --retain-days none";
        let Command::Client(Client::Cluster(clusters)) = parse(line).unwrap() else { panic!("{line}") };
        let ClusterCommand::Update(args) = clusters.command else { panic!("{line}") };
        assert_eq!((args.window, args.retain_days, args.name), (Some(OrNone::Some(22 * 60 + 30)), Some(OrNone::None), None));
        let line = "redkeep policy create shop --name weekends --days-of-week sat,sun --retain-days 60";
        let Command::Client(Client::Policy(policies)) = parse(line).unwrap() else { panic!("{line}") };
        let PolicyCommand::Create(args) = policies.command else { panic!("{line}") };
        assert_eq!((args.name.as_str(), args.days_of_week.as_deref(), args.retain_days), ("weekends", Some("sat,sun"), 60));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "redkeep cluster update shop",
            "redkeep cluster update shop --window 24:00",
            "redkeep cluster update shop --window soon",
            "redkeep cluster update shop --retain-days week",
            "redkeep cluster update shop --label a=b --no-labels",
            "redkeep policy create shop --name a --retain-days 7",
            "redkeep policy create shop --name a --days-of-month 1",
            "redkeep policy create shop --days-of-month 1 --retain-days 7",
            "redkeep policy delete shop",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn policies_are_shown_as_they_are() {
        let cron = mdb::CronTab { day_of_week: "sun".to_owned(), ..Default::default() };
        let policy = mdb::BackupRetentionPolicy {
            policy_id: "p1".to_owned(),
            cluster_id: "shop".to_owned(),
            policy_name: "weekly".to_owned(),
            cron: Some(cron),
            retain_for_days: 60,
            ..Default::default()
        };
        let row = rows_text(&[policy]);
        assert_eq!(row.lines().last().unwrap().split_whitespace().collect::<Vec<_>>().join(" "), "p1 shop weekly * * sun 60 days -");
    }
}
