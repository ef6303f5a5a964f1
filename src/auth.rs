//! Who may: subjects, roles, and what a caller was let in for.
//!
//! Owns the order of the roles, the one check of a folder, and how a caller is recognised. Knows nothing of the wire: which
//! call needs which role is written down beside the services.

mod exchange;
mod gate;
mod jwks;
mod jwt;
mod pace;
pub mod tokens;
mod watched;

pub use exchange::{Account, Audiences, Credential, Issued, Key, LIFETIME};
pub use gate::{Gate, Mode, Options, StartError, Unrecognised};
pub use jwks::Source;
pub use jwt::{BadKey, Invalid, Terms, VerifyingKey};
pub use pace::{Rate, TooFast};

use crate::audit::CallRecord;
use crate::cluster::{FolderId, IdError};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The word that stands for every folder where roles are written down.
pub const EVERYWHERE: &str = "*";

/// Most folders in which one subject has a role.
pub const FOLDERS: usize = 1000;

/// Longest name of a subject, in characters.
pub const SUBJECT_CHARS: usize = 256;

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

/// Why what was written down is no set of roles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRoles {
    /// A folder cannot have this name.
    #[error("a folder {0}")]
    Folder(#[from] IdError),
    /// A role is not one of ours.
    #[error("a role {0}")]
    Role(#[from] NoSuchRole),
    /// A folder stands there twice.
    #[error("the folder {0} is named twice")]
    Twice(String),
    /// More folders than a subject can have.
    #[error("at most {FOLDERS} folders can be named")]
    TooMany,
}

impl Roles {
    /// Reads roles by folder; [`EVERYWHERE`] is every folder.
    ///
    /// # Errors
    ///
    /// [`BadRoles`], by condition.
    pub fn read<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, BadRoles> {
        let mut roles = Self::default();
        for (folder, role) in pairs {
            if roles.folders.len() >= FOLDERS {
                return Err(BadRoles::TooMany);
            }
            let role = role.parse()?;
            let before = if folder == EVERYWHERE { roles.everywhere.replace(role) } else { roles.folders.insert(folder.parse()?, role) };
            if before.is_some() {
                return Err(BadRoles::Twice(folder.to_owned()));
            }
        }
        Ok(roles)
    }

    /// Every folder with its role, [`EVERYWHERE`] first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Role)> {
        let everywhere = self.everywhere.map(|role| (EVERYWHERE, role));
        everywhere.into_iter().chain(self.folders.iter().map(|(folder, role)| (folder.as_str(), *role)))
    }

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

    /// The folder of a caller who has a role in exactly one.
    pub fn only_folder(&self) -> Option<&FolderId> {
        let Roles { everywhere, folders } = &self.identity.roles;
        let mut folders = folders.keys();
        if everywhere.is_some() { None } else { folders.next().filter(|_| folders.next().is_none()) }
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

    /// Whether the caller has a role in this folder, which need not be the one that the call needs elsewhere.
    ///
    /// # Errors
    ///
    /// [`Denied`], by condition.
    pub fn folder_as(&self, folder: &FolderId, needs: Role) -> Result<(), Denied> {
        self.call.set_folder(folder.as_str());
        self.check_as(folder, needs)
    }

    fn check(&self, folder: &FolderId) -> Result<(), Denied> {
        self.check_as(folder, self.needs)
    }

    fn check_as(&self, folder: &FolderId, needs: Role) -> Result<(), Denied> {
        match self.identity.roles.of(folder) {
            None => Err(Denied::Hidden),
            Some(role) if role < needs => Err(Denied::TooSmall(needs)),
            Some(_) => Ok(()),
        }
    }

    /// Whether the caller would be told of what is in this folder.
    pub fn sees(&self, folder: &FolderId) -> bool {
        self.check(folder).is_ok()
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
    fn one_call_may_need_different_roles_in_two_folders() {
        let who = identity(None, &[("shop", Role::Editor), ("news", Role::Restorer)]);
        let grant = Grant::new(who, Role::Editor).unwrap();
        let folder = |text: &str| text.parse::<FolderId>().unwrap();
        assert_eq!(grant.folder_as(&folder("news"), Role::Restorer), Ok(()));
        assert_eq!(grant.folder_as(&folder("shop"), Role::Admin), Err(Denied::TooSmall(Role::Admin)));
        assert_eq!(grant.folder_as(&folder("bank"), Role::Auditor), Err(Denied::Hidden));
    }

    #[test]
    fn only_one_folder_is_the_only_one() {
        let only = |everywhere, folders| Grant::new(identity(everywhere, folders), Role::Viewer).unwrap().only_folder().cloned();
        assert_eq!(only(None, &[("shop", Role::Editor)]), Some("shop".parse().unwrap()));
        assert_eq!(only(None, &[("shop", Role::Editor), ("news", Role::Auditor)]), None);
        assert_eq!(only(Some(Role::Viewer), &[("shop", Role::Editor)]), None);
        assert_eq!(only(Some(Role::Admin), &[]), None);
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
    fn roles_are_read_as_they_are_written() {
        let roles = Roles::read([("shop", "editor"), ("*", "viewer")]).unwrap();
        assert_eq!((roles.everywhere, roles.folders.len()), (Some(Role::Viewer), 1));
        assert_eq!(roles.iter().collect::<Vec<_>>(), [("*", Role::Viewer), ("shop", Role::Editor)]);
        for (pairs, words) in [
            (&[("Shop", "editor")][..], "a folder must"),
            (&[("shop", "owner")], "a role must be auditor"),
            (&[("shop", "editor"), ("shop", "viewer")], "shop is named twice"),
            (&[("*", "editor"), ("*", "viewer")], "* is named twice"),
        ] {
            assert!(Roles::read(pairs.iter().copied()).unwrap_err().to_string().contains(words), "{pairs:?}");
        }
        let names: Vec<String> = (0..=FOLDERS).map(|n| format!("f{n}")).collect();
        assert_eq!(Roles::read(names.iter().map(|name| (name.as_str(), "viewer"))), Err(BadRoles::TooMany));
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
