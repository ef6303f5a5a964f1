//! `redkeep token`: the tokens that callers log in with. Works on the token file, not on a service.

use super::error::{Error, Exit};
use super::table::Grid;
use super::{CreateToken, ListTokens, Output, RevokeTokens, Tokens, print, text};
use crate::auth::tokens::{self, EditError, Entry, Which};
use crate::auth::{Role, Roles};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

/// Carries out one of the commands.
pub(super) async fn run(command: Tokens) -> Result<(), Error> {
    match command {
        Tokens::Create(args) => create(args).await,
        Tokens::List(args) => list(args),
        Tokens::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: CreateToken) -> Result<(), Error> {
    let now = Utc::now();
    let roles = roles(&args.folders, &args.roles)?;
    let expires_at = args.expires.at(now);
    if expires_at.is_some_and(|at| at <= now) {
        return Err(Error::new(Exit::Usage, "the token would have expired already; give a time to come with --expires"));
    }
    let (token, entry) = tokens::create(&args.place.file, args.subject, roles, expires_at).await.map_err(failed)?;
    print::note(&format!("{}; it is not shown again", sentence(&entry, now)));
    print::answer(&token)
}

fn list(args: ListTokens) -> Result<(), Error> {
    let entries = tokens::list(&args.place.file).map_err(failed)?;
    let now = Utc::now();
    if args.output == Output::Json {
        return print::value(&json!({ "tokens": entries.iter().map(value).collect::<Vec<_>>() }));
    }
    let mut grid = Grid::new(&["ID", "SUBJECT", "ROLES", "CREATED", "EXPIRES"]);
    for entry in &entries {
        let expires = match entry.expires_at {
            Some(_) if entry.is_expired(now) => format!("{} (expired)", text::time(entry.expires_at)),
            Some(_) => text::time_and_distance(entry.expires_at, now),
            None => "never".to_owned(),
        };
        grid.row([entry.id(), text::escape(&entry.identity.subject), shown(&entry.identity.roles), text::time(Some(entry.created_at)), expires]);
    }
    print::answer(&grid.text())
}

async fn revoke(args: RevokeTokens) -> Result<(), Error> {
    let which = match (args.subject, args.id) {
        (Some(subject), _) => Which::Subject(subject),
        (None, Some(id)) => Which::Id(id),
        (None, None) => return Err(Error::new(Exit::Usage, "say which tokens with --subject or --id")),
    };
    let revoked = tokens::revoke(&args.place.file, &which).await.map_err(failed)?;
    let lines: Vec<String> = revoked.iter().map(|entry| format!("revoked {} of {}", entry.id(), text::escape(&entry.identity.subject))).collect();
    print::answer(&lines.join("\n"))
}

/// Folders with their roles: one for each, or one for all.
fn roles(folders: &[String], roles: &[Role]) -> Result<Roles, Error> {
    let usage = |what: String| Error::new(Exit::Usage, what);
    if roles.len() != 1 && roles.len() != folders.len() {
        return Err(usage(format!("{} roles are given for {} folders; give one for each, or one for all", roles.len(), folders.len())));
    }
    let pairs = folders.iter().zip(roles.iter().cycle()).map(|(folder, role)| (folder.as_str(), role.as_str()));
    Roles::read(pairs).map_err(|fault| usage(fault.to_string()))
}

fn shown(roles: &Roles) -> String {
    roles.iter().map(|(folder, role)| format!("{folder}={role}")).collect::<Vec<_>>().join(",")
}

fn sentence(entry: &Entry, now: DateTime<Utc>) -> String {
    let expires = entry.expires_at.map_or_else(|| "never expires".to_owned(), |_| format!("expires {}", text::time_and_distance(entry.expires_at, now)));
    format!("token {} for {}: {}; {expires}", entry.id(), text::escape(&entry.identity.subject), shown(&entry.identity.roles))
}

fn value(entry: &Entry) -> Value {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let roles: Map<String, Value> = entry.identity.roles.iter().map(|(folder, role)| (folder.to_owned(), json!(role.as_str()))).collect();
    let mut shown = json!({ "id": entry.id(), "subject": entry.identity.subject, "roles": roles, "createdAt": time(entry.created_at) });
    if let Some(at) = entry.expires_at {
        shown["expiresAt"] = json!(time(at));
    }
    shown
}

fn failed(fault: EditError) -> Error {
    let exit = match &fault {
        EditError::NoSuchToken(_) => Exit::NotFound,
        EditError::Ambiguous(_) => Exit::Usage,
        EditError::Busy(_) | EditError::Full => Exit::Refused,
        EditError::File(..) | EditError::Write(..) | EditError::Random => Exit::Failed,
    };
    Error::new(exit, fault.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn each_folder_has_its_role_or_all_have_one() {
        let folders = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let read = |names: &[&str], given: &[Role]| roles(&folders(names), given).map(|roles| shown(&roles)).map_err(|error| error.exit());
        assert_eq!(read(&["shop", "*"], &[Role::Editor, Role::Viewer]).unwrap(), "*=viewer,shop=editor");
        assert_eq!(read(&["shop", "news"], &[Role::Editor]).unwrap(), "news=editor,shop=editor");
        for (names, given) in [
            (&["shop"][..], &[Role::Editor, Role::Viewer][..]),
            (&["shop", "news", "*"], &[Role::Editor, Role::Viewer]),
            (&["shop", "shop"], &[Role::Editor]),
            (&["Shop"], &[Role::Editor]),
        ] {
            assert_eq!(read(names, given), Err(Exit::Usage), "{names:?}");
        }
    }
}
