//! `redkeep cluster adopt`, `update-connection` and `forget`.
//!
//! A password comes from a file, standard input or the environment: other users of the machine can read the command line.

use super::client::{Session, changing};
use super::error::{Error, Exit};
use super::{AdoptCluster, ForgetCluster, Reach, UpdateConnection, labels, operation};
use crate::pb::own;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longest password, in bytes, without the end of its line; the service takes as many characters.
const PASSWORD_BYTES: u64 = 16 * 1024;

/// Longest file of certificates, in bytes; the service takes as many characters.
const CERTIFICATE_BYTES: u64 = 64 * 1024;

pub(super) async fn adopt(session: &Session, args: AdoptCluster) -> Result<(), Error> {
    let request = own::AdoptClusterRequest {
        folder_id: session.folder.clone(),
        cluster_id: args.id.unwrap_or_default(),
        name: args.name.unwrap_or_default(),
        description: args.description.unwrap_or_default(),
        labels: labels(args.labels)?,
        connection: Some(connection(args.reach, NoPassword::Unsaid)?),
        allow_primary: args.allow_primary,
        zone: args.zone.unwrap_or_default(),
    };
    let request = changing(request, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.fleet().adopt_cluster(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

pub(super) async fn update_connection(session: &Session, args: UpdateConnection) -> Result<(), Error> {
    let without = if args.no_credentials { NoPassword::Said } else { NoPassword::Unsaid };
    let request = own::UpdateConnectionRequest { cluster_id: args.id, connection: Some(connection(args.reach, without)?) };
    let request = changing(request, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.fleet().update_connection(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

pub(super) async fn forget(session: &Session, args: ForgetCluster) -> Result<(), Error> {
    let request = changing(own::ForgetClusterRequest { cluster_id: args.id }, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.fleet().forget_cluster(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

/// What it means that no password is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoPassword {
    /// Nothing was said of one.
    Unsaid,
    /// There is none from here on.
    Said,
}

fn connection(reach: Reach, without: NoPassword) -> Result<own::Connection, Error> {
    let Reach { nodes, login } = reach;
    let password = password_of(login.password_file.as_deref(), login.password_env.as_deref())?;
    let credentials = match password {
        Some(password) => Some(own::Credentials { username: login.username.unwrap_or_default(), password }),
        None => (without == NoPassword::Said).then(own::Credentials::default),
    };
    let tls_ca = certificates_of(login.tls_ca.as_deref())?;
    Ok(own::Connection { nodes, credentials, tls: login.tls || !tls_ca.is_empty(), tls_ca })
}

/// The password that flags name; `None` when they name none.
pub(super) fn password_of(file: Option<&Path>, variable: Option<&str>) -> Result<Option<String>, Error> {
    match (file, variable) {
        (Some(path), _) if path.as_os_str() == "-" => password(std::io::stdin(), "standard input").map(Some),
        (Some(path), _) => password(open(path)?, &path.display().to_string()).map(Some),
        (None, Some(variable)) => {
            let value = std::env::var(variable).map_err(|_| Error::new(Exit::Usage, format!("the variable {variable} is not set, or is no text")))?;
            password(value.as_bytes(), variable).map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// The certificates of a file; empty when there is none.
pub(super) fn certificates_of(file: Option<&Path>) -> Result<String, Error> {
    file.map_or(Ok(String::new()), |path| text(open(path)?, &path.display().to_string(), CERTIFICATE_BYTES))
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|fault| Error::new(Exit::Usage, format!("{} cannot be read: {}", path.display(), fault.kind())))
}

/// A password; the end of its line does not belong to it.
fn password(from: impl Read, name: &str) -> Result<String, Error> {
    let text = text(from, name, PASSWORD_BYTES + 2)?;
    let password = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if password.is_empty() { Err(Error::new(Exit::Usage, format!("{name} holds no password"))) } else { Ok(password.to_owned()) }
}

fn text(from: impl Read, name: &str, limit: u64) -> Result<String, Error> {
    let mut text = String::new();
    from.take(limit + 1).read_to_string(&mut text).map_err(|fault| Error::new(Exit::Usage, format!("{name} cannot be read as text: {}", fault.kind())))?;
    if text.len() as u64 > limit { Err(Error::new(Exit::Usage, format!("{name} has more than {limit} bytes"))) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use crate::cli::ServerLogin;

    #[test]
    fn the_end_of_the_line_is_no_password() {
        for (text, expected) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), (" a b \n", " a b "), ("a\n\n", "a\n")] {
            assert_eq!(password(text.as_bytes(), "it").unwrap(), expected);
        }
        for text in ["", "\n", "\r\n"] {
            assert_eq!(password(text.as_bytes(), "it").unwrap_err().exit(), Exit::Usage, "{text:?}");
        }
        assert!(password("x".repeat(20_000).as_bytes(), "it").is_err());
    }

    #[test]
    fn saying_nothing_of_credentials_is_not_saying_that_there_are_none() {
        let login = |password_file| ServerLogin { username: None, password_file, password_env: None, tls: false, tls_ca: None };
        let reach = |password_file| Reach { nodes: vec!["a:1".to_owned()], login: login(password_file) };
        assert_eq!(connection(reach(None), NoPassword::Unsaid).unwrap().credentials, None);
        assert_eq!(connection(reach(None), NoPassword::Said).unwrap().credentials, Some(own::Credentials::default()));
        let lost = reach(Some("/nowhere/at/all".into()));
        assert_eq!(connection(lost, NoPassword::Unsaid).unwrap_err().exit(), Exit::Usage);
    }
}
