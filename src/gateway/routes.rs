//! Which call a method and a path are for.
//!
//! Filled once from the http rules of the descriptors; no path is written by hand. Paths are matched as they arrive: they
//! are cut at slashes and at a verb before anything is decoded, so an encoded slash or colon is data.

use super::Error;
use super::template::{Segment, Template};
use crate::pb;
use crate::pb::google::api::{HttpRule, http_rule};
use axum::http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MethodDescriptor, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The method of a rule that leaves it open.
const ANY: &str = "*";

/// One way to reach a call.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) method: MethodDescriptor,
    /// Where the call is in gRPC.
    pub(super) path: PathAndQuery,
    /// The HTTP method; `*` for any.
    pub(super) verb: String,
    pub(super) template: Template,
    pub(super) variables: Vec<Variable>,
    pub(super) body: Body,
    /// The only field of the response that is sent; `None` for all of it.
    pub(super) response: Option<FieldDescriptor>,
    /// Whether this is the first rule of its method.
    pub(super) is_primary: bool,
}

/// What the body holds.
#[derive(Debug, PartialEq)]
pub(super) enum Body {
    /// Nothing that is read.
    None,
    /// Every field that is not in the path.
    Whole,
    /// This field.
    Field(FieldDescriptor),
}

/// A field that is filled from the path.
#[derive(Debug)]
pub(super) struct Variable {
    /// The way to the field; never empty.
    pub(super) field: Vec<FieldDescriptor>,
    /// What its value is made of.
    pub(super) parts: Vec<Part>,
    /// Whether it can stand for more than one segment.
    pub(super) is_many: bool,
}

/// A part of a value from the path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// This text.
    Literal(String),
    /// What the wildcard of this number stands for.
    Wildcard(usize),
}

/// What was found for a method and a path.
#[derive(Debug)]
pub(super) enum Found<'r, 'p> {
    /// A call, and what the wildcards stand for, not decoded.
    Call(&'r Binding, Vec<&'p str>),
    /// The path is there for these methods only.
    OtherMethods(BTreeSet<String>),
    /// No rule has the path.
    Nothing,
}

/// Every binding, and how it is found.
#[derive(Debug, Default)]
pub(super) struct Routes {
    bindings: Vec<Binding>,
    matchers: BTreeMap<String, matchit::Router<Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    binding: usize,
    is_hollow: bool,
}

