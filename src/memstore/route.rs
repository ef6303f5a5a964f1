//! Which call a method and a raw path are.

use super::answer::Refusal;
use crate::api::access::memstore as rules;
use crate::backup::Name;
use axum::http::Method;
use percent_encoding::percent_decode_str;

/// A call, with the name in its path as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call<'a> {
    Create,
    List,
    Get(&'a str),
    Delete(&'a str),
    Copy(&'a str),
    Export(&'a str),
}

impl<'a> Call<'a> {
    /// The call. A slash at the end of a path makes it another one, which is not known.
    pub(super) fn of(method: &Method, path: &'a str) -> Result<Self, Refusal> {
        let parts: Vec<&str> = path.strip_prefix("/v1/backups").ok_or(Refusal::NoRoute)?.split('/').collect();
        let (allow, call) = match parts.as_slice() {
            [""] => ("GET, HEAD, POST", if method == Method::POST { Some(Self::Create) } else { is_read(method).then_some(Self::List) }),
            ["", name] if !name.is_empty() => {
                ("DELETE, GET, HEAD", if method == Method::DELETE { Some(Self::Delete(name)) } else { is_read(method).then_some(Self::Get(name)) })
            }
            ["", name, "copy"] if !name.is_empty() => ("POST", (method == Method::POST).then_some(Self::Copy(name))),
            ["", name, "export"] if !name.is_empty() => ("POST", (method == Method::POST).then_some(Self::Export(name))),
            _ => return Err(Refusal::NoRoute),
        };
        call.ok_or(Refusal::Method { allow })
    }

    /// Its name in the table of rules.
    pub(super) fn rule(self) -> &'static str {
        match self {
            Self::Create => rules::CREATE,
            Self::List => rules::LIST,
            Self::Get(_) => rules::GET,
            Self::Delete(_) => rules::DELETE,
            Self::Copy(_) => rules::COPY,
            Self::Export(_) => rules::EXPORT,
        }
    }
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// The name in a path, decoded once; `None` when no backup can have it. It need not follow the rule for new names: those of
/// scheduled backups do not.
pub(super) fn name(raw: &str) -> Option<Name> {
    percent_decode_str(raw).decode_utf8().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;

    #[test]
    fn methods_and_paths_are_calls() {
        let allow = |allow| Err(Refusal::Method { allow });
        for (method, path, expected) in [
            ("POST", "/v1/backups", Ok(Call::Create)),
            ("GET", "/v1/backups", Ok(Call::List)),
            ("HEAD", "/v1/backups", Ok(Call::List)),
            ("DELETE", "/v1/backups", allow("GET, HEAD, POST")),
            ("GET", "/v1/backups/a", Ok(Call::Get("a"))),
            ("HEAD", "/v1/backups/a", Ok(Call::Get("a"))),
            ("DELETE", "/v1/backups/a", Ok(Call::Delete("a"))),
            ("PUT", "/v1/backups/a", allow("DELETE, GET, HEAD")),
            ("OPTIONS", "/v1/backups/a", allow("DELETE, GET, HEAD")),
            ("POST", "/v1/backups/a/copy", Ok(Call::Copy("a"))),
            ("GET", "/v1/backups/a/copy", allow("POST")),
            ("POST", "/v1/backups/a/export", Ok(Call::Export("a"))),
            ("HEAD", "/v1/backups/a/export", allow("POST")),
            // Names that look like parts of paths.
            ("GET", "/v1/backups/copy", Ok(Call::Get("copy"))),
            ("POST", "/v1/backups/copy/copy", Ok(Call::Copy("copy"))),
            ("GET", "/v1/backups/..", Ok(Call::Get(".."))),
            ("GET", "/v1/backups/", Err(Refusal::NoRoute)),
            ("GET", "/v1/backups/a/", Err(Refusal::NoRoute)),
            ("POST", "/v1/backups//copy", Err(Refusal::NoRoute)),
            ("POST", "/v1/backups/a/copy/", Err(Refusal::NoRoute)),
            ("POST", "/v1/backups/a/Copy", Err(Refusal::NoRoute)),
            ("POST", "/v1/backups/a/restore", Err(Refusal::NoRoute)),
            ("GET", "/v1/backupsx", Err(Refusal::NoRoute)),
            ("GET", "/v1/back%75ps", Err(Refusal::NoRoute)),
            ("GET", "/v1//backups", Err(Refusal::NoRoute)),
            ("GET", "/v1", Err(Refusal::NoRoute)),
        ] {
            assert_eq!(Call::of(&method.parse().unwrap(), path), expected, "{method} {path}");
        }
    }

    #[test]
    fn names_are_decoded_once() {
        for (raw, expected) in [
            ("nightly-1", Some("nightly-1")),
            ("scheduled.backup.2024-03-13-00-00.KST", Some("scheduled.backup.2024-03-13-00-00.KST")),
            ("scheduled%2ebackup", Some("scheduled.backup")),
            ("%6e", Some("n")),
            ("%256e", None),
            ("a%2Fb", None),
            ("a%20b", None),
            ("a+b", None),
            ("%EC%9D%BC", None),
            ("%ff", None),
            ("%zz", None),
            ("%", None),
            ("..", None),
        ] {
            assert_eq!(name(raw).as_ref().map(Name::as_str), expected, "{raw}");
        }
    }
}
