//! `redkeep backup restore`, and how the target of any restore is logged in to.

use super::adopt::{certificates_of, password_of};
use super::client::{Session, changing};
use super::error::Error;
use super::{ByKey, OnConflict, RestoreBackup, ServerLogin, operation};
use crate::pb::own;
use crate::pb::own::key_selection::Conflict;
use crate::pb::own::restore_into_request::{Method, Target};

/// How a target is logged in to, with what the flags name.
pub struct Login {
    /// ACL user.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Certificates that sign its own; empty for those of the system.
    pub tls_ca: String,
}

pub(super) fn login(args: &ServerLogin) -> Result<Login, Error> {
    let password = password_of(args.password_file.as_deref(), args.password_env.as_deref())?;
    let tls_ca = certificates_of(args.tls_ca.as_deref())?;
    Ok(Login { username: args.username.clone(), password, tls: args.tls || !tls_ca.is_empty(), tls_ca })
}

pub(super) async fn run(session: &Session, args: RestoreBackup) -> Result<(), Error> {
    let (wait, key) = (args.change.wait, args.change.idempotency_key.clone());
    let request = changing(request(args)?, key.as_deref())?;
    let operation = session.change(session.backups().restore_into(request)).await?;
    operation::settle(session, operation, wait).await
}

fn request(args: RestoreBackup) -> Result<own::RestoreIntoRequest, Error> {
    let Login { username, password, tls, tls_ca } = login(&args.login)?;
    let target = match (args.into.contains('/'), args.into.contains(':')) {
        (true, _) => Target::Host(args.into),
        (false, true) => Target::Address(args.into),
        (false, false) => Target::ClusterId(args.into),
    };
    let keys = by_key(args.keys, matches!(target, Target::ClusterId(_)));
    Ok(own::RestoreIntoRequest {
        backup_id: args.id,
        target: Some(target),
        credentials: password.map(|password| own::Credentials { username: username.unwrap_or_default(), password }),
        overwrite: args.consent.overwrite.is_some(),
        overwrite_keys: args.consent.overwrite.map_or(0, |keys| i64::try_from(keys).unwrap_or(i64::MAX)),
        shard_name: args.consent.shard.unwrap_or_default(),
        allow_replicas: args.consent.allow_replicas,
        tls,
        tls_ca,
        method: if keys.is_some() { Method::Keys } else { Method::Feed }.into(),
        keys,
    })
}

/// What is restored by key, when that is meant.
fn by_key(args: ByKey, is_cluster: bool) -> Option<own::KeySelection> {
    let ByKey { by_key, databases, patterns, types, on_conflict, dry_run, rate } = args;
    let on_conflict = on_conflict.map(|policy| match policy {
        OnConflict::Fail => Conflict::Fail,
        OnConflict::Skip => Conflict::Skip,
        OnConflict::Replace => Conflict::Replace,
    });
    let is_meant = by_key || is_cluster || dry_run || on_conflict.is_some() || rate.is_some();
    let is_selected = !databases.is_empty() || !patterns.is_empty() || !types.is_empty();
    (is_meant || is_selected).then(|| own::KeySelection {
        databases,
        patterns,
        types,
        on_conflict: on_conflict.unwrap_or(Conflict::Fail).into(),
        dry_run,
        bytes_per_second: rate.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{BackupCommand, Backups, Cli, Client, Command};
    use clap::Parser;

    fn asked(line: &str) -> own::RestoreIntoRequest {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Client(Client::Backup(Backups { command: BackupCommand::Restore(args), .. })) = cli.command else { panic!("{line}") };
        request(args).unwrap()
    }

    #[test]
    fn a_target_is_an_address_or_a_host_of_a_cluster() {
        let plain = asked("redkeep backup restore b --into 127.0.0.1:6379");
        assert_eq!(plain.target, Some(Target::Address("127.0.0.1:6379".to_owned())));
        assert_eq!((plain.overwrite, plain.overwrite_keys, plain.credentials, plain.tls), (false, 0, None, false));
        let host = asked("redkeep backup restore b --into main/10.0.0.1:6379 --overwrite 0 --shard shard2 --allow-replicas --tls");
        assert_eq!(host.target, Some(Target::Host("main/10.0.0.1:6379".to_owned())));
        assert_eq!((host.overwrite, host.overwrite_keys, host.shard_name.as_str(), host.allow_replicas, host.tls), (true, 0, "shard2", true, true));
    }

    #[test]
    fn a_flag_of_keys_or_a_cluster_means_by_key() {
        assert_eq!(asked("redkeep backup restore b --into 127.0.0.1:6379").method(), Method::Feed);
        let cluster = asked("redkeep backup restore b --into main --on-conflict replace");
        assert_eq!((cluster.target.clone(), cluster.method()), (Some(Target::ClusterId("main".to_owned())), Method::Keys));
        assert_eq!(cluster.keys.map(|keys| keys.on_conflict()), Some(Conflict::Replace));
        let some = asked("redkeep backup restore b --into 127.0.0.1:6379 --pattern a* --pattern b --type hash --database 3 --dry-run --rate 1000");
        let expected = own::KeySelection {
            databases: vec![3],
            patterns: vec!["a*".to_owned(), "b".to_owned()],
            types: vec!["hash".to_owned()],
            on_conflict: Conflict::Fail.into(),
            dry_run: true,
            bytes_per_second: 1000,
        };
        assert_eq!((some.method(), some.keys), (Method::Keys, Some(expected)));
        assert!(Cli::try_parse_from("redkeep backup restore b --into a:1 --overwrite 3 --by-key".split(' ')).is_err());
    }
}
