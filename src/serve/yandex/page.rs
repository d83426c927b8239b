//! Lists: pages, filters, order.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::request::Request;

/// The most items of a page, and how many there are where nobody says.
const PAGE_MAX: usize = 1000;
const PAGE_DEFAULT: usize = 100;
/// The longest filter.
const FILTER_LENGTH_MAX: usize = 1000;

/// Answers with a page of items, which are called that.
pub fn list(request: &Request, called: &str, mut items: Vec<Value>) -> Answer {
    let conditions = match request.query("filter") {
        Some(filter) => read_filter(filter)?,
        None => Vec::new(),
    };
    items.retain(|item| conditions.iter().all(|condition| condition.holds(item)));
    order(request, &mut items)?;
    let size = match request.query("pageSize") {
        None | Some("0") => PAGE_DEFAULT,
        Some(text) => {
            let size = text.parse().ok().filter(|size| *size <= PAGE_MAX);
            size.ok_or_else(|| Refusal::invalid("pageSize", "it is between 0 and 1000"))?
        }
    };
    let from = match request.query("pageToken") {
        None => 0,
        Some(token) => read_token(token, &items)?,
    };
    let next = items.get(from + size).map(token);
    let shown: Vec<Value> = items.into_iter().skip(from).take(size).collect();
    let mut answer = json!({});
    if !shown.is_empty() {
        answer[called] = Value::Array(shown);
    }
    if let Some(next) = next {
        answer["nextPageToken"] = Value::String(next);
    }
    Ok(answer)
}

/// The token of the page that begins with an item.
fn token(item: &Value) -> String {
    BASE64URL_NOPAD.encode(item["id"].as_str().unwrap_or_default().as_bytes())
}

/// Where the page begins that a token was given out for.
fn read_token(token: &str, items: &[Value]) -> Result<usize, Refusal> {
    let wrong = || Refusal::invalid("pageToken", "it is none that this list has given out");
    let id = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| wrong())?;
    let id = String::from_utf8(id).map_err(|_| wrong())?;
    items.iter().position(|item| item["id"] == id.as_str()).ok_or_else(wrong)
}

fn order(request: &Request, items: &mut [Value]) -> Result<(), Refusal> {
    let wanted = request.query("orderBy").unwrap_or("id");
    let (field, direction) = wanted.split_once(' ').unwrap_or((wanted, "asc"));
    let field = camel(field);
    let is_up = match direction.trim().to_ascii_lowercase().as_str() {
        "asc" => true,
        "desc" => false,
        _ => return Err(Refusal::invalid("orderBy", "write it like `createdAt desc`")),
    };
    if !["id", "name", "createdAt", "status"].contains(&field.as_str()) {
        return Err(Refusal::invalid("orderBy", "lists go by id, name, createdAt or status"));
    }
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    items.sort_by(|one, other| {
        let key = |item: &Value| (text(item, &field), text(item, "id"));
        if is_up { key(one).cmp(&key(other)) } else { key(other).cmp(&key(one)) }
    });
    Ok(())
}

/// One condition of a filter.
#[derive(Debug, PartialEq, Eq)]
struct Condition {
    field: String,
    is_in: bool,
    values: Vec<String>,
}

impl Condition {
    fn holds(&self, item: &Value) -> bool {
        let is = item[&self.field].as_str().unwrap_or_default();
        self.values.iter().any(|value| value == is) == self.is_in
    }
}

/// Reads conditions like `name="a" AND status IN ("READY", "CREATING")`.
fn read_filter(text: &str) -> Result<Vec<Condition>, Refusal> {
    let wrong = |why: &str| Refusal::invalid("filter", why);
    if text.len() > FILTER_LENGTH_MAX {
        return Err(wrong("it has at most 1000 characters"));
    }
    let words = words(text).ok_or_else(|| wrong("a text does not end"))?;
    let mut rest = words.as_slice();
    let mut conditions = Vec::new();
    let how = "write it like `name=\"a\" AND status IN (\"b\", \"c\")`";
    loop {
        let (condition, after) = read_condition(rest).ok_or_else(|| wrong(how))?;
        let known = ["id", "name", "createdAt", "status", "zoneId", "platformId"];
        if !known.contains(&condition.field.as_str()) {
            return Err(wrong(
                "lists are filtered by id, name, createdAt, status, zoneId or platformId",
            ));
        }
        conditions.push(condition);
        match after {
            [] => return Ok(conditions),
            [and, after @ ..] if and.eq_ignore_ascii_case("and") => rest = after,
            _ => return Err(wrong(how)),
        }
    }
}

