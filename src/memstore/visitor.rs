//! Who calls, and in which project.

use super::answer::Refusal;
use crate::api::access;
use crate::audit::CallRecord;
use crate::auth::{Denied, Gate, Grant};
use crate::cluster::FolderId;
use crate::executor::Caller;
use crate::operation::Operation;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};

/// Header of the token.
const TOKEN: &str = "x-auth-token";

/// Header that names a project, for callers who may be in several.
const PROJECT: &str = "x-project-id";

/// A caller who may know what is in a project.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    subject: String,
    record: CallRecord,
    /// The project.
    pub(super) project: FolderId,
    /// Whether the caller has the right to the call itself. It is told after what is amiss in the request, and after
    /// what is not there.
    pub(super) right: Result<(), Refusal>,
}

impl Visitor {
    /// The caller as the executor knows it.
    pub(super) fn caller(&self) -> Caller {
        Caller { subject: self.subject.clone(), key: None }
    }

    /// Notes what was accepted for the caller.
    pub(super) fn note(&self, operation: &Operation) {
        self.record.set_operation(&operation.id.to_string());
    }
}

/// Lets a caller in to the call that is named so in the table of rules.
pub(super) async fn enter(gate: &Gate, call: &str, headers: &HeaderMap, default: &FolderId, record: &CallRecord) -> Result<Visitor, Refusal> {
    let bearer = with_bearer(headers);
    let refused = match access::grant(gate, call, &bearer, record).await {
        Ok(Some(grant)) => {
            let project = project(&grant, headers, default)?;
            match grant.folder(&project) {
                Ok(()) => return Ok(Visitor { subject: grant.subject().to_owned(), record: record.clone(), project, right: Ok(()) }),
                Err(denied) => self::denied(denied, &project),
            }
        }
        Ok(None) => return Err(Refusal::Internal),
        Err(status) if status.code() == tonic::Code::PermissionDenied => Refusal::of_access(&status),
        Err(status) if status.code() == tonic::Code::Unauthenticated => return Err(unrecognised(headers, &status)),
        Err(status) => return Err(Refusal::of_access(&status)),
    };
    // Who may read in the project may know what is there, and is told so before the right to more is missed.
    let Ok(Some(reader)) = access::grant(gate, access::memstore::GET, &bearer, record).await else { return Err(refused) };
    let project = project(&reader, headers, default)?;
    if reader.sees(&project) {
        Ok(Visitor { subject: reader.subject().to_owned(), record: record.clone(), project, right: Err(refused) })
    } else {
        Err(refused)
    }
}

/// The headers with the token in the place where the gate looks for it, and with no other there. An empty one is none.
fn with_bearer(headers: &HeaderMap) -> HeaderMap {
    let mut translated = headers.clone();
    translated.remove(AUTHORIZATION);
    translated.remove(TOKEN);
    for token in headers.get_all(TOKEN).iter().filter(|token| !token.is_empty()) {
        // What was a header's value is one with more in front, too.
        if let Ok(mut bearer) = HeaderValue::from_bytes(&[b"Bearer ", token.as_bytes()].concat()) {
            bearer.set_sensitive(true);
            translated.append(AUTHORIZATION, bearer);
        }
    }
    translated
}

/// Why a caller was not recognised, in the words of these calls.
fn unrecognised(headers: &HeaderMap, status: &tonic::Status) -> Refusal {
    let mut tokens = headers.get_all(TOKEN).iter().filter(|token| !token.is_empty());
    Refusal::Unauthenticated(match (tokens.next(), tokens.next()) {
        (None, _) => "this call needs a token; send it as `X-Auth-Token: TOKEN`".to_owned(),
        (Some(_), Some(_)) => "there is more than one X-Auth-Token header; send one".to_owned(),
        (Some(token), None) if !token.as_bytes().iter().all(u8::is_ascii_graphic) => "X-Auth-Token holds no token".to_owned(),
        (Some(_), None) => format!("X-Auth-Token: {}", status.message()),
    })
}

/// The project of a call: the one that is named, else the only one that the caller has a role in, else the default.
fn project(grant: &Grant, headers: &HeaderMap, default: &FolderId) -> Result<FolderId, Refusal> {
    let mut named = headers.get_all(PROJECT).iter();
    let Some(name) = named.next() else { return Ok(grant.only_folder().unwrap_or(default).clone()) };
    let project = name.to_str().ok().and_then(|name| name.parse().ok()).filter(|_| named.next().is_none());
    project.ok_or_else(|| Refusal::Field { field: "X-Project-Id", what: "must be the id of one project".to_owned() })
}

