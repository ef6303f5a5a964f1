//! Goal: clients that find the service and log in as the SDKs do get in, for as long as what they logged in with counts.
//! Method: the calls of the SDKs, with keys and assertions made here.

use super::{Folk, TOKENS, assert_unrecognised, bearer, operations, two_folders};
use crate::support::answers::{bare, fields};
use crate::support::issuer::{NAME, SigningKey, now};
use crate::support::service::{Service, Setup};
use crate::support::until;
use redkeep::pb::endpoint::api_endpoint_service_client::ApiEndpointServiceClient;
use redkeep::pb::endpoint::{GetApiEndpointRequest, ListApiEndpointsRequest};
use redkeep::pb::iam::create_iam_token_request::Identity;
use redkeep::pb::iam::iam_token_service_client::IamTokenServiceClient;
use redkeep::pb::iam::{CreateIamTokenForServiceAccountRequest, CreateIamTokenRequest, CreateIamTokenResponse, RevokeIamTokenRequest};
use serde_json::{Value, json};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};

async fn channel(service: &Service) -> Channel {
    Channel::from_shared(service.endpoint.clone()).unwrap().connect().await.unwrap()
}

/// Logs in without a token, as the SDKs do.
async fn exchange(service: &Service, identity: Option<Identity>) -> Result<CreateIamTokenResponse, Status> {
    bare(IamTokenServiceClient::new(channel(service).await).create(CreateIamTokenRequest { identity }).await)
}

fn oauth(token: &str) -> Option<Identity> {
    Some(Identity::YandexPassportOauthToken(token.to_owned()))
}

/// An assertion as the Python SDK makes it.
fn assertion(account: &str) -> Value {
    json!({ "iss": account, "aud": "https://iam.localhost:7379/iam/v1/tokens", "iat": now(), "exp": now() + 3600 })
}

fn accounts(keys: &[(&str, &SigningKey)]) -> String {
    let section = |(id, key): &(&str, &SigningKey)| {
        format!(
            "[[auth.service_accounts]]\nid = \"{id}\"\nkey_id = \"{}\"\nroles = {{ shop = \"viewer\" }}\npublic_key = \"\"\"\n{}\"\"\"\n",
            key.id,
            key.pem()
        )
    };
    keys.iter().map(section).collect()
}

#[tokio::test]
async fn the_service_is_found_without_a_token() {
    let (_sources, setup) = two_folders().await;
    Folk::of(&setup);
    let service = setup.auth(TOKENS).server("advertise", "\"keep.example:443\"").start().await;
    let mut endpoints = ApiEndpointServiceClient::new(channel(&service).await);
    let listed = bare(endpoints.list(ListApiEndpointsRequest::default()).await).unwrap();
    let ids: Vec<&str> = listed.endpoints.iter().map(|endpoint| endpoint.id.as_str()).collect();
    assert_eq!(ids, ["endpoint", "iam", "managed-redis", "mdb-redis", "operation"]);
    assert!(listed.endpoints.iter().all(|endpoint| endpoint.address == "keep.example:443") && listed.next_page_token.is_empty());
    #[allow(deprecated, reason = "old clients page this list")]
    let paged = ListApiEndpointsRequest { page_size: 1, page_token: "2".into() };
    assert_eq!(bare(endpoints.list(paged).await).unwrap(), listed, "the list always comes whole");
    let one = bare(endpoints.get(GetApiEndpointRequest { api_endpoint_id: "iam".into() }).await).unwrap();
    assert_eq!((one.id.as_str(), one.address.as_str()), ("iam", "keep.example:443"));
    for id in ["", "compute", "IAM"] {
        assert_eq!(endpoints.get(GetApiEndpointRequest { api_endpoint_id: id.into() }).await.unwrap_err().code(), Code::NotFound, "{id}");
    }
    service.stop().await;

    let plain = Setup::new().start().await;
    let port = plain.endpoint.rsplit_once(':').unwrap().1.to_owned();
    let listed = bare(ApiEndpointServiceClient::new(channel(&plain).await).list(ListApiEndpointsRequest::default()).await).unwrap();
    assert_eq!(listed.endpoints[0].address, format!("localhost:{port}"));
    plain.stop().await;
}

