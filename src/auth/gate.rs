//! The gate: tells who calls by what a request carries.
//!
//! Every door asks here and nowhere else. What is refused is counted in the log at a bounded rate; neither the log nor an
//! answer ever holds what was sent.

use super::Identity;
use super::exchange::{self, Account, Audiences, Credential, Exchange, Issued, Key, Parent};
use super::jwks::{Keys, Source};
use super::jwt::{self, Invalid, Terms};
use super::pace::{Pace, Rate, TooFast};
use super::tokens::{self, Digest, Entry, Tokens};
use super::watched::Watched;
use crate::cluster::Timestamp;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use chrono::Utc;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Longest authorization header, in bytes: JWTs with many claims fit.
pub const AUTHORIZATION_BYTES: usize = 16 * 1024;

/// Least time between two lines of the log about callers who were not recognised.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How callers log in.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Nobody has to.
    Open,
    /// With a token of this file.
    Tokens(PathBuf),
    /// With a JWT on these terms, signed with a key of this source.
    Jwt(Terms, Source),
}

/// What the gate is built from.
#[derive(Clone, Debug)]
pub struct Options {
    /// How callers log in.
    pub mode: Mode,
    /// Service accounts that may exchange an assertion for a token.
    pub accounts: Vec<Account>,
    /// For whom assertions may be.
    pub audiences: Audiences,
    /// How fast one subject may call; `None` is as fast as it likes.
    pub rate: Option<Rate>,
}

impl Default for Options {
    fn default() -> Self {
        Self { mode: Mode::Open, accounts: Vec::new(), audiences: Audiences::AnyHost, rate: None }
    }
}

/// Why the gate cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// Why a caller was not recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrecognised {
    /// There is no header.
    #[error("this call needs a token; send it as `authorization: Bearer TOKEN`")]
    Absent,
    /// There are several headers, and it could not be told which one counts.
    #[error("there is more than one authorization header; send one")]
    Several,
    /// The header is longer than any token.
    #[error("the authorization header has more than {AUTHORIZATION_BYTES} bytes; send a smaller token")]
    TooLong,
    /// The header has another form.
    #[error("the authorization header must have the form `Bearer TOKEN`")]
    Malformed,
    /// No such token.
    #[error("the token is not known, or was revoked; ask for a new one, which `redkeep token create` makes")]
    Unknown,
    /// The token's time is over.
    #[error("the token has expired; ask for a new one, which `redkeep token create` makes")]
    Expired,
    /// No short-lived token of this service.
    #[error("the short-lived token was not made by this service, or by an earlier run of it; get a new one from yandex.cloud.iam.v1.IamTokenService.Create")]
    Foreign,
    /// The short-lived token's time is over.
    #[error("the short-lived token has expired; get a new one from yandex.cloud.iam.v1.IamTokenService.Create")]
    ShortExpired,
    /// What the short-lived token was made from is gone.
    #[error("the token or key that this short-lived token was made from was revoked or has expired; log in again")]
    ParentGone,
    /// Tokens are not exchanged in this mode.
    #[error("callers log in with a JWT of their issuer here, so there is no token to exchange; send the JWT itself as `authorization: Bearer JWT`")]
    NothingToExchange,
    /// The keys of the issuer are not there yet.
    #[error("the keys of the issuer cannot be fetched, so no JWT can be checked; try again in a moment")]
    NoKeys,
    /// The JWT is not valid.
    #[error("the JWT {0}")]
    Jwt(#[from] Invalid),
}

enum Login {
    Open,
    Tokens(Arc<Watched<Tokens>>),
    Jwt(Terms, Keys),
}

/// Tells who calls by what a request carries.
pub struct Gate {
    login: Login,
    exchange: Exchange,
    pace: Option<Pace>,
    anonymous: Arc<Identity>,
    refused: Mutex<Refused>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.login {
            Login::Open => "Gate(none)",
            Login::Tokens(_) => "Gate(tokens)",
            Login::Jwt(..) => "Gate(jwt)",
        })
    }
}

impl Gate {
    /// Builds the gate, and keeps tokens and keys fresh from then on. `key` is what short-lived tokens are made with. Must be
    /// called inside the runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`] when a file that is needed is not there or has a fault, with the key of the configuration.
    pub fn open(options: Options, key: Key) -> Result<Self, StartError> {
        let login = match options.mode {
            Mode::Open => Login::Open,
            Mode::Tokens(path) => {
                let fault = |what: String| StartError(format!("auth.file: {} {what}; `redkeep token create --file` makes one", path.display()));
                let file = Watched::open(&path, tokens::FILE_BYTES, Tokens::read).map_err(fault)?;
                file.watch();
                Login::Tokens(file)
            }
            Mode::Jwt(terms, source) => Login::Jwt(terms, Keys::open(&source).map_err(StartError)?),
        };
        Ok(Self {
            login,
            exchange: Exchange::new(key, options.accounts, options.audiences),
            pace: options.rate.map(Pace::new),
            anonymous: Arc::new(Identity::anonymous()),
            refused: Mutex::default(),
        })
    }

