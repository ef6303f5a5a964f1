//! The keys of the issuer of JWTs, from a URL or a file.
//!
//! A key that is not known is asked for at most every ten seconds, by one request at a time; known keys never wait. When the
//! issuer cannot be reached, the keys that were seen last go on counting.

use super::Unrecognised;
use super::jwt::{Invalid, VerifyingKey};
use super::watched::Watched;
use arc_swap::ArcSwap;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

/// Longest key set, in bytes.
const SET_BYTES: u64 = 1024 * 1024;

/// Most keys in one set.
const KEYS: usize = 100;

/// Least time between two requests for keys that are not known.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Age at which keys are fetched again in any case, so that one taken back by the issuer does not count for long.
const MOST_AGE: Duration = Duration::from_secs(600);

/// Time to the next try when the keys could not be fetched.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Longest time to connect to the issuer.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Longest time for a whole request.
const FETCH_LIMIT: Duration = Duration::from_secs(5);

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A URL that [`Source::url`] has checked; with a file of certificates that are trusted in place of the system's.
    Url(String, Option<PathBuf>),
    /// A file, read again when it changes.
    File(PathBuf),
}

impl Source {
    /// A URL: `https`, or `http` on this machine.
    ///
    /// # Errors
    ///
    /// What it must be.
    pub fn url(text: &str, ca: Option<PathBuf>) -> Result<Self, &'static str> {
        let expected = "must be an https URL; http is taken only for this machine, such as http://127.0.0.1:8080/keys";
        let url = Url::parse(text).map_err(|_| expected)?;
        let host = url.host_str().unwrap_or_default();
        let is_here = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if is_here => {}
            _ => return Err(expected),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a password: key sets are public");
        }
        Ok(Self::Url(text.to_owned(), ca))
    }
}

/// Keys by their id.
#[derive(Debug, Default)]
pub(super) struct KeySet(HashMap<String, Arc<VerifyingKey>>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys that are for something else are left out.
    ///
    /// # Errors
    ///
    /// What is wrong, in words that follow the name of the source.
    fn read(text: &str) -> Result<Self, String> {
        let set: Set = serde_json::from_str(text).map_err(|_| "is no JSON Web Key Set".to_owned())?;
        if set.keys.len() > KEYS {
            return Err(format!("has more than {KEYS} keys"));
        }
        let mut keys = HashMap::new();
        for jwk in set.keys {
            let id = jwk.get("kid").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
            let key = serde_json::from_value(jwk).map_err(|_| "it cannot be read").and_then(|jwk| VerifyingKey::from_jwk(&jwk));
            match (id, key) {
                (None, _) => tracing::debug!("a key without an id is left out"),
                (Some(id), Err(why)) => tracing::debug!(key = id, "a key of the issuer is left out: {why}"),
                // Of two keys of one id it could not be told which one is meant.
                (Some(id), Ok(_)) if keys.contains_key(&id) => return Err("has two keys of one id".to_owned()),
                (Some(id), Ok(key)) => drop(keys.insert(id, Arc::new(key))),
            }
        }
        if keys.is_empty() {
            return Err("has no key for checking signatures: RSA, EC on P-256 or P-384, or Ed25519, with an id".to_owned());
        }
        Ok(Self(keys))
    }
}

/// The keys at hand, and the way to more.
pub(super) enum Keys {
    File(Arc<Watched<KeySet>>),
    Remote(Arc<Remote>),
}

impl Keys {
    /// Gets at the source, and keeps the keys fresh from then on. An issuer that cannot be reached yet is asked again later; a
    /// file must be there. Must be called inside the runtime.
    ///
    /// # Errors
    ///
    /// What is wrong, with the key of the configuration.
    pub(super) fn open(source: &Source) -> Result<Self, String> {
        match source {
            Source::File(path) => {
                let file = Watched::open(path, SET_BYTES, KeySet::read).map_err(|fault| format!("auth.jwks_file: {} {fault}", path.display()))?;
                file.watch();
                Ok(Self::File(file))
            }
            Source::Url(url, ca) => {
                let remote = Arc::new(Remote::new(url, ca.as_deref())?);
                Remote::refresh(&remote);
                Ok(Self::Remote(remote))
            }
        }
    }

    /// The key with this id. One that is not known may have come up since, so the issuer is asked.
    ///
    /// # Errors
    ///
    /// [`Unrecognised::NoKeys`] when there are no keys at all, [`Invalid::UnknownKey`] when this one is not among them.
    ///
    /// # Cancel safety
    ///
    /// If dropped, a request under way goes on for the next caller.
    pub(super) async fn find(&self, id: &str) -> Result<Arc<VerifyingKey>, Unrecognised> {
        match self {
            Self::File(file) => file.current().0.get(id).cloned().ok_or(Unrecognised::Jwt(Invalid::UnknownKey)),
            Self::Remote(remote) => remote.find(id).await,
        }
    }
}

