//! JSON Web Tokens: whether one is what it says, and what it says of its bearer.
//!
//! Owns which algorithms are taken and that each key is for one of them: what a token says of its algorithm chooses nothing.
//! Knows nothing of where keys come from.

use super::{Identity, Roles, SUBJECT_CHARS};
use crate::cluster::Timestamp;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PSS_2048_8192_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;

/// How far the clocks of issuers and ours may lie apart, in seconds.
const LEEWAY_SECS: u64 = 30;

/// Longest life of an assertion of a service account, in seconds.
const ASSERTION_SECS: i64 = 3600;

/// Most audiences in one assertion that are looked at.
const AUDIENCES: usize = 16;

/// Why a JWT is refused. Every text follows the words "the JWT".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is not three parts of base64url with JSON in them, or a claim is not of its type.
    #[error("is not well formed")]
    Form,
    /// It does not say which key signed it.
    #[error("names no key: the header needs `kid`")]
    NoKeyId,
    /// Its key is not published.
    #[error("names a key that is not known here; log in again")]
    UnknownKey,
    /// Its algorithm is not the one of the key.
    #[error("is signed with another algorithm than its key is for")]
    Algorithm,
    /// Its header asks for extensions.
    #[error("has critical extensions, of which none is known here")]
    Critical,
    /// The signature is another one's.
    #[error("has a signature that does not fit")]
    Signature,
    /// Its time is over.
    #[error("has expired; log in again")]
    Expired,
    /// Its time has not come.
    #[error("is not valid yet; compare the clocks")]
    NotYet,
    /// It lives longer than an assertion may.
    #[error("must have `iat` and expire at most one hour after it")]
    Lifetime,
    /// Someone else issued it.
    #[error("is of another issuer than is trusted here")]
    Issuer,
    /// It is for another service.
    #[error("is for another audience")]
    Audience,
    /// It needs claims that it does not have.
    #[error("needs the claims exp, iss, aud and sub")]
    Claims,
    /// It names nobody.
    #[error("must have a `sub` of 1 to {SUBJECT_CHARS} characters, without control characters")]
    Subject,
    /// What it says of roles cannot be read.
    #[error("must have `redkeep_roles` as an object of folder and role, such as {{\"shop\": \"editor\"}}")]
    Roles,
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// It is the wrong half.
    #[error("holds a private key; give the public one, and keep the private one where it is used")]
    Private,
    /// It is not what is needed.
    #[error("must be a public key in PEM (`-----BEGIN PUBLIC KEY-----`): RSA of 2048 to 8192 bits, or EC on P-256")]
    Form,
}

/// A public key with the one algorithm that it is for.
#[derive(Clone)]
pub struct VerifyingKey {
    key: DecodingKey,
    algorithm: Algorithm,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({:?})", self.algorithm)
    }
}

impl VerifyingKey {
    /// Reads a key of a service account: RSA is for PS256, EC on P-256 for ES256.
    ///
    /// # Errors
    ///
    /// [`BadKey`], by condition.
    pub fn from_pem(pem: &str) -> Result<Self, BadKey> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(BadKey::Private);
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| BadKey::Form)?;
        if ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &der).is_ok() {
            Ok(Self { key: DecodingKey::from_rsa_der(&der), algorithm: Algorithm::PS256 })
        } else if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &der).is_ok() {
            Ok(Self { key: DecodingKey::from_ec_der(&der), algorithm: Algorithm::ES256 })
        } else {
            Err(BadKey::Form)
        }
    }

    /// Reads a key of a key set. A key that names no algorithm is for the usual one of its kind.
    ///
    /// # Errors
    ///
    /// Why it is of no use here.
    pub(super) fn from_jwk(jwk: &Jwk) -> Result<Self, &'static str> {
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return Err("it is not for signatures");
        }
        if common.key_operations.as_ref().is_some_and(|purposes| !purposes.contains(&KeyOperations::Verify)) {
            return Err("it is not for verifying");
        }
        let (usual, family) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, AlgorithmFamily::Rsa),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => (Algorithm::ES256, AlgorithmFamily::Ec),
                EllipticCurve::P384 => (Algorithm::ES384, AlgorithmFamily::Ec),
                _ => return Err("its curve is not supported"),
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => (Algorithm::EdDSA, AlgorithmFamily::Ed),
            AlgorithmParameters::OctetKey(_) => return Err("it is a shared secret"),
            _ => return Err("its kind is not supported"),
        };
        let algorithm = match common.key_algorithm {
            None => usual,
            Some(named) => algorithm(named).filter(|named| named.family() == family).ok_or("its algorithm does not fit its kind")?,
        };
        if family == AlgorithmFamily::Ec && algorithm != usual {
            return Err("its algorithm does not fit its curve");
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|_| "its numbers cannot be read")?;
        Ok(Self { key, algorithm })
    }
}

