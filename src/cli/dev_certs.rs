//! `redkeep dev-certs`: certificates to try TLS with on one machine, from an authority whose key is forgotten at once.

use super::error::{Error, Exit};
use super::print;
use chrono::{Datelike, Days, NaiveDate, Utc};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How long the certificates are good.
const DAYS: u64 = 365;

/// The names of the service.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A file with what it holds.
struct File {
    name: &'static str,
    content: String,
    mode: u32,
}

impl File {
    fn open(name: &'static str, content: String) -> Self {
        Self { name, content, mode: 0o644 }
    }

    fn secret(name: &'static str, content: String) -> Self {
        Self { name, content, mode: 0o600 }
    }
}

/// Writes the files, and tells what to do with them.
pub(super) fn write(folder: &Path) -> Result<(), Error> {
    let files = certificates(Utc::now().date_naive()).map_err(|fault| Error::failed(format!("the certificates cannot be made: {fault}")))?;
    // Told before anything is written; each file is created anew all the same.
    if let Some(file) = files.iter().find(|file| folder.join(file.name).symlink_metadata().is_ok()) {
        let told = Error::new(Exit::Refused, format!("{} is there already; nothing was written", folder.join(file.name).display()));
        return Err(told.with_hint("name another folder, or remove the files"));
    }
    std::fs::create_dir_all(folder).map_err(|fault| Error::failed(format!("{} cannot be made: {}", folder.display(), fault.kind())))?;
    for file in &files {
        let path = folder.join(file.name);
        let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&path);
        let written = opened.and_then(|mut opened| opened.write_all(file.content.as_bytes()).and_then(|()| opened.sync_all()));
        written.map_err(|fault| Error::failed(format!("{} cannot be written: {}", path.display(), fault.kind())))?;
    }
    print::answer(&advice(folder))
}

/// An authority, and a certificate from it for a service and for a client.
fn certificates(today: NaiveDate) -> Result<Vec<File>, rcgen::Error> {
    let mut authority = parameters("Redkeep development authority", &[], today)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let sign = |name: &str, names: &[&str], usage: ExtendedKeyUsagePurpose| {
        let mut leaf = parameters(name, names, today)?;
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok::<_, rcgen::Error>((leaf.signed_by(&key, &authority)?.pem(), key.serialize_pem()))
    };
    let (server, server_key) = sign("localhost", &NAMES, ExtendedKeyUsagePurpose::ServerAuth)?;
    let (client, client_key) = sign("Redkeep development client", &[], ExtendedKeyUsagePurpose::ClientAuth)?;
    Ok(vec![
        File::open("ca.pem", authority.pem()),
        File::open("server.pem", server),
        File::secret("server-key.pem", server_key),
        File::open("client.pem", client),
        File::secret("client-key.pem", client_key),
    ])
}

/// From yesterday on, because clocks differ.
fn parameters(name: &str, names: &[&str], today: NaiveDate) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let date = |day: NaiveDate| rcgen::date_time_ymd(day.year(), day.month() as u8, day.day() as u8);
    parameters.not_before = date(today.checked_sub_days(Days::new(1)).unwrap_or(today));
    parameters.not_after = date(today.checked_add_days(Days::new(DAYS)).unwrap_or(today));
    Ok(parameters)
}

fn advice(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Written to {folder}: ca.pem, server.pem, server-key.pem, client.pem, client-key.pem; good for a year, for this machine only.\n\n\
         In redkeep.toml (paths are relative to it):\n\n  [server.tls]\n  cert = \"{folder}/server.pem\"\n  key = \"{folder}/server-key.pem\"\n  \
         # client_ca = \"{folder}/ca.pem\"        takes client certificates too; client_auth = \"required\" demands them\n\n\
         Then:\n\n  redkeep backup list --endpoint https://localhost:7379 --ca {folder}/ca.pem\n  \
         grpcurl -cacert {folder}/ca.pem localhost:7379 list\n  curl --cacert {folder}/ca.pem https://localhost:7379/"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_written_once_and_keys_are_for_their_owner() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("deep/tls");
        write(&folder).unwrap();
        for (name, mode) in [("ca.pem", 0o044), ("server.pem", 0o044), ("server-key.pem", 0), ("client.pem", 0o044), ("client-key.pem", 0)] {
            let metadata = std::fs::metadata(folder.join(name)).unwrap();
            // The mask of the process may take more away.
            assert_eq!(metadata.permissions().mode() & 0o077 & !mode, 0, "{name}");
        }
        let before = std::fs::read(folder.join("server.pem")).unwrap();
        std::fs::remove_file(folder.join("ca.pem")).unwrap();
        let error = write(&folder).unwrap_err();
        assert_eq!(error.exit(), Exit::Refused);
        assert_eq!(std::fs::read(folder.join("server.pem")).unwrap(), before);
        assert!(!folder.join("ca.pem").exists(), "nothing was written");
    }
}