/// Keys that are fetched.
pub(super) struct Remote {
    client: Client,
    url: Url,
    current: ArcSwap<KeySet>,
    /// When an unknown key was asked for last. Held while a request is under way.
    asked_at: Arc<Mutex<Option<Instant>>>,
}

impl Remote {
    fn new(url: &str, ca: Option<&Path>) -> Result<Self, String> {
        // A second call changes nothing; the first may have been made elsewhere.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url = Url::parse(url).map_err(|_| "auth.jwks_url: must be a URL".to_owned())?;
        let mut client = Client::builder()
            .user_agent(concat!("redkeep/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_LIMIT)
            .timeout(FETCH_LIMIT)
            // The configured address is the one that is trusted, not one that it sends us to.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(ca) = ca {
            let fault = |what: &str| format!("auth.ca: {} {what}", ca.display());
            let pem = super::watched::read(ca, SET_BYTES).map_err(|what| fault(&what))?;
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|_| fault("holds no certificates in PEM"))?;
            if certificates.is_empty() {
                return Err(fault("holds no certificates in PEM"));
            }
            client = client.tls_certs_only(certificates);
        } else if url.scheme() == "http" {
            // Works on a machine without certificates, too.
            client = client.tls_certs_only([]);
        }
        let client = client.build().map_err(|_| "auth.jwks_url: the certificates of this machine cannot be used; name some with auth.ca".to_owned())?;
        Ok(Self { client, url, current: ArcSwap::default(), asked_at: Arc::default() })
    }

    /// Keeps the keys from growing old, until the value is dropped.
    fn refresh(remote: &Arc<Self>) {
        let remote = Arc::downgrade(remote);
        tokio::spawn(async move {
            loop {
                let Some(keys) = remote.upgrade() else { return };
                let lock = Arc::clone(&keys.asked_at).lock_owned().await;
                let fetched = keys.fetch_logged(lock).await;
                drop(keys);
                tokio::time::sleep(if fetched { MOST_AGE } else { RETRY_INTERVAL }).await;
            }
        });
    }

