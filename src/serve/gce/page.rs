//! Lists: filtered, in order, in pages.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::filter::Filter;
use super::link::{Links, Scope};
use super::request::Request;

/// The longest page, and the one where nothing else is asked for.
const PAGE_MAX: usize = 500;

/// What `orderBy` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Name,
    Newest,
}

/// What an item is sorted by; a page token holds that of the last item of its page.
type Place = (String, String);

impl Order {
    fn read(request: &Request) -> Result<Self, Refusal> {
        match request.query("orderBy") {
            None | Some("name" | "name asc") => Ok(Self::Name),
            Some("creationTimestamp desc") => Ok(Self::Newest),
            Some(other) => Err(Refusal::invalid(
                "orderBy",
                other,
                "Lists are in the order of `name` or of `creationTimestamp desc`.",
            )),
        }
    }

    /// Where an item stands; lists go up by it, the newest order by time goes down first.
    fn place(self, item: &Value, scope: &str) -> Place {
        let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
        let name = format!("{}\n{scope}", text("name"));
        match self {
            Self::Name => (String::new(), name),
            Self::Newest => (text("creationTimestamp"), name),
        }
    }
}

/// Which of two comes first: the newer one, where times count, else by name.
fn compare(one: &Place, other: &Place) -> std::cmp::Ordering {
    other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1))
}

/// A page of a list.
struct Page {
    /// Each item with its scope.
    items: Vec<(Scope, Value)>,
    /// The token of the next page.
    next: Option<String>,
}

/// The page of a request, each item with its scope, and the token of the next one.
fn page(
    request: &Request,
    items: Vec<(Scope, Value)>,
    scope_key: impl Fn(&Scope) -> String,
) -> Result<Page, Refusal> {
    let filter = request.query("filter").map(Filter::read).transpose()?;
    let order = Order::read(request)?;
    let size = match request.query("maxResults") {
        None => PAGE_MAX,
        Some(text) => match text.parse::<usize>() {
            Ok(0) => PAGE_MAX,
            Ok(size) if size <= PAGE_MAX => size,
            _ => return Err(Refusal::invalid("maxResults", text, "It is between 0 and 500.")),
        },
    };
    let after = request.query("pageToken").map(read_token).transpose()?;
    let mut placed: Vec<(Place, Scope, Value)> = items
        .into_iter()
        .filter(|(_, item)| filter.as_ref().is_none_or(|filter| filter.matches(item)))
        .map(|(scope, item)| (order.place(&item, &scope_key(&scope)), scope, item))
        .filter(|(place, ..)| after.as_ref().is_none_or(|after| compare(place, after).is_gt()))
        .collect();
    placed.sort_by(|one, other| compare(&one.0, &other.0));
    let is_more = placed.len() > size;
    placed.truncate(size);
    let next = if is_more { placed.last().map(|(place, ..)| write_token(place)) } else { None };
    let items = placed.into_iter().map(|(_, scope, item)| (scope, item)).collect();
    Ok(Page { items, next })
}

fn write_token(place: &Place) -> String {
    BASE64URL_NOPAD.encode(format!("{}\t{}", place.0, place.1).as_bytes())
}

fn read_token(token: &str) -> Result<Place, Refusal> {
    let wrong = || Refusal::invalid("pageToken", token, "It is none that a list has given out.");
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (time, name) = text.split_once('\t').ok_or_else(wrong)?;
    Ok((time.to_owned(), name.to_owned()))
}

/// Answers with a list. `kind` is what one item is, as in `compute#machineImage`.
pub fn list(request: &Request, links: &Links, kind: &str, items: Vec<Value>) -> Answer {
    let items = items.into_iter().map(|item| (request.scope.clone(), item)).collect();
    let Page { items, next } = page(request, items, |_| String::new())?;
    let items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
    let mut answer = json!({
        "kind": format!("compute#{kind}List"),
        "id": links.path(&request.scope, &request.collection, ""),
        "selfLink": links.link(&request.scope, &request.collection, ""),
    });
    if !items.is_empty() {
        answer["items"] = Value::Array(items);
    }
    if let Some(next) = next {
        answer["nextPageToken"] = Value::String(next);
    }
    Ok(answer)
}

/// Answers with a list over all scopes. A scope without results says so.
pub fn aggregated(
    request: &Request,
    links: &Links,
    kind: &str,
    items: Vec<(Scope, Value)>,
) -> Answer {
    let key = |scope: &Scope| match scope {
        Scope::Zone(zone) => format!("zones/{zone}"),
        Scope::Region(region) => format!("regions/{region}"),
        _ => "global".to_owned(),
    };
    let mut scopes: BTreeMap<String, Vec<Value>> =
        items.iter().map(|(scope, _)| (key(scope), Vec::new())).collect();
    // A list that names no scope at all does not say that there is nothing.
    if scopes.is_empty() {
        scopes.insert("global".to_owned(), Vec::new());
    }
    let Page { items, next } = page(request, items, key)?;
    for (scope, item) in items {
        scopes.entry(key(&scope)).or_default().push(item);
    }
    let collection = &request.collection;
    let shown = scopes.into_iter().map(|(key, items)| {
        let value = if items.is_empty() {
            json!({"warning": {
                "code": "NO_RESULTS_ON_PAGE",
                "message": format!("There are no results for scope '{key}' on this page."),
                "data": [{"key": "scope", "value": key}],
            }})
        } else {
            json!({ collection.as_str(): items })
        };
        (key, value)
    });
    let mut answer = json!({
        "kind": format!("compute#{kind}AggregatedList"),
        "id": links.path(&Scope::Aggregated, collection, ""),
        "items": shown.collect::<serde_json::Map<String, Value>>(),
        "selfLink": links.link(&Scope::Aggregated, collection, ""),
    });
    if let Some(next) = next {
        answer["nextPageToken"] = Value::String(next);
    }
    Ok(answer)
}
