//! Short-lived tokens: what clients that log in by an exchange carry, made from a long-lived token or from an assertion of a
//! service account.
//!
//! Such a token is kept nowhere. It names the one that it was made from, under a code that only the holder of the key can
//! make; what its bearer may do is looked up at each use, so it ends at once with what it was made from.
//!
//! ```text
//! t1. <content: JSON in base64url> . <HMAC-SHA256 over all before, in base64url>
//! ```

use super::jwt::{self, Invalid, VerifyingKey};
use super::tokens::Digest;
use super::{Identity, Roles, Unrecognised};
use crate::cluster::Timestamp;
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, SubsecRound, TimeDelta};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Longest life of a short-lived token.
pub const LIFETIME: TimeDelta = TimeDelta::hours(12);

/// How a short-lived token begins.
pub(super) const PREFIX: &str = "t1.";

/// Length of the key, in bytes.
const KEY_BYTES: usize = 32;

/// Path of the audiences that SDKs ask for, whatever the host.
const AUDIENCE_PATH: &str = "/iam/v1/tokens";

/// The key that short-lived tokens are made with. Processes that are to take each other's tokens need the same.
pub struct Key(hmac::Key);

impl Key {
    /// A key of these bytes, which must be random and for nothing else.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// A key of this process, which ends with it.
    ///
    /// # Errors
    ///
    /// When the machine gives no random bytes.
    pub fn random() -> Result<Self, &'static str> {
        let mut bytes = [0; KEY_BYTES];
        rand::fill(&mut bytes).map_err(|_| "the machine gave no random bytes")?;
        Ok(Self::new(&bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// A key of a service account, and what the account may do.
#[derive(Clone, Debug)]
pub struct Account {
    /// Id of the account, which is the name of the subject.
    pub id: String,
    /// Id of the key, unique among all accounts.
    pub key_id: String,
    /// The public key.
    pub key: VerifyingKey,
    /// What the account may do.
    pub roles: Roles,
}

/// For whom assertions may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audiences {
    /// Any https URL with the path that the SDKs use, whatever its host.
    AnyHost,
    /// Exactly these.
    These(Vec<String>),
}

impl Audiences {
    fn fit(&self, audience: &str) -> bool {
        match self {
            Self::AnyHost => Url::parse(audience).is_ok_and(|url| url.scheme() == "https" && url.path() == AUDIENCE_PATH),
            Self::These(audiences) => audiences.iter().any(|one| one == audience),
        }
    }
}

/// What is exchanged for a short-lived token.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// A token of the token file.
    Token(&'a str),
    /// A JWT that is signed with the key of a service account.
    Assertion(&'a str),
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::Assertion(_) => "Assertion(..)",
        })
    }
}

/// A short-lived token.
pub struct Issued {
    /// The token.
    pub token: String,
    /// From when on it is refused.
    pub expires_at: Timestamp,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// What a short-lived token was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Parent {
    /// Nothing, where nobody has to log in.
    Anonymous,
    /// The token with this digest, in hexadecimal.
    Token(String),
    /// The service account with this key.
    Account { id: String, key_id: String },
}

impl Parent {
    pub(super) fn token(digest: &Digest) -> Self {
        Self::Token(digest.hex())
    }
}

#[derive(Serialize, Deserialize)]
struct Content {
    /// Seconds since 1970.
    exp: i64,
    of: Parent,
}

/// Makes and reads short-lived tokens.
pub(super) struct Exchange {
    key: Key,
    accounts: HashMap<String, (VerifyingKey, Arc<Identity>)>,
    audiences: Audiences,
}

impl Exchange {
    pub(super) fn new(key: Key, accounts: Vec<Account>, audiences: Audiences) -> Self {
        let known = |account: Account| (account.key_id, (account.key, Arc::new(Identity { subject: account.id, roles: account.roles })));
        Self { key, accounts: accounts.into_iter().map(known).collect(), audiences }
    }

    /// Checks an assertion of a service account.
    pub(super) fn assertion(&self, token: &str, now: Timestamp) -> Result<Parent, Unrecognised> {
        let key_id = jwt::key_id(token)?;
        let (key, identity) = self.accounts.get(&key_id).ok_or(Unrecognised::Jwt(Invalid::UnknownKey))?;
        jwt::assertion(token, key, &identity.subject, |audience| self.audiences.fit(audience), now)?;
        Ok(Parent::Account { id: identity.subject.clone(), key_id })
    }

    /// The service account with this key, if there still is one.
    pub(super) fn account(&self, id: &str, key_id: &str) -> Option<&Arc<Identity>> {
        self.accounts.get(key_id).map(|(_, identity)| identity).filter(|identity| identity.subject == id)
    }

