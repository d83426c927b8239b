//! The Compute Engine API as its own discovery document has it: which methods there are, and what
//! requests and answers may hold.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use serde::Deserialize;
use serde_json::{Value, json};

use super::support::project;

/// A method.
#[derive(Debug, Deserialize)]
pub struct Method {
    #[serde(rename = "method")]
    verb: String,
    path: String,
    query: Vec<String>,
    request: Option<String>,
    response: Option<String>,
}

/// A schema of the API.
pub fn definition(name: &str) -> &'static Value {
    &API.definitions[name]
}

/// Parameters of the query that every method takes.
const COMMON: [&str; 4] = ["alt", "fields", "prettyPrint", "key"];

struct Api {
    methods: Vec<Method>,
    definitions: Value,
    compiled: Mutex<BTreeMap<(String, bool), Arc<Validator>>>,
}

static API: LazyLock<Api> = LazyLock::new(|| {
    let file = project().join("tests/data/gce/compute-v1.schema.json");
    let mut document: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let methods = serde_json::from_value(document["methods"].take()).unwrap();
    Api { methods, definitions: document["$defs"].take(), compiled: Mutex::default() }
});

fn validator(name: &str, is_answer: bool) -> Arc<Validator> {
    let mut compiled = API.compiled.lock().unwrap();
    let entry = compiled.entry((name.to_owned(), is_answer)).or_insert_with(|| {
        let mut definitions = API.definitions.clone();
        assert!(definitions[name].is_object(), "there is no schema of {name}");
        if !is_answer {
            // A request need not say what kind of thing it holds, nor does a partial answer.
            for definition in definitions.as_object_mut().unwrap().values_mut() {
                definition.as_object_mut().unwrap().remove("required");
            }
        }
        let schema = json!({"$defs": definitions, "$ref": format!("#/$defs/{name}")});
        Arc::new(jsonschema::validator_for(&schema).unwrap())
    });
    Arc::clone(entry)
}

fn check(what: &str, name: &str, value: &Value, is_answer: bool) {
    let wrong: Vec<String> = validator(name, is_answer)
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{what}: no {name}\n{}\n{value:#}", wrong.join("\n"));
}

/// The method of a request. `path` begins behind the version: `projects/…`.
pub fn method(method: &str, path: &str) -> Option<&'static Method> {
    let parts: Vec<&str> = path.split('/').collect();
    let is_it = |known: &&Method| {
        let template: Vec<&str> = known.path.split('/').collect();
        known.verb == method
            && template.len() == parts.len()
            && template.iter().zip(&parts).all(|(one, part)| one.starts_with('{') || one == part)
    };
    // What is named in a template counts before what is a parameter of it.
    API.methods.iter().filter(is_it).min_by_key(|known| known.path.matches('{').count())
}

/// What a selection of fields (`a,b/c,d(e,f)`) names that the schema does not have; the service
/// answers a request with one of these with 400.
fn unknown_fields(selection: &str, schema: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for one in split(selection) {
        let at = one.find(['/', '(']).unwrap_or(one.len());
        let (name, rest) = one.split_at(at);
        let rest = rest.trim_start_matches('/');
        let rest = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(rest);
        match field(name, schema) {
            None => unknown.push(name.to_owned()),
            Some(_) if rest.is_empty() => {}
            Some(inner) => unknown
                .extend(unknown_fields(rest, &inner).iter().map(|one| format!("{name}/{one}"))),
        }
    }
    unknown
}

/// The parts of a selection between commas, those within parentheses left together.
fn split(selection: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, character) in selection.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&selection[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&selection[from..]);
    parts
}

/// The schema of a field, or of an entry of it where it has several.
fn field(name: &str, schema: &Value) -> Option<Value> {
    let whole = |schema: &Value| -> Value {
        let definition = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"));
        definition.map_or_else(|| schema.clone(), |name| API.definitions[name].clone())
    };
    let schema = whole(schema);
    let field = if name == "*" {
        schema.get("additionalProperties").filter(|entry| entry.is_object())
    } else {
        schema["properties"].get(name)
    };
    let field = whole(field?);
    Some(field.get("items").map_or_else(|| field.clone(), whole))
}

/// Holds a request against the API.
pub fn check_request(verb: &str, path: &str, query: &[(String, String)], body: &Value) {
    let what = format!("{verb} {path}");
    // Who may do what in a project is asked of another API.
    if path.starts_with("/v3/projects/") && path.ends_with(":testIamPermissions") {
        return;
    }
    let Some(method) = method(verb, path) else { panic!("the API has no method {what}") };
    for (key, _) in query {
        let is_known = method.query.contains(key) || COMMON.contains(&key.as_str());
        assert!(is_known, "{what}: there is no parameter {key}");
    }
    if let Some((_, fields)) = query.iter().find(|(key, _)| key == "fields") {
        let name = method.response.as_ref().expect("what answers nothing has no fields");
        let unknown = unknown_fields(fields, &json!({"$ref": format!("#/$defs/{name}")}));
        assert!(unknown.is_empty(), "{what}: a {name} has no {}", unknown.join(", no "));
    }
    match &method.request {
        Some(name) if !body.is_null() => check(&what, name, body, false),
        Some(_) => {}
        None => assert!(body.is_null(), "{what} takes no body: {body}"),
    }
}

/// Holds an answer against the API. A partial one has what was asked for alone.
pub fn check_answer(verb: &str, path: &str, answer: &Value, is_partial: bool) {
    let what = format!("{verb} {path}");
    let Some(method) = method(verb, path) else { panic!("the API has no method {what}") };
    match &method.response {
        Some(name) => check(&what, name, answer, !is_partial),
        None => assert!(answer.is_null(), "{what} answers nothing: {answer}"),
    }
}

#[test]
fn what_the_api_does_not_have_is_found() {
    let found = |check: fn()| std::panic::catch_unwind(check).is_err();
    assert!(found(|| check_answer(
        "GET",
        "projects/p/global/images/a",
        &json!({"kind": 1}),
        false
    )));
    assert!(found(|| check_answer("GET", "projects/p/global/images/a", &json!({}), false)));
    assert!(found(|| check_answer("GET", "projects/p/global/image", &json!({}), true)));
    let query = [("requestid".to_owned(), String::new())];
    assert!(found(|| check_request("POST", "projects/p/global/images", &[], &json!({"nam": "a"}))));
    assert!(
        std::panic::catch_unwind(|| {
            check_request("DELETE", "projects/p/global/images/a", &query, &Value::Null);
        })
        .is_err()
    );
    let asked = |fields: &str| {
        let query = [("fields".to_owned(), fields.to_owned())];
        std::panic::catch_unwind(|| {
            check_request("GET", "projects/p/aggregated/disks", &query, &Value::Null);
        })
    };
    assert!(asked("kind,items/*/disks(name,users),items/*(warning/code),unreachables").is_ok());
    for fields in ["kind,item", "items/disks", "items/*/disks(name,user)", "items(*/warning/cod)"] {
        assert!(asked(fields).is_err(), "{fields}");
    }
    check_request("POST", "projects/p/global/images", &[], &json!({"name": "a"}));
    check_answer(
        "GET",
        "projects/p/global/images/family/f",
        &json!({"kind": "compute#image"}),
        false,
    );
    assert!(method("GET", "projects/p/global/images/family/f").unwrap().path.contains("family"));
}