fn algorithm(named: KeyAlgorithm) -> Option<Algorithm> {
    Algorithm::try_from(named).ok().filter(|algorithm| algorithm.family() != AlgorithmFamily::Hmac)
}

/// What the header of a JWT says, which is not to be trusted.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

fn head(token: &str) -> Result<Head, Invalid> {
    let part = token.split('.').next().unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Invalid::Form)?;
    serde_json::from_slice(&bytes).map_err(|_| Invalid::Form)
}

/// The key that a JWT says it is signed with. Nothing of the token is trusted by that.
///
/// # Errors
///
/// [`Invalid::Form`] and [`Invalid::NoKeyId`].
pub(super) fn key_id(token: &str) -> Result<String, Invalid> {
    head(token)?.kid.filter(|id| !id.is_empty()).ok_or(Invalid::NoKeyId)
}

/// Checks signature, time and what else `validation` asks for, and reads the claims.
fn claims<T: DeserializeOwned + Clone>(token: &str, key: &VerifyingKey, mut validation: Validation) -> Result<T, Invalid> {
    let head = head(token)?;
    if head.crit.is_some() {
        return Err(Invalid::Critical);
    }
    if head.alg.parse::<Algorithm>().ok() != Some(key.algorithm) {
        return Err(Invalid::Algorithm);
    }
    validation.algorithms = vec![key.algorithm];
    validation.leeway = LEEWAY_SECS;
    validation.validate_nbf = true;
    let decoded = jsonwebtoken::decode::<T>(token, &key.key, &validation).map_err(|fault| match fault.kind() {
        ErrorKind::InvalidSignature => Invalid::Signature,
        ErrorKind::InvalidAlgorithm => Invalid::Algorithm,
        ErrorKind::ExpiredSignature => Invalid::Expired,
        ErrorKind::ImmatureSignature => Invalid::NotYet,
        ErrorKind::InvalidIssuer => Invalid::Issuer,
        ErrorKind::InvalidAudience => Invalid::Audience,
        ErrorKind::MissingRequiredClaim(_) => Invalid::Claims,
        _ => Invalid::Form,
    })?;
    Ok(decoded.claims)
}

/// What a caller's JWT must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its `iss`.
    pub issuer: String,
    /// Its `aud`, or one of them.
    pub audience: String,
}

/// What the claims of a caller's JWT say.
#[derive(Clone, Deserialize)]
struct Bearer {
    // What is missing is told as missing, by the check of the claims.
    #[serde(default)]
    iss: Value,
    #[serde(default)]
    sub: Value,
    redkeep_roles: Option<Value>,
}

