//! What the backup account may do: which rights a backup needs, which it can make use of, and the line that gives those that are
//! missing.
//!
//! Nothing is tried that could make the server fork. A server that can tell (ACL DRYRUN, from 7.0 on) is asked about each right;
//! another is asked the harmless questions themselves, and whether it takes PSYNC is told by its refusal, which costs nothing.

use super::connection::{Connection, DEFAULT_USER, Reply};
use super::facts::{Facts, Version};
use super::{Error, clean};
use crate::cluster::Role;

/// First version that tells what an account may do, without its doing it.
const DRYRUN_SINCE: Version = Version(7, 0, 0);

/// Longest name of a command that is taken from a refusal, in bytes.
const COMMAND_BYTES: usize = 64;

/// What a right is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// There is no backup without it.
    Backup,
    /// Without it a fault is found late, or not at all.
    Preflight,
    /// Without it a part of what stands beside the data is left out of the backup.
    SideState,
}

/// A right, as the account is given it.
#[derive(Debug, PartialEq, Eq)]
pub struct Right {
    /// The rule without its `+`, such as `psync` or `config|get`.
    pub rule: &'static str,
    /// What it is for.
    pub need: Need,
    /// A command that needs the right, for ACL DRYRUN.
    question: &'static [&'static [u8]],
    /// A command that needs the right and does no harm, for servers that have no ACL DRYRUN.
    harmless: Option<&'static [&'static [u8]]>,
}

impl Right {
    const fn new(rule: &'static str, need: Need, question: &'static [&'static [u8]]) -> Self {
        Self { rule, need, question, harmless: Some(question) }
    }

    /// The command as people write it.
    fn command(&self) -> String {
        self.rule.to_ascii_uppercase().replace('|', " ")
    }
}

/// The right to ask what an account may do. It cannot be asked about by itself.
static DRYRUN: Right = Right { rule: "acl|dryrun", need: Need::Preflight, question: &[], harmless: None };

/// The right to ask who one is.
static WHOAMI: Right = Right::new("acl|whoami", Need::Preflight, &[b"ACL", b"WHOAMI"]);

/// The right to ask whether Sentinel watches; of use on a primary.
static NUMSUB: Right = Right::new("pubsub|numsub", Need::Preflight, &[b"PUBSUB", b"NUMSUB", b"__sentinel__:hello"]);

/// The right to ask who owns which slots; needed in cluster mode.
static NODES: Right = Right::new("cluster|nodes", Need::Backup, &[b"CLUSTER", b"NODES"]);

/// The others, in the order in which they are told.
static RIGHTS: [Right; 7] = [
    Right::new("ping", Need::Backup, &[b"PING"]),
    Right::new("info", Need::Backup, &[b"INFO", b"server"]),
    Right::new("replconf", Need::Backup, &[b"REPLCONF", b"capa", b"eof"]),
    Right { rule: "psync", need: Need::Backup, question: &[b"PSYNC", b"?", b"-1"], harmless: None },
    Right::new("config|get", Need::SideState, &[b"CONFIG", b"GET", b"databases"]),
    Right::new("module|list", Need::SideState, &[b"MODULE", b"LIST"]),
    // The list has digests of passwords, so it is not asked for: servers before 7.0 refuse an argument too many after they have
    // judged the right, and later ones before.
    Right { rule: "acl|list", need: Need::SideState, question: &[b"ACL", b"LIST"], harmless: Some(&[b"ACL", b"LIST", b"?"]) },
];

/// What an account may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// The account.
    pub user: String,
    /// The rights that it lacks.
    pub rights: Vec<&'static Right>,
    /// Rights of which nobody can tell before they are used.
    pub untold: Vec<&'static Right>,
}

impl Lacking {
    /// What is missing for a purpose, as a sentence and as the line that gives it; `None` when nothing is.
    pub fn of(&self, need: Need) -> Option<(String, String)> {
        let rights: Vec<_> = self.rights.iter().copied().filter(|right| right.need == need).collect();
        (!rights.is_empty()).then(|| (format!("user {} may not run {}", self.user, commands(&rights)), line(&self.user, &rights)))
    }

    /// What cannot be told before a backup, as [`Lacking::of`].
    pub fn unknown(&self) -> Option<(String, String)> {
        let told = format!("user {} may run {}", self.user, commands(&self.untold));
        (!self.untold.is_empty()).then(|| (told, line(&self.user, &self.untold)))
    }

    /// The error that a backup would meet, if it would meet one.
    fn refusal(&self, host: &str) -> Option<Error> {
        let (what, line) = self.of(Need::Backup)?;
        Some(Error::Permission { host: host.to_owned(), what: format!("{what}; allow it with: {line}") })
    }
}

