//! Goal: a path means what it says, however it is written. Method: raw targets against the real service.

use super::{Line, get, send, taken, willing};

/// What is said of something that is not there.
async fn not_found(service: &super::Service, verb: &str, target: &str) -> String {
    let answer = send(service, verb, target, "").await;
    let (code, message) = answer.error();
    assert_eq!((answer.status, code), (404, 5), "{verb} {target}: {message}");
    message
}

#[tokio::test]
async fn ids_in_every_spelling() {
    let (_source, service) = willing().await;
    for target in ["/managed-redis/v1/clusters/main", "/managed-redis/v1/clusters/%6dain", "/managed-redis/v1/clusters/%6D%61%69%6E"] {
        let answer = get(&service, target).await;
        assert_eq!((answer.status, &answer.json()["id"]), (200, &"main".into()), "{target}");
    }
    for (id, shown) in
        [("%256dain", "%6dain"), ("a%2Fb", "a/b"), ("a+b", "a+b"), ("a%20b", "a b"), ("%D1%8F", "я"), ("..", ".."), ("main:", "main:"), ("ma;in", "ma;in")]
    {
        let told = not_found(&service, "GET", &format!("/managed-redis/v1/clusters/{id}")).await;
        assert!(told.contains(&format!("\"{shown}\"")), "{id}: {told}");
    }
    for id in ["%", "%4", "%zz", "x%00", "%ff", "%C3%28"] {
        assert_eq!(get(&service, &format!("/managed-redis/v1/clusters/{id}")).await.fields(), ["cluster_id"], "{id}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_colon_in_an_id_is_data_unless_it_is_the_verb() {
    let (_source, service) = willing().await;
    for verb in ["GET", "DELETE"] {
        for id in ["c9q:20181113T133617", "c9q%3A20181113T133617", "c9q%3a20181113T133617"] {
            let told = not_found(&service, verb, &format!("/managed-redis/v1/backups/{id}")).await;
            assert!(told.contains("\"c9q:20181113T133617\""), "{verb} {id}: {told}");
        }
    }
    for target in ["/managed-redis/v1/clusters/main:backup:backup", "/clusters/main:backup:backup", "/clusters/main%3Abackup:backup"] {
        assert!(not_found(&service, "POST", target).await.contains("\"main:backup\""), "{target}");
    }
    let get = get(&service, "/managed-redis/v1/clusters/main:backup").await;
    assert!(get.status == 404 && get.error().1.contains("\"main:backup\""), "{get:?}");
    // An encoded colon makes no verb.
    assert_eq!(send(&service, "POST", "/managed-redis/v1/clusters/main%3Abackup", "").await.status, 405);
    assert!(service.clients.all_backups().await.is_empty(), "nothing was taken");
    service.stop().await;
}

#[tokio::test]
async fn lengths_count_characters() {
    let (_source, service) = willing().await;
    for character in ["a", "%61", "%D1%8F", "%F0%9F%98%80"] {
        not_found(&service, "GET", &format!("/managed-redis/v1/clusters/{}", character.repeat(50))).await;
        let long = get(&service, &format!("/managed-redis/v1/clusters/{}", character.repeat(51))).await;
        assert_eq!(long.fields(), ["cluster_id"], "{character}");
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_no_path_and_what_takes_other_methods() {
    let (_source, service) = willing().await;
    for target in [
        "/",
        "//",
        "/nothing",
        "/managed-redis/v1/clusters/",
        "/managed-redis/v1/clusters/main/",
        "/managed-redis/v1//clusters",
        "/managed-redis/v1/Clusters",
        "/managed-redis/v1/%63lusters",
        "/managed-redis/v1/clusters/main/nothing",
        "/managed-redis/v1/clusters/main%2Fhosts/x",
        "/managed-redis/v2/clusters",
        "/redkeep.v1.BackupService/List",
        "/openapi.json/",
    ] {
        assert!(not_found(&service, "GET", target).await.contains("/openapi.json"), "{target}");
    }
    not_found(&service, "OPTIONS", "*").await;
    for (verb, target, allow) in [
        ("PUT", "/managed-redis/v1/clusters/main", "DELETE, GET, HEAD, PATCH"),
        ("POST", "/managed-redis/v1/clusters/main", "DELETE, GET, HEAD, PATCH"),
        ("OPTIONS", "/managed-redis/v1/clusters", "GET, HEAD, POST"),
        ("TRACE", "/managed-redis/v1/clusters", "GET, HEAD, POST"),
        ("get", "/managed-redis/v1/clusters", "GET, HEAD, POST"),
        ("BREW", "/redkeep/v1/backups", "GET, HEAD, POST"),
        ("GET", "/clusters/main:backup", "POST"),
        ("PATCH", "/operations/x:cancel", "GET, HEAD, POST"),
        ("POST", "/openapi.json", "GET, HEAD"),
    ] {
        let answer = send(&service, verb, target, "").await;
        assert_eq!((answer.status, answer.error().0, answer.headers["allow"].as_str()), (405, 12, allow), "{verb} {target}");
    }
    // No header makes another method of one.
    let headers = [("X-HTTP-Method-Override", "DELETE"), ("Content-Type", "application/json")];
    let answer = Line::to(&service).await.ask("POST", "/managed-redis/v1/clusters/main", &headers, Some("")).await;
    assert_eq!(answer.status, 405);
    service.stop().await;
}

#[tokio::test]
async fn long_targets() {
    let (_source, service) = willing().await;
    let target = |bytes: usize| {
        let start = "/managed-redis/v1/clusters/";
        format!("{start}{}", "a".repeat(bytes - start.len()))
    };
    assert_eq!(get(&service, &target(8 * 1024)).await.fields(), ["cluster_id"], "the id is too long, the target is not");
    for target in [target(8 * 1024 + 1), "/".repeat(64_000), format!("/managed-redis/v1/clusters?{}", "a".repeat(8 * 1024))] {
        let answer = get(&service, &target).await;
        assert_eq!((answer.status, answer.error().0), (414, 3));
    }
    service.stop().await;
}

#[tokio::test]
async fn the_query() {
    let (_source, service) = willing().await;
    taken(&service, "one").await;
    taken(&service, "two").await;
    for query in ["pageSize=1&folderId=default", "page_size=1&folder_id=default", "page%53ize=1&&folderId=default&"] {
        let page = get(&service, &format!("/redkeep/v1/backups?{query}")).await.json();
        assert_eq!((page["backups"].as_array().unwrap().len(), page["backups"][0]["name"].as_str()), (1, Some("two")), "{query}");
        let next = page["nextPageToken"].as_str().unwrap();
        let rest = get(&service, &format!("/redkeep/v1/backups?{query}&pageToken={next}")).await.json();
        assert_eq!(rest["backups"][0]["name"], "one");
        assert!(rest.get("nextPageToken").is_none());
    }
    for (query, field) in [
        ("pagesize=1", "pagesize"),
        ("pageSize=1&pageSize=1", "page_size"),
        ("pageSize=1&page_size=1", "page_size"),
        ("pageSize=", "page_size"),
        ("pageSize=1.0", "page_size"),
        ("pageSize=+1", "page_size"),
        ("pageSize=9223372036854775808", "page_size"),
        ("pageSize=1001", "page_size"),
        ("pageSize=%zz", "pageSize"),
        ("alt=json", "alt"),
        ("$alt=json", "$alt"),
        ("key=x", "key"),
        ("folderId[]=x", "folderId[]"),
    ] {
        assert_eq!(get(&service, &format!("/redkeep/v1/backups?{query}")).await.fields(), [field], "{query}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_twin_never_leads_to_another_thing() {
    let (_source, service) = willing().await;
    let one = taken(&service, "one").await["id"].as_str().unwrap().to_owned();
    let two = taken(&service, "two").await["id"].as_str().unwrap().to_owned();
    let path = format!("/redkeep/v1/backups/{one}");
    for twin in [format!("backupId={two}"), format!("backup_id={two}")] {
        assert_eq!(send(&service, "DELETE", &format!("{path}?{twin}"), "").await.fields(), ["backup_id"]);
    }
    assert_eq!(send(&service, "PATCH", &path, &format!("{{\"backupId\":\"{two}\",\"updateMask\":\"name\",\"name\":\"x\"}}")).await.fields(), ["backup_id"]);
    assert_eq!(get(&service, &format!("{path}?backupId={one}")).await.json()["name"], "one");
    let same = send(&service, "PATCH", &path, &format!("{{\"backup_id\":\"{one}\",\"updateMask\":\"name\",\"name\":\"uno\"}}")).await;
    assert_eq!(super::ended(&service, &same.json()).await["response"]["name"], "uno");
    let names: Vec<String> = service.clients.all_backups().await.into_iter().map(|backup| backup.name).collect();
    assert_eq!(names, ["two", "uno"]);
    service.stop().await;
}