fn read_condition(words: &[String]) -> Option<(Condition, &[String])> {
    let [field, rest @ ..] = words else { return None };
    let field = camel(field);
    let is_word = |word: &String, wanted: &str| word.eq_ignore_ascii_case(wanted);
    match rest {
        [sign, value, rest @ ..] if sign == "=" || sign == "!=" => {
            let condition = Condition { field, is_in: sign == "=", values: vec![unquoted(value)] };
            Some((condition, rest))
        }
        [word, rest @ ..] if is_word(word, "in") => read_values(field, true, rest),
        [not, word, rest @ ..] if is_word(not, "not") && is_word(word, "in") => {
            read_values(field, false, rest)
        }
        _ => None,
    }
}

fn read_values(field: String, is_in: bool, words: &[String]) -> Option<(Condition, &[String])> {
    let [open, rest @ ..] = words else { return None };
    let end = rest.iter().position(|word| word == ")").filter(|_| open == "(")?;
    let values = rest[..end].iter().filter(|word| *word != ",").map(|word| unquoted(word));
    Some((Condition { field, is_in, values: values.collect() }, &rest[end + 1..]))
}

fn unquoted(word: &str) -> String {
    word.trim_matches(['"', '\'']).to_owned()
}

/// The words, signs and quoted texts of a filter; `None` where a text does not end.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => rest[1..].find(first)? + 2,
            '(' | ')' | ',' | '=' => 1,
            '!' => rest.len().min(2),
            _ => rest
                .find(|c: char| c.is_whitespace() || "()=!,\"'".contains(c))
                .unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at_checked(length)?;
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Some(words)
}

/// A field may be named as JSON or as the protocol has it.
fn camel(field: &str) -> String {
    let mut named = String::new();
    let mut is_up = false;
    for character in field.chars() {
        match character {
            '_' => is_up = true,
            other if is_up => {
                named.push(other.to_ascii_uppercase());
                is_up = false;
            }
            other => named.push(other),
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: &[(&str, &str)]) -> Request {
        Request {
            method: "GET".to_owned(),
            service: "compute",
            collection: "images".to_owned(),
            id: None,
            verb: None,
            query: query
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            body: serde_json::Map::new(),
            idempotency_key: None,
        }
    }

    fn items() -> Vec<Value> {
        let item =
            |id: &str, name: &str, at: &str| json!({"id": id, "name": name, "createdAt": at});
        vec![
            item("1", "c", "2026-01-01"),
            item("2", "a", "2026-01-03"),
            item("3", "b", "2026-01-02"),
        ]
    }

    fn names(answer: &Value) -> String {
        let shown = answer["images"].as_array().into_iter().flatten();
        shown.map(|item| item["name"].as_str().unwrap()).collect()
    }

    #[test]
    fn pages_follow_each_other() {
        let first = list(&request(&[("pageSize", "2")]), "images", items()).unwrap();
        assert_eq!(names(&first), "ca");
        let token = first["nextPageToken"].as_str().unwrap();
        let rest =
            list(&request(&[("pageSize", "2"), ("pageToken", token)]), "images", items()).unwrap();
        assert_eq!((names(&rest).as_str(), &rest["nextPageToken"]), ("b", &Value::Null));
        assert!(list(&request(&[("pageToken", "x")]), "images", items()).is_err());
        assert!(list(&request(&[("pageSize", "1001")]), "images", items()).is_err());
    }

    #[test]
    fn filters_and_order_are_kept_to() {
        let of = |query: &[(&str, &str)]| {
            list(&request(query), "images", items()).map(|answer| names(&answer))
        };
        assert_eq!(of(&[("filter", "name=\"a\"")]).unwrap(), "a");
        assert_eq!(of(&[("filter", "name != 'a' AND id=\"3\"")]).unwrap(), "b");
        assert_eq!(of(&[("filter", "name IN (\"a\", \"b\")")]).unwrap(), "ab");
        assert_eq!(of(&[("filter", "name not in (a,b)")]).unwrap(), "c");
        assert_eq!(of(&[("orderBy", "createdAt desc")]).unwrap(), "abc");
        assert_eq!(of(&[("orderBy", "created_at")]).unwrap(), "cba");
        for wrong in ["name", "name=\"a", "labels.x=\"1\"", "name=a OR name=b", "name IN (a"] {
            assert!(of(&[("filter", wrong)]).is_err(), "{wrong}");
        }
    }
}