fn denied(denied: Denied, project: &FolderId) -> Refusal {
    Refusal::Denied(match denied {
        Denied::Hidden => format!("you have no role in project {project}; name another with X-Project-Id"),
        Denied::TooSmall(role) => format!("this call needs the role {role} in project {project}"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use crate::auth::{self, Identity, Role, Roles};
    use std::sync::Arc;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn grant(everywhere: Option<Role>, folders: &[&str]) -> Grant {
        let folders = folders.iter().map(|folder| (folder.parse().unwrap(), Role::Editor)).collect();
        Grant::new(Arc::new(Identity { subject: "someone".into(), roles: Roles { everywhere, folders } }), Role::Viewer).unwrap()
    }

    #[test]
    fn the_token_comes_in_one_header_only() {
        let bearers = |headers: &HeaderMap| with_bearer(headers).get_all(AUTHORIZATION).iter().cloned().collect::<Vec<HeaderValue>>();
        let translated = with_bearer(&headers(&[("x-auth-token", "abc"), ("authorization", "Bearer other")]));
        assert_eq!(bearers(&headers(&[("x-auth-token", "abc"), ("authorization", "Bearer other")])), ["Bearer abc"]);
        assert!(translated[AUTHORIZATION].is_sensitive() && !translated.contains_key(TOKEN));
        for none in [headers(&[("authorization", "Bearer other")]), headers(&[("x-auth-token", "")]), headers(&[])] {
            assert!(bearers(&none).is_empty());
        }
        let mut two = headers(&[("x-auth-token", "a")]);
        two.append(TOKEN, "b".parse().unwrap());
        assert_eq!(bearers(&two), ["Bearer a", "Bearer b"], "the gate refuses both");
        let said = |headers: &HeaderMap| match unrecognised(headers, &tonic::Status::unauthenticated("the token has expired")) {
            Refusal::Unauthenticated(what) => what,
            other => panic!("{other:?}"),
        };
        for (headers, words) in [
            (headers(&[]), "needs a token"),
            (headers(&[("x-auth-token", "")]), "needs a token"),
            (two, "more than one"),
            (headers(&[("x-auth-token", "a b")]), "holds no token"),
            (headers(&[("x-auth-token", "abc")]), "has expired"),
        ] {
            assert!(said(&headers).contains(words) && said(&headers).contains("X-Auth-Token"), "{}", said(&headers));
        }
    }

    #[test]
    fn a_call_is_in_one_project() {
        let default: FolderId = "default".parse().unwrap();
        let in_project = |grant: &Grant, pairs: &[(&'static str, &str)]| project(grant, &headers(pairs), &default).map(|project| project.to_string());
        let named = [("x-project-id", "0f1e2d3c4b5a69788796a5b4c3d2e1f0")];
        assert_eq!(in_project(&grant(None, &["shop"]), &[]), Ok("shop".into()));
        assert_eq!(in_project(&grant(None, &["shop", "news"]), &[]), Ok("default".into()));
        assert_eq!(in_project(&grant(Some(Role::Admin), &[]), &[]), Ok("default".into()));
        assert_eq!(in_project(&grant(None, &["shop"]), &named), Ok(named[0].1.into()));
        assert!(in_project(&grant(None, &["shop"]), &[("x-project-id", "../x")]).is_err());
        assert!(in_project(&grant(None, &["shop"]), &[("x-project-id", "")]).is_err());
    }

    #[tokio::test]
    async fn while_nobody_has_to_log_in_no_token_is_asked_for() {
        let gate = Gate::open(auth::Options::default(), auth::Key::random().unwrap()).unwrap();
        for sent in [headers(&[]), headers(&[("x-auth-token", "a placeholder")])] {
            let visitor = enter(&gate, access::memstore::CREATE, &sent, &"default".parse().unwrap(), &CallRecord::default()).await.unwrap();
            assert_eq!((visitor.subject.as_str(), visitor.project.as_str(), visitor.right), ("anonymous", "default", Ok(())));
        }
    }
}