    /// Who sent a request with these headers.
    ///
    /// # Errors
    ///
    /// [`Unrecognised`], by condition.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Arc<Identity>, Unrecognised> {
        if matches!(self.login, Login::Open) {
            return Ok(Arc::clone(&self.anonymous));
        }
        let identity = match bearer(headers) {
            Ok(token) => self.recognise(token, Utc::now()).await,
            Err(fault) => Err(fault),
        };
        identity.inspect_err(|fault| self.note(*fault))
    }

    async fn recognise(&self, token: &str, now: Timestamp) -> Result<Arc<Identity>, Unrecognised> {
        if token.starts_with(exchange::PREFIX) {
            return self.heir(self.exchange.open(token, now)?, now);
        }
        match &self.login {
            Login::Open => Ok(Arc::clone(&self.anonymous)),
            Login::Tokens(file) => Ok(live(&file.current(), &Digest::of(token), now)?.identity.clone()),
            Login::Jwt(terms, keys) => {
                let key = keys.find(&jwt::key_id(token)?).await?;
                Ok(Arc::new(jwt::bearer(token, &key, terms)?))
            }
        }
    }

    /// Who bears a short-lived token that was made from this.
    fn heir(&self, parent: Parent, now: Timestamp) -> Result<Arc<Identity>, Unrecognised> {
        match (&parent, &self.login) {
            (Parent::Token(digest), Login::Tokens(file)) => {
                let digest = Digest::from_hex(digest).ok_or(Unrecognised::Foreign)?;
                live(&file.current(), &digest, now).map(|entry| entry.identity.clone()).map_err(|_| Unrecognised::ParentGone)
            }
            (Parent::Account { id, key_id }, _) => self.exchange.account(id, key_id).cloned().ok_or(Unrecognised::ParentGone),
            (Parent::Token(_) | Parent::Anonymous, _) => Err(Unrecognised::ParentGone),
        }
    }

    /// Exchanges a credential for a short-lived token. Where nobody has to log in, any credential gives a token, which stands
    /// for nobody.
    ///
    /// # Errors
    ///
    /// [`Unrecognised`], by condition.
    pub fn exchange(&self, credential: Credential<'_>) -> Result<Issued, Unrecognised> {
        let now = Utc::now();
        let parent = match (&self.login, credential) {
            (Login::Open, _) => Ok((Parent::Anonymous, None)),
            (_, Credential::Assertion(token)) => self.exchange.assertion(token, now).map(|parent| (parent, None)),
            (Login::Tokens(file), Credential::Token(token)) => {
                let digest = Digest::of(token);
                live(&file.current(), &digest, now).map(|entry| (Parent::token(&digest), entry.expires_at))
            }
            (Login::Jwt(..), Credential::Token(_)) => Err(Unrecognised::NothingToExchange),
        };
        let (parent, until) = parent.inspect_err(|fault| self.note(*fault))?;
        Ok(self.exchange.seal(parent, until, now))
    }

    /// Counts a call of a subject.
    ///
    /// # Errors
    ///
    /// [`TooFast`] when it calls faster than it may.
    pub fn pace(&self, identity: &Identity) -> Result<(), TooFast> {
        self.pace.as_ref().map_or(Ok(()), |pace| pace.check(&identity.subject))
    }

    /// Writes the refused to the log, not one by one. Who sends no token at all has not tried one.
    fn note(&self, fault: Unrecognised) {
        if fault == Unrecognised::Absent {
            return;
        }
        let count = self.refused.lock().unwrap_or_else(PoisonError::into_inner).count(Instant::now());
        if let Some(count) = count {
            tracing::warn!(reason = %fault, count, "callers were not recognised; told at most every {LOG_INTERVAL:?}, with the latest reason");
        }
    }
}

/// Refusals since the last line of the log.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    told_at: Option<Instant>,
}

impl Refused {
    /// Counts one; gives how many there were when it is time to tell.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.told_at.is_some_and(|at| now.duration_since(at) < LOG_INTERVAL) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

/// The entry of a token, if it is good now.
fn live<'a>(tokens: &'a Tokens, digest: &Digest, now: Timestamp) -> Result<&'a Entry, Unrecognised> {
    let entry = tokens.find(digest).ok_or(Unrecognised::Unknown)?;
    if entry.is_expired(now) { Err(Unrecognised::Expired) } else { Ok(entry) }
}