impl Routes {
    /// The routes of every method of the pool that has an http rule.
    ///
    /// # Errors
    ///
    /// [`Error::Rule`] for a rule that cannot be served.
    pub(super) fn of(pool: &DescriptorPool) -> Result<Self, Error> {
        let http = pool.get_extension_by_name("google.api.http").ok_or(Error::NoRules)?;
        let mut routes = Self::default();
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let options = method.options();
            if !options.has_extension(&http) {
                continue;
            }
            let rule = match &*options.get_extension(&http) {
                Value::Message(rule) => rule.transcode_to::<HttpRule>().map_err(|fault| Error::rule(&method, fault.to_string()))?,
                _ => return Err(Error::NoRules),
            };
            routes.add(&method, &rule)?;
        }
        Ok(routes)
    }

    /// Adds a method under its rule and the additional ones.
    pub(super) fn add(&mut self, method: &MethodDescriptor, rule: &HttpRule) -> Result<(), Error> {
        self.add_one(method, rule, true).map_err(|what| Error::rule(method, what))?;
        for additional in &rule.additional_bindings {
            if !additional.additional_bindings.is_empty() {
                return Err(Error::rule(method, "an additional binding has additional bindings"));
            }
            self.add_one(method, additional, false).map_err(|what| Error::rule(method, what))?;
        }
        Ok(())
    }

    fn add_one(&mut self, method: &MethodDescriptor, rule: &HttpRule, is_primary: bool) -> Result<(), String> {
        if method.is_client_streaming() {
            return Err("a stream of requests has no HTTP form".to_owned());
        }
        let (verb, path) = match rule.pattern.as_ref().ok_or("it has no path")? {
            http_rule::Pattern::Get(path) => ("GET", path),
            http_rule::Pattern::Put(path) => ("PUT", path),
            http_rule::Pattern::Post(path) => ("POST", path),
            http_rule::Pattern::Delete(path) => ("DELETE", path),
            http_rule::Pattern::Patch(path) => ("PATCH", path),
            http_rule::Pattern::Custom(custom) => (custom.kind.as_str(), &custom.path),
        };
        if verb != ANY && axum::http::Method::from_bytes(verb.as_bytes()).is_err() {
            return Err(format!("`{verb}` is no HTTP method"));
        }
        let in_path = |what: String| format!("the path {path}: {what}");
        let template = Template::parse(path).map_err(in_path)?;
        let patterns = template.patterns().map_err(in_path)?;
        let variables = variables(method, &template)?;
        let body = body(method, rule, &variables)?;
        let response = match rule.response_body.as_str() {
            "" => None,
            name => Some(method.output().get_field_by_name(name).ok_or_else(|| format!("the response has no field {name}"))?),
        };
        let matcher = self.matchers.entry(verb.to_owned()).or_default();
        for pattern in patterns {
            let entry = Entry { binding: self.bindings.len(), is_hollow: pattern.is_hollow };
            matcher.insert(pattern.text, entry).map_err(|fault| format!("the path {path} collides with another of {verb}: {fault}"))?;
        }
        let grpc = PathAndQuery::try_from(format!("/{}/{}", method.parent_service().full_name(), method.name())).map_err(|fault| fault.to_string())?;
        let method = method.clone();
        self.bindings.push(Binding { method, path: grpc, verb: verb.to_owned(), template, variables, body, response, is_primary });
        Ok(())
    }

    /// Every binding, in the order of the descriptors.
    pub(super) fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// The call for a method and a path as it arrived, without its query. `HEAD` is served as `GET`.
    pub(super) fn find<'r, 'p>(&'r self, verb: &str, path: &'p str) -> Found<'r, 'p> {
        let instead = if verb == "HEAD" { "GET" } else { verb };
        for verb in [verb, instead, ANY] {
            if let Some((binding, values)) = self.look(verb, path) {
                return Found::Call(binding, values);
            }
        }
        let mut others: BTreeSet<String> = self.matchers.keys().filter(|verb| self.look(verb, path).is_some()).cloned().collect();
        if others.is_empty() {
            return Found::Nothing;
        }
        if others.contains("GET") {
            others.insert("HEAD".to_owned());
        }
        Found::OtherMethods(others)
    }

    fn look<'r, 'p>(&'r self, verb: &str, path: &'p str) -> Option<(&'r Binding, Vec<&'p str>)> {
        let matched = self.matchers.get(verb)?.at(path).ok()?;
        let mut values: Vec<&str> = matched.params.iter().map(|(_, value)| value).collect();
        if matched.value.is_hollow {
            values.push("");
        } else if values.iter().any(|value| value.split('/').any(str::is_empty)) {
            // Only a `**` can stand for a slash; empty segments are no segments there either.
            return None;
        }
        Some((&self.bindings[matched.value.binding], values))
    }
}

/// The fields that the template's variables name.
fn variables(method: &MethodDescriptor, template: &Template) -> Result<Vec<Variable>, String> {
    let wildcards_before = |index: usize| template.segments[..index].iter().filter(|segment| !matches!(segment, Segment::Literal(_))).count();
    let resolve = |variable: &super::template::Variable| {
        let name = variable.field.join(".");
        let mut message = Some(method.input());
        let mut field = Vec::new();
        for part in &variable.field {
            let owner = message.as_ref().ok_or_else(|| format!("{name} leads through a scalar"))?;
            let next = owner.get_field_by_name(part).ok_or_else(|| format!("there is no field {name}"))?;
            if next.is_list() || next.is_map() {
                return Err(format!("{name} is repeated"));
            }
            message = match next.kind() {
                Kind::Message(message) => Some(message),
                _ => None,
            };
            field.push(next);
        }
        if message.is_some() {
            return Err(format!("{name} is a message"));
        }
        let part = |index: usize| match &template.segments[index] {
            Segment::Literal(text) => Part::Literal(text.clone()),
            Segment::One | Segment::Many => Part::Wildcard(wildcards_before(index)),
        };
        let is_many = variable.end - variable.start > 1 || template.segments[variable.start] == Segment::Many;
        Ok(Variable { field, parts: (variable.start..variable.end).map(part).collect(), is_many })
    };
    template.variables.iter().map(resolve).collect()
}

