//! Goal: the object servers of the tests, and the proxy before them, are what the tests with storage take them for. Method: plain HTTP,
//! without the service.

mod days;

use crate::support::http::{Answer, ask};
use crate::support::objects::{Bucket, Kind, S3_LOGIN};
use crate::support::proxy::{Fault, Proxy, Rule};
use std::time::Duration;

async fn request(address: &str, method: &str, target: &str, body: &[u8]) -> Answer {
    ask(address, &[&format!("{method} {target} HTTP/1.1"), &format!("Host: {address}"), &format!("Authorization: {S3_LOGIN}")], body).await
}

#[tokio::test]
async fn a_bucket_tells_its_objects_and_its_unfinished_uploads() {
    for kind in [Kind::S3, Kind::Google] {
        let Some(bucket) = Bucket::open(kind).await else { return };
        let at = |key: &str| format!("/{}/{key}", bucket.name());
        assert_eq!(request(bucket.server(), "PUT", &at("a/b"), b"text").await.status, 200);
        let begun = request(bucket.server(), "POST", &at("a/c?uploads"), &[]).await;
        assert!(begun.text().contains("UploadId"), "{}", begun.text());
        assert_eq!((bucket.objects().await, bucket.unfinished().await), (vec!["a/b".to_owned()], vec!["a/c".to_owned()]), "{kind:?}");
        assert_eq!(bucket.read("a/b").await, b"text");
        bucket.remove("a/b").await;
        assert!(bucket.objects().await.is_empty());
    }
    let Some(bucket) = Bucket::open(Kind::Azure).await else { return };
    assert!(bucket.objects().await.is_empty() && bucket.unfinished().await.is_empty());
}

#[tokio::test]
async fn the_proxy_does_what_its_rules_say() {
    let Some(bucket) = Bucket::open(Kind::S3).await else { return };
    let proxy = Proxy::start(bucket.server()).await;
    let at = |key: &str| format!("/{}/{key}", bucket.name());
    let put = async |key: &str, body: &'static [u8]| request(&proxy.address(), "PUT", &at(key), body).await;
    proxy.rule(Rule::new(Fault::Answer(503, "SlowDown")).method("PUT").within("/one").after(1).times(1));
    let told = [put("one", b"1").await.status, put("one", b"1").await.status, put("one", b"1").await.status];
    assert_eq!(told, [200, 503, 200]);
    proxy.clear().rule(Rule::new(Fault::DamageRequest).times(1)).rule(Rule::new(Fault::DamageAnswer).method("GET").times(1));
    put("two", b"abc").await;
    assert_eq!(bucket.read("two").await, b"acc");
    assert_eq!(request(&proxy.address(), "GET", &at("two"), &[]).await.body, b"acb");
    assert_eq!(request(&proxy.address(), "GET", &at("two"), &[]).await.body, b"acc");
    proxy.clear().rule(Rule::new(Fault::CutAnswer(2)));
    assert_eq!(request(&proxy.address(), "GET", &at("two"), &[]).await.body, b"ac");
    // Resets end in no answer; one of them comes too late to undo what was asked.
    for (fault, there) in [(Fault::Reset, false), (Fault::ResetWithin, false), (Fault::LoseAnswer, true), (Fault::Swallow, false)] {
        proxy.clear().rule(Rule::new(fault));
        let (proxy, target) = (proxy.address(), at("three"));
        let asking = tokio::spawn(async move { request(&proxy, "PUT", &target, b"abc").await });
        match tokio::time::timeout(Duration::from_secs(1), asking).await {
            Err(_) => assert_eq!(fault, Fault::Swallow),
            Ok(ended) => assert!(ended.is_err(), "{fault:?}"),
        }
        assert_eq!(bucket.objects().await.contains(&"three".to_owned()), there, "{fault:?}");
        if there {
            bucket.remove("three").await;
        }
    }
    proxy.clear().outage(true);
    let before = proxy.struck();
    let (address, target) = (proxy.address(), at("two"));
    assert!(tokio::spawn(async move { request(&address, "GET", &target, &[]).await }).await.is_err());
    assert_eq!(proxy.struck(), before + 1);
    proxy.outage(false);
    assert_eq!(request(&proxy.address(), "GET", &at("two"), &[]).await.status, 200);
}
