//! Where a root is: a folder of this machine, or a prefix in the bucket of a store, and how that is reached.
//!
//! Holds names of files with credentials and never what is in them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where objects lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a folder of this machine.
    Files(PathBuf),
    /// In the bucket of a store.
    Objects(Box<Objects>),
}

impl From<PathBuf> for Place {
    fn from(root: PathBuf) -> Self {
        Self::Files(root)
    }
}

impl Place {
    /// Whether an object of one could be an object of the other, as far as their names tell.
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Files(one), Self::Files(other)) => one.starts_with(other) || other.starts_with(one),
            (Self::Objects(one), Self::Objects(other)) => {
                let inside =
                    |inner: &str, outer: &str| outer.is_empty() || inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
                one.is_beside(other) && (inside(&one.prefix, &other.prefix) || inside(&other.prefix, &one.prefix))
            }
            (Self::Files(_), Self::Objects(_)) | (Self::Objects(_), Self::Files(_)) => false,
        }
    }
}

/// The URL, and what else tells where it leads.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(root) => write!(f, "file:{}", root.display()),
            Self::Objects(objects) => objects.fmt(f),
        }
    }
}

/// The kinds of stores that are reached over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Amazon S3, and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Kind {
    /// What its URLs begin with.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

/// Which checksum a store keeps of each part and checks as it arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// None. What is sent is still held against the SHA-256 in the request's signature.
    #[default]
    None,
    /// SHA-256.
    Sha256,
    /// CRC-64/NVME.
    Crc64Nvme,
}

impl FromStr for Checksum {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "sha256" => Ok(Self::Sha256),
            "crc64nvme" => Ok(Self::Crc64Nvme),
            _ => Err("must be \"none\", \"sha256\" or \"crc64nvme\""),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Sha256 => "sha256",
            Self::Crc64Nvme => "crc64nvme",
        })
    }
}

/// Whether a store can be told to write only where nothing lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conditions {
    /// It can.
    #[default]
    Kept,
    /// It cannot: it is asked first and written to then, and between the two another could write.
    Lacking,
}

/// Files that hold credentials. They are read again when they change. Where none is named, the environment tells, and where
/// that does not, the machine that this runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    /// S3: the id of the access key. Azure: the key of the account.
    pub access_key: Option<PathBuf>,
    /// S3: the secret access key.
    pub secret_key: Option<PathBuf>,
    /// S3: the token of a session.
    pub session_token: Option<PathBuf>,
    /// Azure: a shared access signature.
    pub sas_token: Option<PathBuf>,
    /// Google: the key of a service account, as JSON.
    pub service_account: Option<PathBuf>,
}

impl CredentialFiles {
    /// Those that are named.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        [&self.access_key, &self.secret_key, &self.session_token, &self.sas_token, &self.service_account].into_iter().flatten().map(PathBuf::as_path)
    }
}

/// A prefix in the bucket of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    /// What speaks there.
    pub kind: Kind,
    /// The bucket; the container of Azure.
    pub bucket: String,
    /// Names with `/` between them that every key begins with; may be empty.
    pub prefix: String,
    /// The account of Azure; else the environment tells.
    pub account: Option<String>,
    /// Where the store is, when not where its provider has it.
    pub endpoint: Option<String>,
    /// The region of S3; else the environment tells.
    pub region: Option<String>,
    /// Whether the endpoint may be spoken to without TLS.
    pub allow_http: bool,
    /// Whether the bucket is part of the host's name.
    pub virtual_hosted: bool,
    /// Checksum that the store is to keep.
    pub checksum: Checksum,
    /// Whether it keeps conditions.
    pub conditions: Conditions,
    /// File with certificates that are believed besides those of the system.
    pub ca: Option<PathBuf>,
    /// Where credentials are.
    pub credentials: CredentialFiles,
}

impl Objects {
    /// Longest name of a bucket, in bytes.
    ///
    /// Source: Google Cloud Storage, names with dots; the others allow 63.
    pub const BUCKET_BYTES: usize = 222;

    /// Longest prefix, in bytes: with the longest key of ours below it, it is shorter than the 1024 that every store allows.
    pub const PREFIX_BYTES: usize = 512;

    /// Reads `s3://bucket/prefix`, `gs://...` or `az://...`; all else has its default.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (kind, rest) = [Kind::S3, Kind::Google, Kind::Azure]
            .into_iter()
            .find_map(|kind| Some((kind, url.strip_prefix(kind.scheme())?.strip_prefix("://")?)))
            .ok_or("must be `file:` and a folder, or `s3://`, `gs://` or `az://` and a bucket")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
        if bucket.is_empty() || bucket.len() > Self::BUCKET_BYTES || !bucket.chars().all(legal) {
            return Err(format!("must name a bucket after `{}://`, with lower-case letters, digits, `-`, `.` and `_`", kind.scheme()));
        }
        let whole = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(|c| c.is_ascii_alphanumeric() || "-._=+@ ".contains(c));
        if prefix.len() > Self::PREFIX_BYTES || !(prefix.is_empty() || prefix.split('/').all(whole)) {
            return Err("has a prefix with an empty part, or with other characters than letters, digits, blanks and `-._=+@`".to_owned());
        }
        Ok(Self {
            kind,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            account: None,
            endpoint: None,
            region: None,
            allow_http: false,
            virtual_hosted: false,
            checksum: Checksum::default(),
            conditions: Conditions::default(),
            ca: None,
            credentials: CredentialFiles::default(),
        })
    }

    /// Whether it is another prefix of the same bucket, reached in the same way.
    pub fn is_beside(&self, other: &Self) -> bool {
        (self.kind, &self.bucket, &self.account, &self.endpoint) == (other.kind, &other.bucket, &other.account, &other.endpoint)
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.kind.scheme(), self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        if let Some(account) = &self.account {
            write!(f, ", account {account}")?;
        }
        if let Some(endpoint) = &self.endpoint {
            write!(f, ", endpoint {endpoint}")?;
        }
        if let Some(region) = &self.region {
            write!(f, ", region {region}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Place {
        match url.strip_prefix("file:") {
            Some(path) => Place::Files(path.into()),
            None => Place::Objects(Box::new(Objects::parse(url).unwrap())),
        }
    }

    #[test]
    fn urls() {
        for (url, shown) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("gs://my.bucket/a/b", "gs://my.bucket/a/b"),
            ("az://box/redkeep/", "az://box/redkeep"),
        ] {
            assert_eq!(place(url).to_string(), shown);
        }
        for url in
            ["", "s3:", "s3://", "s3:///a", "s3://B", "s3://a?b", "s3://user:word@bucket", "s3://b//a", "s3://b/a/../c", "s3://b/a%2f", "ftp://b", "http://b"]
        {
            assert!(Objects::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn places_that_meet() {
        for (one, other, meets) in [
            ("s3://a", "s3://a/b", true),
            ("s3://a/b", "s3://a/b", true),
            ("s3://a/b", "s3://a/b/c", true),
            ("s3://a/b", "s3://a/bc", false),
            ("s3://a", "s3://b", false),
            ("s3://a", "gs://a", false),
            ("file:/a", "file:/a/b", true),
            ("file:/a", "file:/ab", false),
            ("file:/a", "s3://a", false),
        ] {
            assert_eq!((place(one).meets(&place(other)), place(other).meets(&place(one))), (meets, meets), "{one} {other}");
        }
    }
}