/// The token in the headers of a request.
fn bearer(headers: &HeaderMap) -> Result<&str, Unrecognised> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Unrecognised::Absent)?;
    if values.next().is_some() {
        return Err(Unrecognised::Several);
    }
    if value.len() > AUTHORIZATION_BYTES {
        return Err(Unrecognised::TooLong);
    }
    let text = value.to_str().map_err(|_| Unrecognised::Malformed)?;
    let (scheme, token) = text.trim().split_once(' ').ok_or(Unrecognised::Malformed)?;
    let token = token.trim_start();
    // The alphabet of RFC 6750: a second token behind a comma is no token.
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || !token.bytes().all(legal) {
        return Err(Unrecognised::Malformed);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::auth::Roles;
    use axum::http::HeaderValue;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_bytes(value).unwrap())).collect()
    }

    #[test]
    fn one_header_of_one_form_is_read() {
        for value in ["Bearer rk_abc", "bearer rk_abc", "BEARER   rk_abc", " Bearer rk_abc "] {
            assert_eq!(bearer(&headers(&[value.as_bytes()])), Ok("rk_abc"), "{value}");
        }
        let long = format!("Bearer {}", "a".repeat(AUTHORIZATION_BYTES));
        for (values, expected) in [
            (&[][..], Unrecognised::Absent),
            (&[&b"Bearer a"[..], b"Bearer a"][..], Unrecognised::Several),
            (&[long.as_bytes()], Unrecognised::TooLong),
            (&[b""], Unrecognised::Malformed),
            (&[b"Bearer"], Unrecognised::Malformed),
            (&[b"Bearer "], Unrecognised::Malformed),
            (&[b"rk_abc"], Unrecognised::Malformed),
            (&[b"Basic rk_abc"], Unrecognised::Malformed),
            (&[b"Bearer rk_abc, Bearer rk_def"], Unrecognised::Malformed),
            (&[b"Bearer rk_abc rk_def"], Unrecognised::Malformed),
            (&[b"Bearer rk_\xff"], Unrecognised::Malformed),
            (&[b"Bearer\trk_abc"], Unrecognised::Malformed),
        ] {
            assert_eq!(bearer(&headers(values)), Err(expected), "{values:?}");
        }
    }

    #[tokio::test]
    async fn refusals_are_told_now_and_then() {
        let now = Instant::now();
        let mut refused = Refused::default();
        assert_eq!(refused.count(now), Some(1));
        for second in 0..9 {
            assert_eq!(refused.count(now + Duration::from_secs(second)), None);
        }
        assert_eq!(refused.count(now + LOG_INTERVAL), Some(10));
    }

    #[tokio::test]
    async fn an_open_gate_takes_and_gives_anything() {
        let gate = Gate::open(Options::default(), Key::random().unwrap()).unwrap();
        for headers in [headers(&[]), headers(&[b"Basic x", b"Bearer y"])] {
            assert_eq!(gate.identify(&headers).await.unwrap().subject, "anonymous");
        }
        let issued = gate.exchange(Credential::Token("AQAA")).unwrap();
        assert!(issued.token.starts_with("t1.") && issued.expires_at > Utc::now());
        assert!(gate.exchange(Credential::Assertion("x")).is_ok());
    }

    #[tokio::test]
    async fn a_short_token_lives_and_ends_with_its_parent() {
        // Method: a token file, and gates with the same key on other files, as after a change.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let roles = Roles::read([("shop", "editor")]).unwrap();
        let until = Utc::now() + chrono::TimeDelta::minutes(5);
        let (token, _) = tokens::create(&path, "alice".into(), roles, Some(until)).await.unwrap();
        let gate = |mode| Gate::open(Options { mode, ..Options::default() }, Key::new(&[1; 32])).unwrap();
        let first = gate(Mode::Tokens(path.clone()));
        let issued = first.exchange(Credential::Token(&token)).unwrap();
        assert_eq!(issued.expires_at.timestamp(), until.timestamp(), "it does not outlive its parent");
        assert_eq!(first.recognise(&issued.token, Utc::now()).await.unwrap().subject, "alice");
        assert_eq!(first.exchange(Credential::Token(&issued.token)).unwrap_err(), Unrecognised::Unknown);
        assert_eq!(first.exchange(Credential::Token("rk_other")).unwrap_err(), Unrecognised::Unknown);
        assert_eq!(first.recognise(&token, until).await.unwrap_err(), Unrecognised::Expired);

        tokens::revoke(&path, &tokens::Which::Subject("alice".into())).await.unwrap();
        let second = gate(Mode::Tokens(path));
        assert_eq!(second.recognise(&issued.token, Utc::now()).await.unwrap_err(), Unrecognised::ParentGone);
        // One that stands for nobody opens nothing where somebody has to log in.
        let nobody = gate(Mode::Open).exchange(Credential::Token("x")).unwrap();
        assert_eq!(second.recognise(&nobody.token, Utc::now()).await.unwrap_err(), Unrecognised::ParentGone);
    }

    #[tokio::test]
    async fn a_gate_without_its_files_is_not_built() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = folder.path().join("nothing");
        let terms = Terms { issuer: "i".into(), audience: "a".into() };
        for (mode, key) in [
            (Mode::Tokens(nothing.clone()), "auth.file: "),
            (Mode::Jwt(terms.clone(), Source::File(nothing.clone())), "auth.jwks_file: "),
            (Mode::Jwt(terms, Source::Url("https://localhost:1/".into(), Some(nothing))), "auth.ca: "),
        ] {
            let fault = Gate::open(Options { mode, ..Options::default() }, Key::random().unwrap()).unwrap_err().to_string();
            assert!(fault.starts_with(key) && fault.contains("entity not found"), "{fault}");
        }
    }
}
