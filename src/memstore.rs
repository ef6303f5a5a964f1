//! The calls that clients of Kakao Cloud's MemStore know: `/v1/backups` and below.
//!
//! Owns paths, codes, checks and forms of that API. The work is the executor's, as for every other door: what is asked for
//! here is an operation like any other, and the backups are the same rows. Knows nothing of the gRPC schemas.
//!
//! # What callers may rely on
//!
//! - Everything is looked up by name in the caller's project, which is a folder. A caller with a role in one folder is in
//!   that one. Who may be in several, and everybody while nobody has to log in, names one with `X-Project-Id`, or is in the
//!   one of [`Options::project`]. A project that the caller may not see is refused like any other that it has no role in.
//! - The token comes in `X-Auth-Token` and nowhere else. While nobody has to log in, none is asked for.
//! - Checks come in this order: token, form of the body, rules of its fields, existence, right, state, name. Who may not even
//!   read in the project is told so at once.
//! - A body is read as JSON whatever its type says. Members that are not known are left aside; one that stands twice is
//!   refused.
//! - A list holds at most [`LISTED`] backups, the newest, and looks at no more than [`LOOKED_AT`] for them.
//! - A repeated call is a second call: there are no idempotency keys here.

mod answer;
mod body;
mod calls;
mod destination;
mod filter;
mod name;
mod precondition;
mod render;
mod route;
mod visitor;

pub use crate::config::MemStore as Options;

use crate::api::calls::{Calls as Observed, REQUEST_ID};
use crate::audit::CallRecord;
use crate::auth::Gate;
use crate::executor::Executor;
use answer::{Answer, Refusal};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::routing::any;
use route::Call;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Most backups of one list.
pub const LISTED: usize = 10_000;

/// Most backups that are looked at for one list.
pub const LOOKED_AT: usize = 100_000;

/// What the calls need.
struct Calls {
    executor: Executor,
    gate: Arc<Gate>,
    observed: Observed,
    options: Options,
    /// Held from the count of a quota until the new backup counts too.
    turn: Mutex<()>,
}

/// The router of the calls. It answers everything below `/v1/`, unknown paths in the shape of its other refusals.
/// What each call leaves behind goes to `observed`, as for every other door.
pub fn router(executor: Executor, gate: Arc<Gate>, observed: Observed, options: Options) -> Router {
    let calls = Arc::new(Calls { executor, gate, observed, options, turn: Mutex::new(()) });
    let mut router = Router::new();
    for path in ["/v1", "/v1/", "/v1/{*path}"] {
        router = router.route(path, any(serve));
    }
    router.with_state(calls)
}

/// Whether a path is answered here: those below `/v1/`, unknown ones included.
pub fn owns(path: &str) -> bool {
    path.strip_prefix("/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A refusal in the shape of these calls, for a request that does not reach them.
pub fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    Answer::refusal(status, code, message).into_response()
}

async fn serve(State(calls): State<Arc<Calls>>, request: Request) -> Response {
    let is_head = request.method() == Method::HEAD;
    let rule = Call::of(request.method(), request.uri().path()).map_or("", Call::rule);
    let observed = calls.observed.begin(rule, request.headers(), request.extensions());
    let outcome = calls.answer(request, observed.record()).await;
    let mut response = outcome.unwrap_or_else(|refusal| Answer::from(&refusal)).into_response();
    // Only what can stand in a header was taken over as an id.
    if let Ok(id) = HeaderValue::from_str(observed.request_id()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    observed.end(answer::code(response.status())).await;
    // The length stays as it is told.
    if is_head { response.map(|_| Body::empty()) } else { response }
}

impl Calls {
    async fn answer(&self, request: Request, record: &CallRecord) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let call = Call::of(&head.method, head.uri.path())?;
        if let Call::Get(name) | Call::Delete(name) | Call::Copy(name) | Call::Export(name) = call {
            record.set_target(&format!("backups/{name}"));
        }
        let visitor = visitor::enter(&self.gate, call.rule(), &head.headers, &self.options.project, record).await?;
        match call {
            Call::Create => self.create(&visitor, body::read(&head.headers, body).await?).await,
            Call::List => self.list(&visitor, head.uri.query().unwrap_or_default()).await,
            Call::Get(name) => self.get(&visitor, name).await,
            Call::Delete(name) => self.delete(&visitor, name).await,
            Call::Copy(name) => self.copy(&visitor, name, body::read(&head.headers, body).await?).await,
            Call::Export(name) => self.export(&visitor, name, body::read(&head.headers, body).await?).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_here() {
        for (path, expected) in [
            ("/v1/backups", true),
            ("/v1/backups/", true),
            ("/v1/backups/b1/copy", true),
            ("/v1/clusters", true),
            ("/v1/", true),
            ("/v1", true),
            ("/v10/backups", false),
            ("/redkeep/v1/backups", false),
            ("/operations/1", false),
        ] {
            assert_eq!(owns(path), expected, "{path}");
        }
    }
}
