//! Goal: every call of the schema that has an http rule is reachable, and the document lists each. Method: the rules, read
//! from the descriptors here, against the real service.

use super::{Line, get, willing};
use redkeep::pb;
use redkeep::pb::google::api::{HttpRule, http_rule};

/// Every rule: the call in gRPC, its HTTP method, its path with `x` for each variable, and whether it takes a body.
fn rules() -> Vec<(String, &'static str, String, bool)> {
    let http = pb::pool().get_extension_by_name("google.api.http").unwrap();
    let mut found = Vec::new();
    for method in pb::pool().services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let options = method.options();
        if !options.has_extension(&http) {
            continue;
        }
        let rule: HttpRule = options.get_extension(&http).as_message().unwrap().transcode_to().unwrap();
        let call = format!("/{}/{}", method.parent_service().full_name(), method.name());
        for rule in std::iter::once(&rule).chain(&rule.additional_bindings) {
            let (verb, path) = match rule.pattern.as_ref().unwrap() {
                http_rule::Pattern::Get(path) => ("GET", path),
                http_rule::Pattern::Put(path) => ("PUT", path),
                http_rule::Pattern::Post(path) => ("POST", path),
                http_rule::Pattern::Delete(path) => ("DELETE", path),
                http_rule::Pattern::Patch(path) => ("PATCH", path),
                http_rule::Pattern::Custom(custom) => panic!("{custom:?}"),
            };
            let path: String =
                path.split('{').enumerate().map(|(at, part)| if at == 0 { part.to_owned() } else { format!("x{}", part.split_once('}').unwrap().1) }).collect();
            found.push((call.clone(), verb, path, !rule.body.is_empty()));
        }
    }
    found
}

#[tokio::test]
async fn every_call_with_a_rule_is_reachable() {
    let (_source, service) = willing().await;
    let rules = rules();
    assert!(rules.len() > 80, "{}", rules.len());
    for (call, verb, path, _) in rules {
        let answer = Line::to(&service).await.ask(verb, &path, &[], None).await;
        let not_built = redkeep::api::not_built(&call);
        if answer.status == 200 {
            assert!(not_built.is_none(), "{call}");
            continue;
        }
        let (code, message) = answer.error();
        assert!(answer.status != 405 && !message.contains("/openapi.json"), "{verb} {path}: {message}");
        match not_built {
            Some(sentence) => assert_eq!((answer.status, code, message.as_str()), (501, 12, sentence), "{call}"),
            None => assert!([400, 404].contains(&answer.status), "{call}: {answer:?}"),
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn the_document_lists_every_call() {
    let (_source, service) = willing().await;
    let answer = get(&service, "/openapi.json").await;
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "application/json"));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut shapes: Vec<(String, String, bool)> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path: String =
            path.split('{').enumerate().map(|(at, part)| if at == 0 { part.to_owned() } else { format!("x{}", part.split_once('}').unwrap().1) }).collect();
        shapes.extend(item.as_object().unwrap().iter().map(|(verb, operation)| (verb.to_uppercase(), path.clone(), operation.get("requestBody").is_some())));
    }
    let mut expected: Vec<_> = rules().into_iter().map(|(_, verb, path, body)| (verb.to_owned(), path, body)).collect();
    shapes.sort();
    expected.sort();
    assert_eq!(shapes, expected);
    service.stop().await;
}

#[tokio::test]
async fn both_kinds_of_clients_share_the_port() {
    let (_source, service) = willing().await;
    // One address for both: the content type decides.
    let grpc = Line::to(&service).await.ask("POST", "/redkeep.v1.BackupService/List", &[("Content-Type", "application/json")], Some("{}")).await;
    assert_eq!((grpc.status, grpc.error().0), (404, 5), "there is no REST under the paths of gRPC");
    assert!(service.clients.all_backups().await.is_empty(), "gRPC goes on");
    service.stop().await;
}

#[test]
fn the_configuration_for_envoy_names_every_service_and_our_limit() {
    // Method: its lines, read as text; it is no part of the program, so nothing else would notice.
    let text = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/envoy/envoy.yaml")).unwrap();
    let start = text.find("services:\n").unwrap() + "services:\n".len();
    let listed: Vec<&str> = text[start..].lines().map_while(|line| line.trim().strip_prefix("- ")).collect();
    let mut expected: Vec<String> = rules().into_iter().map(|(call, ..)| call.split('/').nth(1).unwrap().to_owned()).collect();
    expected.sort();
    expected.dedup();
    assert_eq!(listed, expected);
    assert!(text.contains(&format!("max_request_body_size: {}\n", redkeep::api::REQUEST_BYTES)));
}