#[tokio::test]
async fn a_token_of_the_file_is_exchanged_and_both_end_together() {
    let (_sources, setup) = two_folders().await;
    let folk = Folk::of(&setup);
    let token = folk.token("alice", &[("shop", "viewer")]).await;
    let until_then = chrono::Utc::now() + chrono::TimeDelta::minutes(10);
    let short = folk.token_until("bob", &[("shop", "viewer")], Some(until_then)).await;
    let service = setup.auth(TOKENS).start().await;

    let issued = exchange(&service, oauth(&token)).await.unwrap();
    let life = issued.expires_at.unwrap().seconds - now();
    assert!((12 * 3600 - 60..=12 * 3600).contains(&life), "{life}");
    assert!(issued.iam_token.starts_with("t1.") && !issued.iam_token.contains(&token));
    assert_eq!(exchange(&service, oauth(&short)).await.unwrap().expires_at.unwrap().seconds, until_then.timestamp());
    let alice = bearer(&service, &issued.iam_token).await;
    assert!(operations(&alice, "shop").await.is_ok());
    assert_eq!(operations(&alice, "news").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(alice.create("main", "n").await.unwrap_err().code(), Code::PermissionDenied, "the roles are those of the token");

    for (token, words) in [("rk_nonsense", "not known"), (&issued.iam_token, "not known")] {
        let refused = exchange(&service, oauth(token)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(refused.message().contains(words) && !refused.message().contains(token), "{refused:?}");
    }
    assert_eq!(fields(exchange(&service, None).await), ["identity"]);
    assert_eq!(fields(exchange(&service, oauth(&"a".repeat(4001))).await), ["yandex_passport_oauth_token"]);

    redkeep::auth::tokens::revoke(&folk.0, &redkeep::auth::tokens::Which::Subject("alice".into())).await.unwrap();
    until("the parent is gone", Duration::from_secs(10), async || operations(&alice, "shop").await.err()).await;
    assert_unrecognised(&service, &issued.iam_token, "was revoked").await;
    assert_eq!(exchange(&service, oauth(&token)).await.unwrap_err().code(), Code::Unauthenticated);

    // Another process has another key.
    let setup = service.stop().await;
    let service = setup.start().await;
    let of_bob = exchange(&service, oauth(&short)).await.unwrap().iam_token;
    assert!(operations(&bearer(&service, &of_bob).await, "shop").await.is_ok());
    assert_unrecognised(&service, &issued.iam_token, "get a new one").await;
    service.stop().await;
}

#[tokio::test]
async fn service_accounts_log_in_with_their_keys() {
    // Method: as the Python SDK does, PS256 and an audience that holds the endpoint; and with EC.
    let (rsa, ec, stranger) = (SigningKey::rsa("key1", "PS256"), SigningKey::ec("key2"), SigningKey::rsa("key1", "PS256"));
    let pkcs1 = SigningKey::rsa("key3", "RS256");
    let (_sources, setup) = two_folders().await;
    Folk::of(&setup);
    let service = setup.auth(&format!("{TOKENS}\n{}", accounts(&[("robot", &rsa), ("robot", &ec), ("robot", &pkcs1)]))).start().await;
    let log_in = async |jwt: String| exchange(&service, Some(Identity::Jwt(jwt))).await;

    for key in [&rsa, &ec] {
        let issued = log_in(key.jwt(&assertion("robot"))).await.unwrap();
        let clients = bearer(&service, &issued.iam_token).await;
        assert!(operations(&clients, "shop").await.is_ok());
        assert_eq!(operations(&clients, "news").await.unwrap_err().code(), Code::NotFound);
    }
    let with = |name: &str, value: Value| {
        let mut claims = assertion("robot");
        claims[name] = value;
        rsa.jwt(&claims)
    };
    for (jwt, words) in [
        (stranger.jwt(&assertion("robot")), "a signature that does not fit"),
        (pkcs1.jwt(&assertion("robot")), "another algorithm"),
        (SigningKey::ec("key9").jwt(&assertion("robot")), "not known"),
        (with("iss", json!("other")), "another issuer"),
        (with("aud", json!("https://iam.localhost:7379/elsewhere")), "another audience"),
        (with("aud", json!("http://iam.localhost:7379/iam/v1/tokens")), "another audience"),
        (with("exp", json!(now() + 7200)), "at most one hour"),
        (with("exp", json!(now() - 60)), "has expired"),
        (with("iat", json!(now() + 600)), "not valid yet"),
        ("nonsense".to_owned(), "not well formed"),
    ] {
        let refused = log_in(jwt.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
        assert!(refused.message().contains(words) && !refused.message().contains(&jwt), "{words}: {refused:?}");
    }
    // The assertion itself opens nothing.
    assert_unrecognised(&service, &rsa.jwt(&assertion("robot")), "is not known").await;
    service.stop().await;
}

#[tokio::test]
async fn beside_jwts_accounts_may_log_in_and_tokens_are_not_exchanged() {
    let (key, issuer) = (SigningKey::ec("key1"), SigningKey::ec("k"));
    let (_sources, setup) = two_folders().await;
    std::fs::write(setup.folder().join("keys.json"), json!({ "keys": [issuer.jwk()] }).to_string()).unwrap();
    let auth = format!(
        "mode = \"jwt\"\nissuer = \"{NAME}\"\naudience = \"redkeep\"\njwks_file = \"keys.json\"\ntoken_audiences = [\"https://keep.example/iam/v1/tokens\"]\n{}",
        accounts(&[("robot", &key)])
    );
    let service = setup.auth(&auth).start().await;
    let refused = exchange(&service, Some(Identity::Jwt(key.jwt(&assertion("robot"))))).await.unwrap_err();
    assert!(refused.message().contains("another audience"), "{refused:?}");
    let mut claims = assertion("robot");
    claims["aud"] = json!("https://keep.example/iam/v1/tokens");
    let issued = exchange(&service, Some(Identity::Jwt(key.jwt(&claims)))).await.unwrap();
    assert!(operations(&bearer(&service, &issued.iam_token).await, "shop").await.is_ok());
    let refused = exchange(&service, oauth("rk_x")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("no token to exchange"), "{refused:?}");
    service.stop().await;
}

#[tokio::test]
async fn where_nobody_has_to_log_in_an_sdk_can_do_so_all_the_same() {
    let (_sources, setup) = two_folders().await;
    let service = setup.start().await;
    let issued = exchange(&service, oauth("AQAA-anything")).await.unwrap();
    for token in [issued.iam_token.as_str(), "anything", "t1.e30.e30"] {
        assert!(operations(&bearer(&service, token).await, "shop").await.is_ok(), "{token}");
    }
    let mut tokens = IamTokenServiceClient::new(channel(&service).await);
    let act_as = CreateIamTokenForServiceAccountRequest { service_account_id: "robot".into() };
    for (answer, words) in [
        (tokens.create_for_service_account(act_as).await.map(drop), "log in as the service account itself"),
        (tokens.revoke(RevokeIamTokenRequest { iam_token: issued.iam_token }).await.map(drop), "ends by itself within 12 hours"),
    ] {
        let refused = answer.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().contains(words), "{refused:?}");
    }
    service.stop().await;
}