fn body(method: &MethodDescriptor, rule: &HttpRule, variables: &[Variable]) -> Result<Body, String> {
    match rule.body.as_str() {
        "" => Ok(Body::None),
        "*" => Ok(Body::Whole),
        name => {
            let field = method.input().get_field_by_name(name).ok_or_else(|| format!("the request has no field {name}"))?;
            if field.is_list() || field.is_map() {
                return Err(format!("the body {name} is repeated"));
            }
            if variables.iter().any(|variable| variable.field.first() == Some(&field)) {
                return Err(format!("{name} is in the path and in the body"));
            }
            Ok(Body::Field(field))
        }
    }
}

/// The routes of our own schema.
pub(super) fn own() -> Result<Routes, Error> {
    Routes::of(pb::pool())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::google::api::CustomHttpPattern;

    fn method(service: &str, name: &str) -> MethodDescriptor {
        pb::pool().get_service_by_name(service).unwrap().methods().find(|method| method.name() == name).unwrap()
    }

    fn get_backup() -> MethodDescriptor {
        method("redkeep.v1.BackupService", "Get")
    }

    fn rule(verb: &str, path: &str) -> HttpRule {
        let pattern = http_rule::Pattern::Custom(CustomHttpPattern { kind: verb.to_owned(), path: path.to_owned() });
        HttpRule { pattern: Some(pattern), ..Default::default() }
    }

    /// Routes of these templates, each bound to the same method, which has the field `backup_id`.
    fn routes(rules: &[(&str, &str)]) -> Result<Routes, Error> {
        let mut routes = Routes::default();
        for (verb, path) in rules {
            routes.add(&get_backup(), &rule(verb, path))?;
        }
        Ok(routes)
    }

    /// The index of the rule that was found, and its values, or the methods of the path.
    fn ask(routes: &Routes, verb: &str, path: &str) -> String {
        match routes.find(verb, path) {
            Found::Call(binding, values) => {
                let index = routes.bindings.iter().position(|other| std::ptr::eq(other, binding)).unwrap();
                format!("{index} {}", values.join(" ")).trim_end().to_owned()
            }
            Found::OtherMethods(others) => others.into_iter().collect::<Vec<_>>().join(","),
            Found::Nothing => "-".to_owned(),
        }
    }

    #[test]
    fn what_matches_what() {
        let routes = routes(&[
            ("GET", "/c/{backup_id}"),         // 0
            ("POST", "/c/{backup_id}:backup"), // 1
            ("GET", "/c"),                     // 2
            ("POST", "/c:restore"),            // 3
            ("POST", "/c/{backup_id}/h:make"), // 4
            ("GET", "/c/fixed"),               // 5
            ("DELETE", "/c/{backup_id}"),      // 6
            ("GET", "/c/{backup_id}:logs"),    // 7
            ("GET", "/t/**"),                  // 8
            ("GET", "/t/x/{backup_id}"),       // 9
            ("*", "/any/{backup_id}"),         // 10
            ("PURGE", "/c/{backup_id}"),       // 11
            ("GET", "/{backup_id=p/*/q/*}"),   // 12
            ("GET", "/c/{backup_id}/h"),       // 13
            ("POST", "/c/{backup_id}:stream_logs"),
        ])
        .unwrap();
        for (verb, path, expected) in [
            ("GET", "/c/x", "0 x"),
            ("HEAD", "/c/x", "0 x"),
            ("GET", "/c/x:y", "0 x:y"),
            ("GET", "/c/x%3Alogs", "0 x%3Alogs"),
            ("GET", "/c/x%2Fy", "0 x%2Fy"),
            ("GET", "/c/x:backup", "0 x:backup"),
            ("GET", "/c/x:logs", "7 x"),
            ("GET", "/c/x:other:logs", "7 x:other"),
            ("GET", "/c/x:logs:logs", "7 x:logs"),
            ("GET", "/c/x:Logs", "0 x:Logs"),
            ("GET", "/c/:logs", "0 :logs"),
            ("GET", "/c/x:", "0 x:"),
            ("POST", "/c/x:backup", "1 x"),
            ("POST", "/c/x:backup:backup", "1 x:backup"),
            ("POST", "/c/x:stream_logs", "14 x"),
            ("DELETE", "/c/x:backup", "6 x:backup"),
            ("POST", "/c:restore", "3"),
            ("GET", "/c:restore", "POST"),
            ("POST", "/c/x/h:make", "4 x"),
            ("POST", "/c/x:backup/h:make", "4 x:backup"),
            ("GET", "/c/x/h", "13 x"),
            ("GET", "/c/fixed", "5"),
            ("DELETE", "/c/fixed", "6 fixed"),
            ("GET", "/c/fixed2", "0 fixed2"),
            ("PURGE", "/c/x", "11 x"),
            ("purge", "/c/x", "DELETE,GET,HEAD,PURGE"),
            ("PUT", "/c/x", "DELETE,GET,HEAD,PURGE"),
            ("OPTIONS", "/c/x", "DELETE,GET,HEAD,PURGE"),
            ("TRACE", "/c", "GET,HEAD"),
            ("POST", "/c/x", "DELETE,GET,HEAD,PURGE"),
            ("GET", "/c", "2"),
            ("GET", "/c/", "-"),
            ("GET", "/c/x/", "-"),
            ("GET", "/c//h", "-"),
            ("GET", "//c", "-"),
            ("GET", "/C", "-"),
            ("GET", "/c/x/h/y", "-"),
            ("GET", "/%63", "-"),
            ("GET", "", "-"),
            ("GET", "/", "-"),
            ("GET", "*", "-"),
            ("GET", "/t", "8"),
            ("GET", "/t/a/b/c", "8 a/b/c"),
            ("GET", "/t/", "-"),
            ("GET", "/t/a//b", "-"),
            ("GET", "/t/a/", "-"),
            ("GET", "/t/x/y", "9 y"),
            ("GET", "/t/x/y/z", "8 x/y/z"),
            ("PUT", "/any/x", "10 x"),
            ("GET", "/p/a/q/b", "12 a b"),
            ("GET", "/p/a/q/b/c", "-"),
        ] {
            assert_eq!(ask(&routes, verb, path), expected, "{verb} {path}");
        }
    }

    #[test]
    fn slashes_in_great_number_do_no_harm() {
        let routes = routes(&[("GET", "/c/{backup_id}"), ("GET", "/c/{backup_id}/h/*/i"), ("GET", "/t/**")]).unwrap();
        for path in ["/".repeat(64_000), format!("/c{}", "/x".repeat(64_000)), format!("/t{}", "/x".repeat(64_000)), format!("/c/{}", ":".repeat(64_000))] {
            let found = ask(&routes, "GET", &path);
            assert_eq!(found.starts_with("2 "), path.starts_with("/t/"), "{}", &path[..8]);
        }
    }

    #[test]
    fn values_are_put_together_again() {
        let routes = routes(&[("GET", "/a/*/{backup_id=p/*/c/**}")]).unwrap();
        let parts = &routes.bindings[0].variables[0].parts;
        assert_eq!(parts, &[Part::Literal("p".into()), Part::Wildcard(1), Part::Literal("c".into()), Part::Wildcard(2)]);
    }

    #[test]
    fn mistakes_stop_the_start() {
        let told = |rules: &[(&str, &str)]| routes(rules).unwrap_err().to_string();
        for (rules, words) in [
            (vec![("GET", "/a/{backup_id}"), ("GET", "/a/*")], "collides"),
            (vec![("GET", "/a/{backup_id}:b"), ("GET", "/a/{backup_id}:b")], "collides"),
            (vec![("GET", "/a/**"), ("GET", "/a")], "collides"),
            (vec![("GET", "/a/{nonsense}")], "no field nonsense"),
            (vec![("GET", "/a/{backup_id.x}")], "through a scalar"),
            (vec![("GET", "/a/")], "empty"),
            (vec![("GET", "/**/a")], "`**`"),
            (vec![("G E T", "/a")], "no HTTP method"),
        ] {
            let fault = told(&rules);
            assert!(fault.contains(words) && fault.contains("redkeep.v1.BackupService.Get"), "{rules:?}: {fault}");
        }
        assert!(routes(&[("GET", "/a"), ("POST", "/a"), ("*", "/a")]).is_ok());

        let create = method("redkeep.v1.BackupService", "Create");
        let update = method("redkeep.v1.BackupService", "Update");
        for (method, rule, words) in [
            (&create, rule("GET", "/a/{labels}"), "repeated"),
            (&create, rule("GET", "/a/{expires_at}"), "message"),
            (&create, HttpRule { body: "labels".into(), ..rule("POST", "/a") }, "repeated"),
            (&create, HttpRule { body: "nonsense".into(), ..rule("POST", "/a") }, "no field nonsense"),
            (&create, HttpRule { response_body: "nonsense".into(), ..rule("POST", "/a") }, "no field nonsense"),
            (&update, HttpRule { body: "name".into(), ..rule("POST", "/a/{name}") }, "in the path and in the body"),
            (&create, HttpRule::default(), "no path"),
            (
                &create,
                HttpRule { additional_bindings: vec![HttpRule { additional_bindings: vec![rule("GET", "/c")], ..rule("GET", "/b") }], ..rule("GET", "/a") },
                "additional",
            ),
        ] {
            let fault = Routes::default().add(method, &rule).unwrap_err().to_string();
            assert!(fault.contains(words), "{rule:?}: {fault}");
        }
    }

    #[test]
    fn every_rule_of_the_schema_has_its_route() {
        let routes = own().unwrap();
        let http = pb::pool().get_extension_by_name("google.api.http").unwrap();
        let mut rules = 0;
        for method in pb::pool().services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let options = method.options();
            if options.has_extension(&http) {
                let rule = options.get_extension(&http);
                rules += 1 + rule.as_message().unwrap().get_field_by_name("additional_bindings").unwrap().as_list().unwrap().len();
            }
        }
        assert!(rules > 80, "{rules}");
        assert_eq!(routes.bindings().len(), rules);
        for binding in routes.bindings() {
            // A path that fits the template leads to its own binding: no other rule hides it.
            let mut path: String = binding
                .template
                .segments
                .iter()
                .map(|segment| if let Segment::Literal(text) = segment { format!("/{text}") } else { "/x".to_owned() })
                .collect();
            if let Some(verb) = &binding.template.verb {
                path = format!("{path}:{verb}");
            }
            let Found::Call(found, _) = routes.find(&binding.verb, &path) else { panic!("{path}") };
            assert!(std::ptr::eq(found, binding), "{path}");
        }
    }

    #[test]
    fn ids_with_colons_in_the_schema() {
        let routes = own().unwrap();
        let call = |verb: &str, path: &str| match routes.find(verb, path) {
            Found::Call(binding, values) => format!("{} {}", binding.method.name(), values.join(" ")),
            other => format!("{other:?}"),
        };
        assert_eq!(call("GET", "/managed-redis/v1/backups/c9q:20181113T133617"), "Get c9q:20181113T133617");
        assert_eq!(call("DELETE", "/managed-redis/v1/backups/c9q:20181113T133617"), "Delete c9q:20181113T133617");
        assert_eq!(call("POST", "/managed-redis/v1/clusters/x:backup:backup"), "Backup x:backup");
        assert_eq!(call("DELETE", "/managed-redis/v1/clusters/x:backup"), "Delete x:backup");
        assert_eq!(call("POST", "/clusters/x:backup"), "Backup x");
        assert_eq!(call("GET", "/operations/x:cancel"), "Cancel x");
        assert_eq!(call("POST", "/operations/x:cancel"), "Cancel x");
    }
}
