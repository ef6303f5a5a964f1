//! Goal: a JWT of the trusted issuer lets in as what its claims say, and nothing else does. Method: an issuer on a socket whose
//! keys rotate, and tokens made by hand.

use super::{assert_unrecognised, bearer, operations, two_folders};
use crate::support::issuer::{Issuer, NAME, SigningKey, jwt, now};
use crate::support::service::Setup;
use crate::support::until;
use aws_lc_rs::hmac;
use serde_json::{Value, json};
use std::time::Duration;
use tonic::Code;

fn auth(source: &str) -> String {
    format!("mode = \"jwt\"\nissuer = \"{NAME}\"\naudience = \"redkeep\"\n{source}")
}

fn claims() -> Value {
    json!({ "iss": NAME, "aud": "redkeep", "sub": "alice", "iat": now(), "exp": now() + 300, "redkeep_roles": { "shop": "viewer" } })
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

#[tokio::test]
async fn only_a_good_jwt_lets_in() {
    let (ec, rsa, stranger) = (SigningKey::ec("ec"), SigningKey::rsa("rsa", "RS256"), SigningKey::ec("ec"));
    let issuer = Issuer::start(&[&ec, &rsa]).await;
    let (_sources, setup) = two_folders().await;
    let service = setup.auth(&auth(&format!("jwks_url = \"{}\"", issuer.url))).start().await;

    for good in
        [ec.jwt(&claims()), rsa.jwt(&claims()), ec.jwt(&with("aud", json!(["other", "redkeep"]))), ec.jwt(&with("redkeep_roles", json!({ "*": "viewer" })))]
    {
        assert!(operations(&bearer(&service, &good).await, "shop").await.is_ok());
    }
    let signed = ec.jwt(&claims());
    let mut other_claims = signed.split('.').map(str::to_owned).collect::<Vec<_>>();
    let stolen = ec.jwt(&with("redkeep_roles", json!({ "*": "admin" })));
    other_claims[1] = stolen.split('.').nth(1).unwrap().to_owned();
    let public = ec.jwk().to_string();
    let pem = rsa.pem();
    let hmac_of = |key: &str, id: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        jwt(&json!({ "alg": "HS256", "kid": id }), &claims(), |bytes| hmac::sign(&key, bytes).as_ref().to_vec())
    };
    for (token, words) in [
        (ec.jwt(&with("exp", json!(now() - 60))), "the JWT has expired"),
        (ec.jwt(&with("nbf", json!(now() + 600))), "is not valid yet"),
        (ec.jwt(&with("iss", json!("https://evil.example"))), "another issuer"),
        (ec.jwt(&with("aud", json!("other"))), "another audience"),
        (ec.jwt(&with("sub", json!(""))), "`sub`"),
        (ec.jwt(&with("redkeep_roles", json!({ "shop": "owner" }))), "redkeep_roles"),
        (ec.jwt(&json!({ "sub": "alice" })), "needs the claims"),
        (jwt(&json!({ "alg": "none", "kid": "ec" }), &claims(), |_| Vec::new()), "another algorithm"),
        (hmac_of(&public, "ec"), "another algorithm"),
        (hmac_of(&pem, "rsa"), "another algorithm"),
        (jwt(&json!({ "alg": "PS256", "kid": "rsa" }), &claims(), |bytes| rsa.sign(bytes)), "another algorithm"),
        (stranger.jwt(&claims()), "a signature that does not fit"),
        (other_claims.join("."), "a signature that does not fit"),
        (jwt(&json!({ "alg": "ES256" }), &claims(), |bytes| ec.sign(bytes)), "names no key"),
        (jwt(&json!({ "alg": "ES256", "kid": "gone" }), &claims(), |bytes| ec.sign(bytes)), "names a key that is not known"),
        (jwt(&json!({ "alg": "ES256", "kid": "ec", "crit": ["x"] }), &claims(), |bytes| ec.sign(bytes)), "critical"),
        ("rk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(), "not well formed"),
    ] {
        assert_unrecognised(&service, &token, words).await;
    }

    // One whom the issuer gives no role is somebody who may do nothing; so is one with a role elsewhere.
    let mut without = claims();
    without.as_object_mut().unwrap().remove("redkeep_roles");
    let refused = operations(&bearer(&service, &ec.jwt(&without)).await, "shop").await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "this call needs the role auditor"));
    let elsewhere = bearer(&service, &ec.jwt(&with("redkeep_roles", json!({ "news": "admin" })))).await;
    assert_eq!(operations(&elsewhere, "shop").await.unwrap_err().code(), Code::NotFound);
    let refused = bearer(&service, &signed).await.create("main", "n").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    service.stop().await;
}

#[tokio::test]
async fn keys_rotate_and_strangers_do_not_flood_the_issuer() {
    let (old, new) = (SigningKey::ec("old"), SigningKey::rsa("new", "PS256"));
    let issuer = Issuer::start(&[&old]).await;
    let (_sources, setup) = two_folders().await;
    let service = setup.auth(&auth(&format!("jwks_url = \"{}\"", issuer.url))).start().await;
    let of_old = bearer(&service, &old.jwt(&claims())).await;
    assert!(operations(&of_old, "shop").await.is_ok());
    issuer.publish(&[&old, &new]);
    let asked = issuer.asked();
    let of_new = bearer(&service, &new.jwt(&claims())).await;
    assert!(operations(&of_new, "shop").await.is_ok(), "an unknown key is asked for at once");
    assert!(operations(&of_old, "shop").await.is_ok());
    for number in 0..50 {
        let key = SigningKey::ec(&format!("made-up-{number}"));
        assert_unrecognised(&service, &key.jwt(&claims()), "not known").await;
    }
    assert_eq!(issuer.asked(), asked + 1, "and no oftener than every ten seconds");
    service.stop().await;
}

#[tokio::test]
async fn an_issuer_that_is_away_at_the_start_is_awaited() {
    let nobody = Setup::new().auth(&auth("jwks_url = \"http://127.0.0.1:1/keys\"")).start().await;
    let refused = operations(&bearer(&nobody, &SigningKey::ec("k").jwt(&claims())).await, "shop").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    nobody.stop().await;
}

#[tokio::test]
async fn a_key_file_is_read_again_when_it_changes() {
    let (old, new) = (SigningKey::ec("old"), SigningKey::ec("new"));
    let (_sources, setup) = two_folders().await;
    let file = setup.folder().join("keys.json");
    let write = |key: &SigningKey| std::fs::write(&file, json!({ "keys": [key.jwk()] }).to_string()).unwrap();
    write(&old);
    let service = setup.auth(&auth("jwks_file = \"keys.json\"")).start().await;
    assert!(operations(&bearer(&service, &old.jwt(&claims())).await, "shop").await.is_ok());
    write(&new);
    let clients = bearer(&service, &new.jwt(&claims())).await;
    until("the new key counts", Duration::from_secs(10), async || operations(&clients, "shop").await.ok()).await;
    assert_unrecognised(&service, &old.jwt(&claims()), "not known").await;
    service.stop().await;
}
