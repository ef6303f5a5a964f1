//! Who may: subjects, roles, and what a caller was let in for.
//!
//! Owns the order of the roles and the one check of a folder. Knows nothing of the wire: which call needs which role is
//! written down beside the services.

use crate::audit::CallRecord;
use crate::cluster::FolderId;
use axum::http::HeaderMap;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a subject may do in a folder; each role includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees clusters, hosts and operations; no backups.
    Auditor,
    /// Sees backups, too.
    Viewer,
    /// Reads the data of backups: download links, restores to new places.
    Restorer,
    /// Makes, changes and deletes backups and clusters.
    Editor,
    /// Everything.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 5] = [Self::Auditor, Self::Viewer, Self::Restorer, Self::Editor, Self::Admin];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Viewer => "viewer",
            Self::Restorer => "restorer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be auditor, viewer, restorer, editor or admin")]
pub struct NoSuchRole;

impl FromStr for Role {
    type Err = NoSuchRole;
    fn from_str(text: &str) -> Result<Self, NoSuchRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(NoSuchRole)
    }
}

/// The roles of a subject by folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Role in every folder, if there is one.
    pub everywhere: Option<Role>,
    /// Roles in single folders.
    pub folders: BTreeMap<FolderId, Role>,
}

impl Roles {
    /// The role in a folder; the greater one where two are given.
    pub fn of(&self, folder: &FolderId) -> Option<Role> {
        self.everywhere.max(self.folders.get(folder).copied())
    }

    /// The greatest role in any folder.
    pub fn greatest(&self) -> Option<Role> {
        self.folders.values().copied().max().max(self.everywhere)
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the subject, 1 to 256 characters; no secret.
    pub subject: String,
    /// What it may do.
    pub roles: Roles,
}

impl Identity {
    /// The caller while nobody has to log in: may do everything.
    pub fn anonymous() -> Self {
        Self { subject: "anonymous".to_owned(), roles: Roles { everywhere: Some(Role::Admin), folders: BTreeMap::new() } }
    }
}

/// Why a caller may not touch a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller has no role in the folder: for the caller the thing does not exist.
    #[error("not visible")]
    Hidden,
    /// The caller's role in the folder is too small.
    #[error("this call needs the role {0}")]
    TooSmall(Role),
}

/// A caller who was let in to one call, with the role that the call needs in the folder of what it touches.
///
/// Nothing is read or changed for a caller before [`Grant::folder`] has said yes to its folder.
#[derive(Clone, Debug)]
pub struct Grant {
    identity: Arc<Identity>,
    needs: Role,
    call: CallRecord,
}

impl Grant {
    /// Lets `identity` in to a call that needs a role.
    ///
    /// # Errors
    ///
    /// [`Denied::TooSmall`] when the caller has that role in no folder at all.
    pub fn new(identity: Arc<Identity>, needs: Role) -> Result<Self, Denied> {
        if identity.roles.greatest() < Some(needs) {
            return Err(Denied::TooSmall(needs));
        }
        Ok(Self { identity, needs, call: CallRecord::default() })
    }

    /// The same, with the record of the call that the caller was let in to: it is told which folder the call touches.
    pub fn recorded(self, call: CallRecord) -> Self {
        Self { call, ..self }
    }

    /// The caller's name.
    pub fn subject(&self) -> &str {
        &self.identity.subject
    }

    /// Whether the call may touch what is in this folder.
    ///
    /// # Errors
    ///
    /// [`Denied`], by condition.
    pub fn folder(&self, folder: &FolderId) -> Result<(), Denied> {
        self.call.set_folder(folder.as_str());
        self.check(folder)
    }

    fn check(&self, folder: &FolderId) -> Result<(), Denied> {
        match self.identity.roles.of(folder) {
            None => Err(Denied::Hidden),
            Some(role) if role < self.needs => Err(Denied::TooSmall(self.needs)),
            Some(_) => Ok(()),
        }
    }

    /// Whether the caller would be told of what is in this folder.
    pub fn sees(&self, folder: &FolderId) -> bool {
        self.check(folder).is_ok()
    }
}

/// Why a caller was not recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrecognised {}

/// Tells who calls by what a request carries.
#[derive(Debug)]
pub enum Gate {
    /// Nobody has to log in.
    Open,
}

impl Gate {
    /// Who sent a request with these headers.
    ///
    /// # Errors
    ///
    /// [`Unrecognised`], by condition.
    pub async fn identify(&self, _headers: &HeaderMap) -> Result<Arc<Identity>, Unrecognised> {
        match self {
            Self::Open => Ok(Arc::new(Identity::anonymous())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn identity(everywhere: Option<Role>, folders: &[(&str, Role)]) -> Arc<Identity> {
        let folders = folders.iter().map(|(folder, role)| (folder.parse().unwrap(), *role)).collect();
        Arc::new(Identity { subject: "someone".into(), roles: Roles { everywhere, folders } })
    }

    #[test]
    fn a_grant_reaches_the_folders_of_its_role_only() {
        let who = identity(None, &[("shop", Role::Editor), ("news", Role::Viewer)]);
        let grant = Grant::new(Arc::clone(&who), Role::Editor).unwrap();
        assert_eq!(grant.folder(&"shop".parse().unwrap()), Ok(()));
        assert_eq!(grant.folder(&"news".parse().unwrap()), Err(Denied::TooSmall(Role::Editor)));
        assert_eq!(grant.folder(&"bank".parse().unwrap()), Err(Denied::Hidden));
        assert_eq!(Grant::new(who, Role::Admin).unwrap_err(), Denied::TooSmall(Role::Admin));
    }

    #[test]
    fn the_greater_role_counts() {
        let who = identity(Some(Role::Viewer), &[("shop", Role::Admin), ("news", Role::Auditor)]);
        let folder = |text: &str| text.parse::<FolderId>().unwrap();
        assert_eq!(who.roles.of(&folder("shop")), Some(Role::Admin));
        assert_eq!(who.roles.of(&folder("news")), Some(Role::Viewer));
        assert_eq!(who.roles.of(&folder("bank")), Some(Role::Viewer));
        assert!(Grant::new(identity(None, &[]), Role::Auditor).is_err());
    }

    #[test]
    fn every_role_has_one_word() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert_eq!("owner".parse::<Role>(), Err(NoSuchRole));
        assert!(Role::ALL.is_sorted());
    }
}
