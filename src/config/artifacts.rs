//! The section `[artifacts]`, and the keys of a place, which `[[buckets]]` has, too.

use super::section::Section;
use crate::artifacts::place::{Checksum, Conditions, CredentialFiles, Kind, Objects, Place};
use crate::artifacts::{FOLDER_ROOTS, Options, SEGMENT_BYTES};
use crate::cluster::FolderId;
use crate::config::names::Authority;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Reads the section; faults are noted in it.
pub(super) fn read(mut section: Section<'_>, base: &Path) -> Options {
    let root = place(&mut section, base, Some("file:data/artifacts")).unwrap_or(Place::Files(PathBuf::new()));
    let folders = folders(section.section("folders"), base, &root);
    let compression = section.parsed("compression", "zstd:1");
    section.end();
    Options { root, folders, compression, segment_bytes: SEGMENT_BYTES }
}

fn folders(mut section: Section<'_>, base: &Path, root: &Place) -> BTreeMap<FolderId, Place> {
    let mut folders: BTreeMap<FolderId, Place> = BTreeMap::new();
    for (index, key) in section.keys().into_iter().enumerate() {
        if index == FOLDER_ROOTS {
            section.fault(&key, &format!("there must be at most {FOLDER_ROOTS} folders with a root of their own"));
        }
        let mut inner = section.section(&key);
        let place = place(&mut inner, base, None);
        if let Some(place) = &place
            && (place.meets(root) || folders.values().any(|other| place.meets(other)))
        {
            inner.fault("url", "must not lie inside of another root of artifacts or around it");
        }
        inner.end();
        match (key.parse::<FolderId>(), place) {
            (Ok(folder), Some(place)) => drop(folders.insert(folder, place)),
            (Ok(_), None) => {}
            (Err(fault), _) => section.fault(&key, &fault.to_string()),
        }
    }
    section.end();
    folders
}

/// Reads where something lies, and how that is reached.
pub(super) fn place(section: &mut Section<'_>, base: &Path, default: Option<&str>) -> Option<Place> {
    let Some(url) = section.optional_text("url").or_else(|| default.map(str::to_owned)) else {
        section.fault("url", "must be given");
        return None;
    };
    if let Some(path) = url.strip_prefix("file:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() {
            section.fault("url", "must be `file:` and a folder");
            return None;
        }
        return Some(Place::Files(base.join(path)));
    }
    let mut objects = match Objects::parse(&url) {
        Ok(objects) => objects,
        Err(fault) => {
            section.fault("url", &fault);
            return None;
        }
    };
    objects.allow_http = section.flag("allow_http");
    objects.endpoint = section.optional_text("endpoint");
    if let Some(endpoint) = &objects.endpoint
        && let Err(fault) = endpoint_fault(endpoint, objects.allow_http)
    {
        section.fault("endpoint", fault);
    }
    objects.ca = file(section, base, "ca");
    match objects.kind {
        Kind::S3 => {
            objects.region = section.optional_text("region");
            // Where the provider has it, the name of the bucket is part of the host's.
            objects.virtual_hosted = section.flag_or("virtual_hosted", objects.endpoint.is_none() && !objects.bucket.contains('.'));
            objects.checksum = section.parsed::<Checksum>("checksum", "none");
            objects.conditions = if section.flag_or("conditional_put", true) { Conditions::Kept } else { Conditions::Lacking };
        }
        Kind::Google => {}
        Kind::Azure => objects.account = section.optional_text("account").or_else(|| std::env::var("AZURE_STORAGE_ACCOUNT_NAME").ok()),
    }
    objects.credentials = credentials(section, base, objects.kind);
    if objects.kind == Kind::Azure && objects.account.is_none() {
        section.fault("account", "must name the account, or AZURE_STORAGE_ACCOUNT_NAME must");
    }
    Some(Place::Objects(Box::new(objects)))
}

fn credentials(section: &mut Section<'_>, base: &Path, kind: Kind) -> CredentialFiles {
    let mut read = |key: &str| file(section, base, key);
    let files = match kind {
        Kind::S3 => CredentialFiles {
            access_key: read("access_key_file"),
            secret_key: read("secret_key_file"),
            session_token: read("session_token_file"),
            ..CredentialFiles::default()
        },
        Kind::Google => CredentialFiles { service_account: read("service_account_file"), ..CredentialFiles::default() },
        Kind::Azure => CredentialFiles { access_key: read("access_key_file"), sas_token: read("sas_token_file"), ..CredentialFiles::default() },
    };
    match kind {
        Kind::S3 if files.access_key.is_some() != files.secret_key.is_some() => section.fault("access_key_file", "and secret_key_file must be given together"),
        Kind::S3 if files.session_token.is_some() && files.access_key.is_none() => {
            section.fault("session_token_file", "needs access_key_file and secret_key_file")
        }
        Kind::Azure if files.access_key.is_some() && files.sas_token.is_some() => section.fault("sas_token_file", "and access_key_file exclude each other"),
        Kind::S3 | Kind::Google | Kind::Azure => {}
    }
    files
}

/// A file that must be there.
fn file(section: &mut Section<'_>, base: &Path, key: &str) -> Option<PathBuf> {
    let path = base.join(section.optional_text(key)?);
    if let Err(fault) = std::fs::File::open(&path) {
        section.fault(key, &format!("{} cannot be read: {}", path.display(), fault.kind()));
    }
    Some(path)
}

/// Whether an endpoint is one that may be spoken to.
fn endpoint_fault(endpoint: &str, allow_http: bool) -> Result<(), &'static str> {
    let malformed = "must be a URL such as https://objects.example.com:9000, without a user, a query or a fragment";
    let (scheme, rest) = endpoint.split_once("://").ok_or(malformed)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority: Authority = authority.parse().map_err(|_| malformed)?;
    if path.contains(['?', '#', '@', '%']) || path.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(malformed);
    }
    match scheme {
        "https" => Ok(()),
        "http" if allow_http || authority.host.is_loopback() => Ok(()),
        "http" => Err("is without TLS and not on this machine: everybody on the way could read the data; set allow_http = true if that is meant"),
        _ => Err(malformed),
    }
}
