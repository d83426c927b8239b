//! Generated schemas made plain: what editors and people get.

use serde_json::{Map, Value};

/// Makes a generated schema plain: words instead of `oneOf`, no `null`, no number formats.
pub fn simplify(schema: &mut Value) {
    plain(schema, false);
}

/// What stands in a list or under any key is not left out: there null says that there is none.
fn plain(schema: &mut Value, may_be_null: bool) {
    match schema {
        Value::Object(map) => {
            map.retain(|key, value| match key.as_str() {
                "format" => !value.as_str().is_some_and(|format| format.starts_with("uint")),
                "default" => !value.is_null(),
                _ => true,
            });
            plain_words(map);
            if !may_be_null {
                without_null(map);
            }
            for (key, value) in map {
                plain(value, matches!(key.as_str(), "items" | "additionalProperties"));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}

/// `oneOf` over constants becomes `enum`.
fn plain_words(map: &mut Map<String, Value>) {
    let Some(Value::Array(options)) = map.get("oneOf") else {
        return;
    };
    let words: Option<Vec<Value>> =
        options.iter().map(|option| option.get("const").cloned()).collect();
    let Some(words) = words else { return };
    let texts: Vec<Value> = options
        .iter()
        .map(|option| option.get("description").cloned().unwrap_or_default())
        .collect();
    map.remove("oneOf");
    map.insert("type".to_owned(), Value::from("string"));
    map.insert("enum".to_owned(), Value::Array(words));
    map.insert("enumDescriptions".to_owned(), Value::Array(texts));
}

/// What may be left out may not be written as null.
fn without_null(map: &mut Map<String, Value>) {
    if let Some(Value::Array(kinds)) = map.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            map.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(options)) = map.get("anyOf") {
        let rest: Vec<&Value> = options
            .iter()
            .filter(|option| option.get("type") != Some(&Value::from("null")))
            .collect();
        if let ([Value::Object(only)], true) = (rest.as_slice(), rest.len() < options.len()) {
            let only = only.clone();
            map.remove("anyOf");
            for (key, value) in only {
                map.entry(key).or_insert(value);
            }
        }
    }
}
