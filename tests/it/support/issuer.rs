//! An issuer of JWTs: keys, a key set on a socket, and tokens made by hand, so that they can be wrong in every way.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The issuer's name in its tokens.
pub const NAME: &str = "https://id.example";

/// Seconds since 1970.
pub fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

/// Makes a JWT of any header and claims, with any signature.
pub fn jwt(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair, &'static str),
}

/// A key with its id.
pub struct SigningKey {
    pub id: String,
    pair: Pair,
}

impl SigningKey {
    /// EC on P-256, for ES256.
    pub fn ec(id: &str) -> Self {
        Self { id: id.into(), pair: Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")) }
    }

    /// RSA with 2048 bits, for RS256 or PS256.
    pub fn rsa(id: &str, algorithm: &'static str) -> Self {
        Self { id: id.into(), pair: Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"), algorithm) }
    }

    fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Ec(_) => "ES256",
            Pair::Rsa(_, algorithm) => algorithm,
        }
    }

    /// Signs bytes with the algorithm of the key.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, bytes).expect("a signature").as_ref().to_vec(),
            Pair::Rsa(pair, algorithm) => {
                let encoding: &'static dyn RsaEncoding = if *algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, bytes, &mut signature).expect("a signature");
                signature
            }
        }
    }

    /// A JWT with the usual header.
    pub fn jwt(&self, claims: &Value) -> String {
        jwt(&json!({ "typ": "JWT", "alg": self.algorithm(), "kid": self.id }), claims, |bytes| self.sign(bytes))
    }

    /// The public half in PEM.
    pub fn pem(&self) -> String {
        let spki = match &self.pair {
            Pair::Ec(pair) => pair.public_key().as_der().expect("a key").as_ref().to_vec(),
            Pair::Rsa(pair, _) => pair.public_key().as_der().expect("a key").as_ref().to_vec(),
        };
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(spki))
    }

    /// The public half as a JSON Web Key.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.pair {
            Pair::Ec(pair) => {
                // 04, then both coordinates.
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": text(&point[1..33]), "y": text(&point[33..65]) })
            }
            Pair::Rsa(pair, algorithm) => {
                // PKCS #1 with 2048 bits: the modulus lies between fixed places.
                let modulus = text(&pair.public_key().as_ref()[9..265]);
                json!({ "kty": "RSA", "alg": algorithm, "use": "sig", "kid": self.id, "n": modulus, "e": "AQAB" })
            }
        }
    }
}

/// A key set that is served on a socket.
pub struct Issuer {
    pub url: String,
    set: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    /// Serves these keys.
    pub async fn start(keys: &[&SigningKey]) -> Self {
        let (set, asked) = (Arc::new(Mutex::new(String::new())), Arc::new(AtomicUsize::new(0)));
        let (body, count) = (Arc::clone(&set), Arc::clone(&asked));
        let answer = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let body = body.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move { body }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/keys", get(answer))).await });
        let issuer = Self { url, set, asked };
        issuer.publish(keys);
        issuer
    }

    /// Changes the keys.
    pub fn publish(&self, keys: &[&SigningKey]) {
        let set = json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string();
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = set;
    }

    /// How often the keys were asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