/// Who bears a JWT. One that says nothing of roles has none.
///
/// # Errors
///
/// [`Invalid`], by condition.
pub(super) fn bearer(token: &str, key: &VerifyingKey, terms: &Terms) -> Result<Identity, Invalid> {
    let mut validation = Validation::new(key.algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[&terms.issuer]);
    validation.set_audience(&[&terms.audience]);
    let claims: Bearer = claims(token, key, validation)?;
    if claims.iss.as_str() != Some(&terms.issuer) {
        return Err(Invalid::Issuer);
    }
    let subject = claims.sub.as_str().filter(|text| (1..=SUBJECT_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control));
    let subject = subject.ok_or(Invalid::Subject)?.to_owned();
    let roles = match &claims.redkeep_roles {
        None => Roles::default(),
        Some(Value::Object(roles)) => {
            let pairs = roles.iter().map(|(folder, role)| role.as_str().map(|role| (folder.as_str(), role))).collect::<Option<Vec<_>>>();
            Roles::read(pairs.ok_or(Invalid::Roles)?).map_err(|_| Invalid::Roles)?
        }
        Some(_) => return Err(Invalid::Roles),
    };
    Ok(Identity { subject, roles })
}

/// What the claims of an assertion say.
#[derive(Clone, Deserialize)]
struct Asserted {
    #[serde(default)]
    iss: Value,
    #[serde(default)]
    aud: Value,
    iat: Option<f64>,
    exp: Option<f64>,
}