    async fn find(self: &Arc<Self>, id: &str) -> Result<Arc<VerifyingKey>, Unrecognised> {
        let known = || self.current.load().0.get(id).cloned();
        if let Some(key) = known() {
            return Ok(key);
        }
        // Whoever comes while a request is under way waits for it here.
        let mut lock = Arc::clone(&self.asked_at).lock_owned().await;
        if let Some(key) = known() {
            return Ok(key);
        }
        if lock.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL) {
            *lock = Some(Instant::now());
            let keys = Arc::clone(self);
            // In a task of its own: a caller who hangs up must not keep the keys from others.
            let _ = tokio::spawn(async move { keys.fetch_logged(lock).await }).await;
        } else {
            drop(lock);
        }
        let none = self.current.load().0.is_empty();
        known().ok_or(if none { Unrecognised::NoKeys } else { Unrecognised::Jwt(Invalid::UnknownKey) })
    }

    /// Fetches the keys while nobody else does; tells whether that went well.
    async fn fetch_logged(&self, lock: OwnedMutexGuard<Option<Instant>>) -> bool {
        let outcome = self.fetch().await;
        match &outcome {
            Ok(set) => tracing::debug!(url = %self.url, keys = set.0.len(), "fetched the keys of the issuer"),
            Err(fault) => tracing::warn!(url = %self.url, "the key set {fault}; the keys seen last go on counting"),
        }
        let fetched = outcome.map(|set| self.current.store(Arc::new(set))).is_ok();
        drop(lock);
        fetched
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let cannot = |fault: reqwest::Error| match () {
            () if fault.is_timeout() => format!("was not there within {FETCH_LIMIT:?}"),
            () if fault.is_connect() => "cannot be fetched: no connection, or a certificate that is not trusted".to_owned(),
            () => "cannot be fetched".to_owned(),
        };
        let mut response = self.client.get(self.url.clone()).send().await.map_err(cannot)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("cannot be fetched: the issuer answered {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(cannot)? {
            if (body.len() + chunk.len()) as u64 > SET_BYTES {
                return Err(format!("has more than {SET_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        KeySet::read(&String::from_utf8(body).map_err(|_| "is no JSON Web Key Set".to_owned())?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::auth::jwt::tests::{ec_jwk, ec_key};
    use axum::Router;
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use axum::routing::get;
    use serde_json::json;
    use std::sync::Mutex as StdMutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn sets_are_bounded_and_clear() {
        let (one, other) = (ec_jwk(&ec_key(), "a"), ec_jwk(&ec_key(), "b"));
        let nameless = {
            let mut jwk = other.clone();
            jwk.as_object_mut().unwrap().remove("kid");
            jwk
        };
        let strange = json!({ "kty": "EC", "crv": "secp256k1", "kid": "s", "x": "AA", "y": "AA" });
        let read = |keys: Vec<Value>| KeySet::read(&json!({ "keys": keys }).to_string());
        let set = read(vec![one.clone(), other.clone(), nameless.clone(), strange, json!(7), json!({ "kid": 7 })]).unwrap();
        assert_eq!(set.0.len(), 2);
        assert!(read(vec![one.clone(), one.clone()]).unwrap_err().contains("two keys"));
        assert!(read(vec![nameless]).unwrap_err().contains("no key"));
        assert!(read(vec![one; KEYS + 1]).unwrap_err().contains("more than"));
        for text in ["", "[]", "{}", "{\"keys\": {}}"] {
            assert!(KeySet::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_are_https_or_of_this_machine() {
        for url in ["https://id.example/keys", "http://127.0.0.1:1/keys", "http://localhost/keys", "http://[::1]:8080/keys"] {
            assert!(Source::url(url, None).is_ok(), "{url}");
        }
        for url in ["http://id.example/keys", "http://localhost.evil.example/", "file:///etc/passwd", "https://me:secret@id.example/", "keys", ""] {
            let fault = Source::url(url, None).unwrap_err();
            assert!(fault.starts_with("must") && !fault.contains("secret@"), "{url}");
        }
    }

    /// An issuer whose answers can be changed, and that counts the questions.
    async fn issuer() -> (String, Arc<StdMutex<(StatusCode, String)>>, Arc<AtomicUsize>) {
        let (answer, asked) = (Arc::new(StdMutex::new((StatusCode::OK, String::new()))), Arc::new(AtomicUsize::new(0)));
        let (body, count) = (Arc::clone(&answer), Arc::clone(&asked));
        let app = Router::new().route(
            "/keys",
            get(move || {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = body.lock().unwrap().clone();
                async move { answer.into_response() }
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (url, answer, asked)
    }

    #[tokio::test]
    async fn an_unknown_key_is_asked_for_once_and_known_ones_outlast_the_issuer() {
        // Method: an issuer on a socket; many callers at once; rotation; then an issuer that fails.
        let (url, answer, asked) = issuer().await;
        let remote = Arc::new(Remote::new(&url, None).unwrap());
        let set = |ids: &[&str]| json!({ "keys": ids.iter().map(|id| ec_jwk(&ec_key(), id)).collect::<Vec<_>>() }).to_string();
        *answer.lock().unwrap() = (StatusCode::SERVICE_UNAVAILABLE, String::new());
        assert_eq!(remote.find("a").await.unwrap_err(), Unrecognised::NoKeys);
        assert_eq!(remote.find("a").await.unwrap_err(), Unrecognised::NoKeys);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "no second question within ten seconds");

        *remote.asked_at.lock().await = None;
        answer.lock().unwrap().clone_from(&(StatusCode::OK, set(&["a"])));
        let calls: tokio::task::JoinSet<_> = (0..50)
            .map(|_| {
                let remote = Arc::clone(&remote);
                async move { remote.find("a").await.is_ok() }
            })
            .collect();
        assert!(calls.join_all().await.into_iter().all(|found| found));
        assert_eq!(asked.load(Ordering::SeqCst), 2, "one question for all");

        answer.lock().unwrap().clone_from(&(StatusCode::OK, set(&["b"])));
        assert_eq!(remote.find("b").await.unwrap_err(), Unrecognised::Jwt(Invalid::UnknownKey));
        *remote.asked_at.lock().await = None;
        assert!(remote.find("b").await.is_ok());
        assert!(remote.find("a").await.is_err(), "the issuer has taken it back");

        for broken in [(StatusCode::OK, "{}".to_owned()), (StatusCode::NOT_FOUND, set(&["c"])), (StatusCode::OK, " ".repeat(SET_BYTES as usize + 1))] {
            *remote.asked_at.lock().await = None;
            answer.lock().unwrap().clone_from(&broken);
            assert_eq!(remote.find("c").await.unwrap_err(), Unrecognised::Jwt(Invalid::UnknownKey));
            assert!(remote.find("b").await.is_ok(), "the keys seen last go on counting");
        }
    }
}