/// `PING, INFO and PSYNC`.
fn commands(rights: &[&Right]) -> String {
    let names: Vec<_> = rights.iter().map(|right| right.command()).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The whole line, to be sent to the server as it stands.
fn line(user: &str, rights: &[&Right]) -> String {
    let rules: Vec<_> = rights.iter().map(|right| format!("+{}", right.rule)).collect();
    format!("ACL SETUSER {user} {}", rules.join(" "))
}

/// What the text of a refusal for want of a right means, with the line that gives the right where the text names the command.
pub(super) fn told(text: &str, user: Option<&str>) -> String {
    let quoted = text.split('\'').nth(1).filter(|name| !name.is_empty() && name.len() <= COMMAND_BYTES);
    match (quoted, user) {
        (Some(command), Some(user)) => {
            let name = command.to_ascii_uppercase().replace('|', " ");
            format!("user {user} may not run {name}; allow it with: ACL SETUSER {user} +{}", command.to_ascii_lowercase())
        }
        (Some(command), None) => {
            format!("it may not run {}; allow it with the ACL rule +{}", command.to_ascii_uppercase(), command.to_ascii_lowercase())
        }
        (None, _) => text.to_owned(),
    }
}

/// Asks which rights the account of a connection lacks; `facts` are absent when it may not even ask for those.
///
/// # Errors
///
/// [`Error::Permission`] with every right without which there is no backup, [`Error::Unsupported`] when the server does not know
/// PSYNC by its name, else what the connection says.
pub async fn ask(connection: &mut Connection, facts: Option<&Facts>) -> Result<Lacking, Error> {
    let host = connection.host().to_owned();
    let mut lacking = Lacking { user: clean(connection.user()), rights: Vec::new(), untold: Vec::new() };
    match connection.command(WHOAMI.question).await? {
        Reply::Error(text) if is_denied(&text) => lacking.rights.push(&WHOAMI),
        reply => lacking.user = reply.text().map_or(lacking.user, |user| clean(&user)),
    }
    // An error means that DRYRUN itself is denied, or unknown to an old server.
    let mut can_tell = true;
    let on_primary = facts.is_some_and(|facts| facts.role == Role::Primary);
    let in_cluster = facts.is_some_and(|facts| facts.cluster_mode);
    for right in RIGHTS.iter().chain(in_cluster.then_some(&NODES)).chain(on_primary.then_some(&NUMSUB)) {
        if can_tell {
            let user = lacking.user.clone();
            let mut question: Vec<&[u8]> = vec![b"ACL", b"DRYRUN", user.as_bytes()];
            question.extend_from_slice(right.question);
            match connection.command(&question).await? {
                Reply::Error(text) if is_unknown(&text) && right.rule == "psync" => {
                    let what = "it does not know PSYNC by this name, so rename-command has renamed it or taken it away; a backup needs it";
                    return Err(Error::Unsupported { host, what: what.to_owned() });
                }
                // Another command that it does not know: no right is missing for that.
                Reply::Error(text) if is_unknown(&text) => continue,
                Reply::Error(text) => {
                    can_tell = false;
                    if is_denied(&text) && facts.is_none_or(|facts| facts.version >= DRYRUN_SINCE) {
                        lacking.rights.push(&DRYRUN);
                    }
                }
                // The answer about a forbidden command is a text that is no error.
                reply => {
                    if reply.text().is_some_and(|text| text.contains("no permissions")) {
                        lacking.rights.push(right);
                    }
                    continue;
                }
            }
        }
        match right.harmless {
            // Whoever is let in without a name may do everything, unless somebody took pains.
            None if lacking.user == DEFAULT_USER => {}
            None => lacking.untold.push(right),
            Some(question) => match connection.command(question).await? {
                Reply::Error(text) if is_denied(&text) => lacking.rights.push(right),
                // The number of arguments was judged before the right.
                Reply::Error(text) if text.starts_with("ERR wrong number of arguments") => lacking.untold.push(right),
                _ => {}
            },
        }
    }
    // The rights that ACL DRYRUN needs are no use to a server that does not have it.
    if facts.is_some_and(|facts| facts.version < DRYRUN_SINCE) {
        lacking.rights.retain(|right| **right != WHOAMI);
    }
    lacking.refusal(&host).map_or(Ok(lacking), Err)
}

/// Completes the refusal of a first question: names every right that is missing, and not only the first.
pub(super) async fn complete(connection: &mut Connection, error: Error) -> Error {
    match error {
        Error::Permission { .. } => match ask(connection, None).await {
            Err(whole @ Error::Permission { .. }) => whole,
            Ok(_) | Err(_) => error,
        },
        other => other,
    }
}

/// Whether DRYRUN says that the server has no such command.
fn is_unknown(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("command '") && text.contains("not found")
}

fn is_denied(text: &str) -> bool {
    text.starts_with("NOPERM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_whole_and_names_only_what_is_missing() {
        let of = |rules: &[&str]| RIGHTS.iter().filter(|right| rules.contains(&right.rule)).collect::<Vec<_>>();
        let lacking = Lacking { user: "backup".into(), rights: of(&["psync", "info", "config|get"]), untold: Vec::new() };
        assert_eq!(
            lacking.refusal("h:1").map(|error| error.to_string()),
            Some("h:1 lacks a right for the backup account: user backup may not run INFO and PSYNC; allow it with: ACL SETUSER backup +info +psync".into())
        );
        assert_eq!(lacking.of(Need::SideState), Some(("user backup may not run CONFIG GET".into(), "ACL SETUSER backup +config|get".into())));
        assert_eq!((lacking.of(Need::Preflight), lacking.unknown()), (None, None));
    }

    #[test]
    fn a_refusal_is_read_in_the_words_of_every_version() {
        for text in [
            "NOPERM this user has no permissions to run the 'psync' command or its subcommand",
            "NOPERM this user has no permissions to run the 'psync' command",
            "NOPERM User b has no permissions to run the 'psync' command",
        ] {
            assert_eq!(told(text, Some("b")), "user b may not run PSYNC; allow it with: ACL SETUSER b +psync");
        }
        assert_eq!(told("NOPERM no access to 'config|get'", Some("b")), "user b may not run CONFIG GET; allow it with: ACL SETUSER b +config|get");
        for text in ["NOPERM", "NOPERM no", "NOPERM ''"] {
            assert_eq!(told(text, Some("b")), text);
        }
    }
}