    /// Makes a token of `parent` that lives [`LIFETIME`] at most, and no longer than `until`.
    pub(super) fn seal(&self, of: Parent, until: Option<Timestamp>, now: Timestamp) -> Issued {
        let most = now.trunc_subsecs(0) + LIFETIME;
        let expires_at = until.map_or(most, |until| until.trunc_subsecs(0).min(most));
        let content = serde_json::to_vec(&Content { exp: expires_at.timestamp(), of }).expect("texts and numbers can be written as JSON");
        let signed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(content));
        let code = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key.0, signed.as_bytes()));
        Issued { token: format!("{signed}.{code}"), expires_at }
    }

    /// What a short-lived token was made from.
    pub(super) fn open(&self, token: &str, now: Timestamp) -> Result<Parent, Unrecognised> {
        let (signed, code) = token.rsplit_once('.').ok_or(Unrecognised::Foreign)?;
        let code = URL_SAFE_NO_PAD.decode(code).map_err(|_| Unrecognised::Foreign)?;
        hmac::verify(&self.key.0, signed.as_bytes(), &code).map_err(|_| Unrecognised::Foreign)?;
        // From here on it is our own writing.
        let content = signed.strip_prefix(PREFIX).and_then(|content| URL_SAFE_NO_PAD.decode(content).ok()).ok_or(Unrecognised::Foreign)?;
        let content: Content = serde_json::from_slice(&content).map_err(|_| Unrecognised::Foreign)?;
        let expires_at = DateTime::from_timestamp(content.exp, 0).ok_or(Unrecognised::Foreign)?;
        if expires_at <= now { Err(Unrecognised::ShortExpired) } else { Ok(content.of) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::auth::jwt::tests::{ec_key, ec_sign, jwt, pem};
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::signature::KeyPair;
    use chrono::Utc;
    use serde_json::json;

    fn exchange(accounts: Vec<Account>) -> Exchange {
        Exchange::new(Key::new(&[7; KEY_BYTES]), accounts, Audiences::AnyHost)
    }

    #[test]
    fn a_token_opens_with_its_key_until_its_time() {
        let exchange = exchange(Vec::new());
        let now: Timestamp = "2026-11-21T10:00:00.5Z".parse().unwrap();
        let parent = Parent::token(&Digest::of("rk_x"));
        let issued = exchange.seal(parent.clone(), None, now);
        assert_eq!(issued.expires_at.to_rfc3339(), "2026-11-21T22:00:00+00:00");
        assert!(issued.token.len() < 300 && !format!("{issued:?}").contains(&issued.token));
        assert_eq!(exchange.open(&issued.token, now), Ok(parent.clone()));
        assert_eq!(exchange.open(&issued.token, issued.expires_at), Err(Unrecognised::ShortExpired));
        let twin = self::exchange(Vec::new());
        assert_eq!(twin.open(&issued.token, now), Ok(parent.clone()), "processes of one key take each other's tokens");
        let stranger = Exchange::new(Key::random().unwrap(), Vec::new(), Audiences::AnyHost);
        assert_eq!(stranger.open(&issued.token, now), Err(Unrecognised::Foreign));

        let soon = now + TimeDelta::minutes(5);
        assert_eq!(exchange.seal(parent, Some(soon), now).expires_at, soon.trunc_subsecs(0));
    }

    #[test]
    fn a_token_that_was_changed_does_not_open() {
        let exchange = exchange(Vec::new());
        let now = Utc::now();
        let token = exchange.seal(Parent::Anonymous, None, now).token;
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last digit of base64 may hold bits that stand for nothing; the decoder refuses those.
            assert_eq!(exchange.open(&changed, now), Err(Unrecognised::Foreign), "{at}");
        }
        for text in ["", "t1.", "t1..", "t1.a.b", &token[..token.len() - 1], &format!("{token}A"), &token.replace("t1.", "t2.")] {
            assert_eq!(exchange.open(text, now), Err(Unrecognised::Foreign), "{text}");
        }
    }

    #[test]
    fn an_account_is_known_by_its_key() {
        let signer = ec_key();
        let key = VerifyingKey::from_pem(&pem(signer.public_key().as_der().unwrap().as_ref())).unwrap();
        let account = |id: &str, key_id: &str| Account { id: id.into(), key_id: key_id.into(), key: key.clone(), roles: Roles::default() };
        let exchange = exchange(vec![account("robot", "key1"), account("robot", "key2")]);
        let now = Utc::now();
        let judge = |issuer: &str, key_id: &str| {
            let claims = json!({ "iss": issuer, "aud": "https://iam.localhost:7379/iam/v1/tokens", "iat": now.timestamp(), "exp": now.timestamp() + 3600 });
            exchange.assertion(&jwt(&json!({ "alg": "ES256", "kid": key_id }), &claims, ec_sign(&signer)), now)
        };
        assert_eq!(judge("robot", "key1"), Ok(Parent::Account { id: "robot".into(), key_id: "key1".into() }));
        assert_eq!(judge("other", "key1"), Err(Unrecognised::Jwt(Invalid::Issuer)));
        assert_eq!(judge("robot", "key3"), Err(Unrecognised::Jwt(Invalid::UnknownKey)));
        assert!(exchange.account("robot", "key2").is_some());
        assert!(exchange.account("other", "key2").is_none() && exchange.account("robot", "key3").is_none());
    }

    #[test]
    fn audiences() {
        let any = Audiences::AnyHost;
        for fits in ["https://iam.localhost:7379/iam/v1/tokens", "https://iam.api.cloud.yandex.net/iam/v1/tokens"] {
            assert!(any.fit(fits), "{fits}");
        }
        for not in ["http://iam.localhost/iam/v1/tokens", "https://iam.localhost/iam/v1/tokens/", "https://iam.localhost/other", "/iam/v1/tokens", ""] {
            assert!(!any.fit(not), "{not}");
        }
        let one = Audiences::These(vec!["https://keep.example/iam/v1/tokens".into()]);
        assert!(one.fit("https://keep.example/iam/v1/tokens") && !one.fit("https://iam.localhost:7379/iam/v1/tokens"));
    }
}