/// Checks an assertion by which a service account logs in: it lives at most an hour, and is for an audience that `fits`.
///
/// # Errors
///
/// [`Invalid`], by condition.
pub(super) fn assertion(token: &str, key: &VerifyingKey, account: &str, fits: impl Fn(&str) -> bool, now: Timestamp) -> Result<(), Invalid> {
    let mut validation = Validation::new(key.algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.set_issuer(&[account]);
    // Judged below, by a rule rather than by a list.
    validation.validate_aud = false;
    let claims: Asserted = claims(token, key, validation)?;
    if claims.iss.as_str() != Some(account) {
        return Err(Invalid::Issuer);
    }
    let is_for_us = match &claims.aud {
        Value::String(audience) => fits(audience),
        Value::Array(audiences) => audiences.iter().take(AUDIENCES).filter_map(Value::as_str).any(fits),
        _ => false,
    };
    if !is_for_us {
        return Err(Invalid::Audience);
    }
    let instant = |secs: f64| DateTime::from_timestamp(secs as i64, 0).ok_or(Invalid::Form);
    let (from, until) = (instant(claims.iat.ok_or(Invalid::Lifetime)?)?, instant(claims.exp.ok_or(Invalid::Claims)?)?);
    if (from - now).num_seconds() > LEEWAY_SECS as i64 {
        return Err(Invalid::NotYet);
    }
    if !(0..=ASSERTION_SECS).contains(&(until - from).num_seconds()) {
        return Err(Invalid::Lifetime);
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
        RsaKeyPair,
    };
    use aws_lc_rs::{digest, hmac};
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    /// Makes a JWT by hand, so that it can be wrong in every way.
    pub(in crate::auth) fn jwt(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    pub(in crate::auth) fn ec_key() -> EcdsaKeyPair {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
    }

    pub(in crate::auth) fn ec_sign(key: &EcdsaKeyPair) -> impl Fn(&[u8]) -> Vec<u8> {
        |bytes| key.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec()
    }

    fn rsa_sign(key: &RsaKeyPair, encoding: &'static dyn RsaEncoding) -> impl Fn(&[u8]) -> Vec<u8> {
        move |bytes| {
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(encoding, &SystemRandom::new(), bytes, &mut signature).unwrap();
            signature
        }
    }

    pub(in crate::auth) fn pem(spki: &[u8]) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(spki))
    }

    pub(in crate::auth) fn ec_jwk(key: &EcdsaKeyPair, id: &str) -> Value {
        // 04, then both coordinates.
        let point = key.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]) })
    }

    fn from_jwk(jwk: Value) -> Result<VerifyingKey, &'static str> {
        VerifyingKey::from_jwk(&serde_json::from_value(jwk).unwrap())
    }

    fn now() -> i64 {
        chrono::Utc::now().timestamp()
    }

    fn terms() -> Terms {
        Terms { issuer: "https://id.example".into(), audience: "redkeep".into() }
    }

    fn good() -> Value {
        json!({ "iss": "https://id.example", "aud": ["other", "redkeep"], "sub": "alice", "exp": now() + 60, "redkeep_roles": { "shop": "editor", "*": "viewer" } })
    }

    #[test]
    fn a_bearer_is_who_the_claims_say() {
        let signer = ec_key();
        let key = from_jwk(ec_jwk(&signer, "k")).unwrap();
        let header = json!({ "alg": "ES256", "kid": "k", "typ": "JWT" });
        let judge = |claims: &Value| bearer(&jwt(&header, claims, ec_sign(&signer)), &key, &terms());
        let alice = judge(&good()).unwrap();
        assert_eq!((alice.subject.as_str(), alice.roles.everywhere, alice.roles.folders.len()), ("alice", Some(crate::auth::Role::Viewer), 1));

        let with = |key: &str, value: Value| {
            let mut claims = good();
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(key)),
                value => claims[key] = value,
            }
            judge(&claims)
        };
        assert_eq!(with("redkeep_roles", Value::Null).unwrap().roles, Roles::default());
        assert!(with("exp", json!(now() - 5)).is_ok(), "clocks differ a little");
        assert!(with("nbf", json!(now() + 5)).is_ok());
        for (name, value, expected) in [
            ("exp", json!(now() - 60), Invalid::Expired),
            ("exp", json!("soon"), Invalid::Claims),
            ("exp", Value::Null, Invalid::Claims),
            ("nbf", json!(now() + 60), Invalid::NotYet),
            ("nbf", json!("x"), Invalid::Form),
            ("iss", json!("https://evil.example"), Invalid::Issuer),
            ("iss", json!(["https://id.example", "https://evil.example"]), Invalid::Issuer),
            ("iss", Value::Null, Invalid::Claims),
            ("aud", json!("other"), Invalid::Audience),
            ("aud", json!([]), Invalid::Audience),
            ("aud", json!(7), Invalid::Claims),
            ("aud", Value::Null, Invalid::Claims),
            ("sub", Value::Null, Invalid::Claims),
            ("sub", json!(""), Invalid::Subject),
            ("sub", json!("a\nb"), Invalid::Subject),
            ("sub", json!("s".repeat(SUBJECT_CHARS + 1)), Invalid::Subject),
            ("redkeep_roles", json!("admin"), Invalid::Roles),
            ("redkeep_roles", json!({ "shop": 1 }), Invalid::Roles),
            ("redkeep_roles", json!({ "shop": "owner" }), Invalid::Roles),
            ("redkeep_roles", json!({ "Shop": "viewer" }), Invalid::Roles),
        ] {
            let shown = format!("{name} {value}");
            assert_eq!(with(name, value).unwrap_err(), expected, "{shown}");
        }
    }

    #[test]
    fn a_header_chooses_nothing() {
        // Goal: no way round the signature. Method: the headers and signatures that have worked against others.
        let signer = ec_key();
        let jwk = ec_jwk(&signer, "k");
        let key = from_jwk(jwk.clone()).unwrap();
        let judge = |header: Value, sign: &dyn Fn(&[u8]) -> Vec<u8>| bearer(&jwt(&header, &good(), sign), &key, &terms()).unwrap_err();
        let none = |_: &[u8]| Vec::new();
        for name in ["none", "None", "NONE", ""] {
            assert_eq!(judge(json!({ "alg": name, "kid": "k" }), &none), Invalid::Algorithm, "{name}");
        }
        let public = jwk.to_string();
        let with_public = |bytes: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()), bytes).as_ref().to_vec();
        assert_eq!(judge(json!({ "alg": "HS256", "kid": "k" }), &with_public), Invalid::Algorithm);
        for name in ["ES384", "RS256", "PS256", "EdDSA"] {
            assert_eq!(judge(json!({ "alg": name, "kid": "k" }), &ec_sign(&signer)), Invalid::Algorithm, "{name}");
        }
        let stranger = ec_key();
        assert_eq!(judge(json!({ "alg": "ES256", "kid": "k" }), &ec_sign(&stranger)), Invalid::Signature);
        // The key in the header is not looked at.
        assert_eq!(judge(json!({ "alg": "ES256", "kid": "k", "jwk": ec_jwk(&stranger, "k") }), &ec_sign(&stranger)), Invalid::Signature);
        assert_eq!(judge(json!({ "alg": "ES256", "kid": "k" }), &none), Invalid::Signature);
        assert_eq!(judge(json!({ "alg": "ES256", "kid": "k" }), &|_| vec![0; 64]), Invalid::Signature);
        assert_eq!(judge(json!({ "alg": "ES256", "kid": "k", "crit": ["b64"], "b64": false }), &ec_sign(&signer)), Invalid::Critical);
        for token in ["", "a", "a.b", "a.b.c", "..", "eyJhbGciOiJFUzI1NiJ9", "eyJhbGciOiJFUzI1NiJ9..", "\u{1f511}.b.c"] {
            assert!(matches!(bearer(token, &key, &terms()).unwrap_err(), Invalid::Form | Invalid::Signature), "{token}");
        }
        assert_eq!(key_id(&jwt(&json!({ "alg": "ES256" }), &good(), none)), Err(Invalid::NoKeyId));
    }

    #[test]
    fn a_key_is_for_one_algorithm() {
        let signer = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        // PKCS #1 with 2048 bits: the modulus lies between fixed places.
        let der = signer.public_key().as_ref();
        let jwk = |alg: Option<&str>| {
            let mut jwk = json!({ "kty": "RSA", "kid": "r", "use": "sig", "n": URL_SAFE_NO_PAD.encode(&der[9..265]), "e": "AQAB" });
            if let Some(alg) = alg {
                jwk["alg"] = json!(alg);
            }
            jwk
        };
        for (alg, encoding, name) in [(None, &RSA_PKCS1_SHA256 as &'static dyn RsaEncoding, "RS256"), (Some("PS256"), &RSA_PSS_SHA256, "PS256")] {
            let key = from_jwk(jwk(alg)).unwrap();
            for (header, expected) in [("RS256", name == "RS256"), ("PS256", name == "PS256")] {
                let token = jwt(&json!({ "alg": header, "kid": "r" }), &good(), rsa_sign(&signer, encoding));
                assert_eq!(bearer(&token, &key, &terms()).is_ok(), expected, "{name} as {header}");
            }
        }
        let ec = ec_jwk(&ec_key(), "k");
        let with = |mut jwk: Value, key: &str, value: Value| {
            jwk[key] = value;
            from_jwk(jwk).map(drop)
        };
        assert!(with(jwk(None), "alg", json!("ES256")).is_err());
        assert!(with(jwk(None), "alg", json!("HS256")).is_err());
        assert!(with(jwk(None), "alg", json!("RSA-OAEP")).is_err());
        assert!(with(jwk(None), "use", json!("enc")).is_err());
        assert!(with(jwk(None), "key_ops", json!(["encrypt"])).is_err());
        assert!(with(ec.clone(), "alg", json!("ES384")).is_err());
        assert!(with(ec.clone(), "crv", json!("P-521")).is_err());
        assert!(with(ec, "alg", json!("ES256")).is_ok());
        assert!(from_jwk(json!({ "kty": "oct", "kid": "o", "k": "c2VjcmV0" })).is_err());
    }

    #[test]
    fn other_curves_are_taken_too() {
        let (ed, p384) = (Ed25519KeyPair::generate().unwrap(), EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap());
        let point = p384.public_key().as_ref();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let ed_jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "alg": "EdDSA", "x": text(ed.public_key().as_ref()) });
        let p384_jwk = json!({ "kty": "EC", "crv": "P-384", "kid": "k", "x": text(&point[1..49]), "y": text(&point[49..97]) });
        let of_ed = jwt(&json!({ "alg": "EdDSA", "kid": "k" }), &good(), |bytes| ed.sign(bytes).as_ref().to_vec());
        let of_p384 = jwt(&json!({ "alg": "ES384", "kid": "k" }), &good(), ec_sign(&p384));
        for (jwk, token, other) in [(ed_jwk, &of_ed, &of_p384), (p384_jwk, &of_p384, &of_ed)] {
            let key = from_jwk(jwk).unwrap();
            assert!(bearer(token, &key, &terms()).is_ok());
            assert_eq!(bearer(other, &key, &terms()).unwrap_err(), Invalid::Algorithm);
        }
    }

    #[test]
    fn keys_of_accounts_are_public_and_strong() {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let ec = ec_key();
        assert_eq!(VerifyingKey::from_pem(&pem(rsa.public_key().as_der().unwrap().as_ref())).unwrap().algorithm, Algorithm::PS256);
        assert_eq!(VerifyingKey::from_pem(&pem(ec.public_key().as_der().unwrap().as_ref())).unwrap().algorithm, Algorithm::ES256);
        let private = pem(rsa.public_key().as_ref()).replace("PUBLIC", "PRIVATE");
        assert_eq!(VerifyingKey::from_pem(&private).unwrap_err(), BadKey::Private);
        for text in ["", "nonsense", &pem(b"nonsense"), &pem(digest::digest(&digest::SHA256, b"").as_ref())] {
            assert_eq!(VerifyingKey::from_pem(text).unwrap_err(), BadKey::Form, "{text}");
        }
    }

    #[test]
    fn assertions_are_short_lived_and_for_us() {
        // Method: PS256 with the claims that the SDKs send, then each of them changed.
        let signer = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let key = VerifyingKey::from_pem(&pem(signer.public_key().as_der().unwrap().as_ref())).unwrap();
        let header = json!({ "alg": "PS256", "kid": "key1", "typ": "JWT" });
        let instant = chrono::Utc::now();
        let judge = |iss: Value, aud: Value, iat: Value, exp: Value| {
            let token = jwt(&header, &json!({ "iss": iss, "aud": aud, "iat": iat, "exp": exp }), rsa_sign(&signer, &RSA_PSS_SHA256));
            assertion(&token, &key, "robot", |audience| audience == "us", instant)
        };
        let at = instant.timestamp();
        for (iss, aud, iat, exp, expected) in [
            (json!("robot"), json!("us"), json!(at), json!(at + 3600), Ok(())),
            (json!("robot"), json!(["them", "us"]), json!(at as f64 + 0.5), json!(at as f64 + 3600.5), Ok(())),
            (json!("other"), json!("us"), json!(at), json!(at + 3600), Err(Invalid::Issuer)),
            (json!(["robot"]), json!("us"), json!(at), json!(at + 3600), Err(Invalid::Issuer)),
            (json!("robot"), json!("them"), json!(at), json!(at + 3600), Err(Invalid::Audience)),
            (json!("robot"), json!("us"), json!(at), json!(at + 3601), Err(Invalid::Lifetime)),
            (json!("robot"), json!("us"), json!(at + 20), json!(at + 10), Err(Invalid::Lifetime)),
            (json!("robot"), json!("us"), json!(null), json!(at + 3600), Err(Invalid::Lifetime)),
            (json!("robot"), json!("us"), json!(at + 120), json!(at + 300), Err(Invalid::NotYet)),
            (json!("robot"), json!("us"), json!(at - 3700), json!(at - 100), Err(Invalid::Expired)),
            (json!("robot"), json!("us"), json!(at), json!(1e300), Err(Invalid::Claims)),
            (json!("robot"), json!("us"), json!("x"), json!(at + 3600), Err(Invalid::Form)),
            (json!("robot"), json!("us"), json!(at), json!(null), Err(Invalid::Claims)),
            (json!("robot"), json!(null), json!(at), json!(at + 3600), Err(Invalid::Claims)),
        ] {
            let shown = format!("{iss} {aud} {iat} {exp}");
            assert_eq!(judge(iss, aud, iat, exp), expected, "{shown}");
        }
    }
}
