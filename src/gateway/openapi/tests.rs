//! Goal: the document is sound in itself and true to the schema. Method: the document of our own schema, walked.

use super::*;
use crate::gateway::routes;

fn own() -> Value {
    document(&routes::own().unwrap())
}

/// Every operation with its path and method.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(verb, operation)| (path.as_str(), verb.as_str(), operation))).collect()
}

fn at<'d>(document: &'d Value, path: &str, verb: &str) -> &'d Value {
    &document["paths"][path][verb]
}

fn parameter<'d>(operation: &'d Value, name: &str) -> &'d Value {
    operation["parameters"].as_array().unwrap().iter().find(|parameter| parameter["name"] == name).unwrap()
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_referred_to() {
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    if name == "$ref"
                        && let Some(reference) = member.as_str()
                    {
                        found.insert(reference.to_owned());
                    }
                    walk(member, found);
                }
            }
            Value::Array(elements) => elements.iter().for_each(|element| walk(element, found)),
            _ => {}
        }
    }
    let document = own();
    let mut found = BTreeSet::new();
    walk(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some_and(Value::is_object), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{name}");
        assert!(found.contains(&format!("#/components/schemas/{name}")), "{name}");
    }
}

#[test]
fn every_binding_is_an_operation() {
    let (document, routes) = (own(), routes::own().unwrap());
    let operations = operations(&document);
    assert_eq!(operations.len(), routes.bindings().len());
    let mut ids = BTreeSet::new();
    let mut shapes = BTreeSet::new();
    for (path, verb, operation) in operations {
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path}");
        assert!(!operation["description"].as_str().unwrap().is_empty(), "{path}");
        let declared = operation["parameters"].as_array().unwrap();
        let names: BTreeSet<(&str, &str)> = declared.iter().map(|it| (it["in"].as_str().unwrap(), it["name"].as_str().unwrap())).collect();
        assert_eq!(names.len(), declared.len(), "{path}");
        let in_path: BTreeSet<&str> = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
        assert_eq!(names.iter().filter(|(place, _)| *place == "path").map(|(_, name)| *name).collect::<BTreeSet<_>>(), in_path, "{path}");
        // Paths that differ by the names of their parameters only are one path to a reader.
        let shape: String =
            path.split('{').enumerate().map(|(at, part)| if at == 0 { part.to_owned() } else { format!("{{}}{}", part.split_once('}').unwrap().1) }).collect();
        assert!(shapes.insert((shape, verb)), "{path}");
        let answers = operation["responses"].as_object().unwrap();
        assert!(answers.contains_key("200") && answers.contains_key("400") && answers.contains_key("404"), "{path}");
        let is_built = !operation["description"].as_str().unwrap().contains("This call is not built");
        assert_eq!(answers.contains_key("501"), !is_built, "{path}");
        assert_eq!(answers.contains_key("415"), operation.get("requestBody").is_some(), "{path}");
    }
}

#[test]
fn rules_become_constraints() {
    let document = own();
    let list = at(&document, "/redkeep/v1/backups", "get");
    let page_size = &parameter(list, "pageSize")["schema"];
    assert_eq!(page_size, &json!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": 1000 }));
    assert_eq!(parameter(list, "folderId")["schema"], json!({ "type": "string", "maxLength": 50, "pattern": "^[^\\u0000]*$" }));
    assert_eq!(parameter(list, "folderId")["description"], "Folder; `default` when it is empty.");
    assert_eq!(parameter(at(&document, "/managed-redis/v1/backups", "get"), "folderId")["required"], true);

    let create = at(&document, "/redkeep/v1/backups", "post");
    assert_eq!(create["requestBody"]["required"], true);
    assert_eq!(parameter(create, "Idempotency-Key")["in"], "header");
    let body = &document["components"]["schemas"]["redkeep.v1.CreateBackupRequest.In"];
    assert_eq!(body["required"], json!(["clusterId"]));
    assert_eq!(body["additionalProperties"], false);
    assert_eq!(body["properties"]["clusterId"], json!({ "type": "string", "minLength": 1, "maxLength": 50, "description": "Cluster to back up." }));
    assert_eq!(body["properties"]["name"]["pattern"], "^(?:([a-zA-Z0-9][a-zA-Z0-9_.-]*)?)$");
    assert_eq!(body["properties"]["expiresAt"]["format"], "date-time");
    let labels = &body["properties"]["labels"];
    assert_eq!(
        (&labels["maxProperties"], &labels["additionalProperties"]["maxLength"], &labels["propertyNames"]["maxLength"]),
        (&json!(64), &json!(63), &json!(63))
    );

    let update = &at(&document, "/redkeep/v1/backups/{backupId}", "patch")["requestBody"]["content"]["application/json"]["schema"];
    assert!(update["properties"].get("backupId").is_none() && update["properties"].get("updateMask").is_some());
    let holds = &update["properties"]["holds"];
    assert_eq!((&holds["maxItems"], &holds["uniqueItems"], &holds["items"]["minLength"]), (&json!(16), &json!(true), &json!(1)));
    assert_eq!(holds["items"]["pattern"], "^(?:[^\\u0000-\\u001f\\u007f-\\u009f]*)$");
    assert_eq!(parameter(at(&document, "/managed-redis/v1/clusters/{clusterId}:backup", "post"), "clusterId")["schema"]["minLength"], 1);
}

#[test]
fn answers_have_their_shapes() {
    let document = own();
    let schemas = &document["components"]["schemas"];
    let operation = &schemas["yandex.cloud.operation.Operation"];
    assert_eq!(operation["required"], json!(["done"]));
    assert_eq!(
        (&operation["properties"]["metadata"]["required"], &operation["properties"]["metadata"]["additionalProperties"]),
        (&json!(["@type"]), &json!(true))
    );
    assert_eq!(schemas["google.rpc.Status"]["required"], json!(["code", "message"]));
    assert_eq!(schemas["redkeep.v1.ListBackupsResponse"]["required"], json!(["backups"]));
    assert_eq!(schemas["redkeep.v1.Backup"]["properties"]["sizeBytes"]["type"], "string");
    assert!(schemas["redkeep.v1.Backup"].get("additionalProperties").is_none());
    let watch = at(&document, "/redkeep/v1/operations/{operationId}:watch", "get");
    assert!(watch["responses"]["200"]["content"].get("application/x-ndjson").is_some());
    let backup = at(&document, "/managed-redis/v1/clusters/{clusterId}:backup", "post");
    assert_eq!(backup["x-operation"]["metadata"]["$ref"], "#/components/schemas/yandex.cloud.mdb.redis.v1.BackupClusterMetadata");
    assert_eq!(backup["x-operation"]["response"]["$ref"], "#/components/schemas/yandex.cloud.mdb.redis.v1.Cluster");
    let link = &backup["responses"]["200"]["links"]["operation"];
    assert_eq!(
        (&link["operationId"], &link["parameters"]["operationId"]),
        (&json!("yandex_cloud_operation_OperationService_Get"), &json!("$response.body#/id"))
    );
    assert_eq!(at(&document, "/operations/{operationId}", "get")["operationId"], link["operationId"]);
    assert!(at(&document, "/clusters/{clusterId}:backup", "post").is_object(), "additional bindings are there");
    assert!(at(&document, "/operations/{operationId}:cancel", "get").is_object() && at(&document, "/operations/{operationId}:cancel", "post").is_object());
}
