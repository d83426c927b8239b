//! Lists: filtered, in order, in pages.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
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

/// An item of a list.
struct Item {
    /// Where it is.
    scope: Scope,
    /// What tells it from others of the same time: the later one has the larger number.
    sequence: u64,
    /// As it is shown.
    shown: Value,
}

/// What an item is sorted by; a page token holds that of the last item of its page.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    created: Timestamp,
    sequence: u64,
    name: String,
}

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
    fn place(self, item: &Item, scope: &str) -> Place {
        let text = |field: &str| item.shown[field].as_str().unwrap_or_default();
        let name = format!("{}\n{scope}", text("name"));
        match self {
            Self::Name => Place { created: Timestamp::UNIX_EPOCH, sequence: 0, name },
            Self::Newest => Place {
                created: text("creationTimestamp").parse().unwrap_or(Timestamp::UNIX_EPOCH),
                sequence: item.sequence,
                name,
            },
        }
    }
}

/// Which of two comes first: the newer one, where times count, else by name.
fn compare(one: &Place, other: &Place) -> std::cmp::Ordering {
    let newer = (other.created, other.sequence).cmp(&(one.created, one.sequence));
    newer.then_with(|| one.name.cmp(&other.name))
}

/// A page of a list.
struct Page {
    items: Vec<Item>,
    /// The token of the next page.
    next: Option<String>,
}

/// The page of a request, and the token of the next one.
fn page(
    request: &Request,
    items: Vec<Item>,
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
    let mut placed: Vec<(Place, Item)> = items
        .into_iter()
        .filter(|item| filter.as_ref().is_none_or(|filter| filter.matches(&item.shown)))
        .map(|item| (order.place(&item, &scope_key(&item.scope)), item))
        .filter(|(place, _)| after.as_ref().is_none_or(|after| compare(place, after).is_gt()))
        .collect();
    placed.sort_by(|one, other| compare(&one.0, &other.0));
    let is_more = placed.len() > size;
    placed.truncate(size);
    let next = if is_more { placed.last().map(|(place, _)| write_token(place)) } else { None };
    let items = placed.into_iter().map(|(_, item)| item).collect();
    Ok(Page { items, next })
}

fn write_token(Place { created, sequence, name }: &Place) -> String {
    BASE64URL_NOPAD.encode(format!("{created}\t{sequence}\t{name}").as_bytes())
}

fn read_token(token: &str) -> Result<Place, Refusal> {
    let read = || {
        let text = String::from_utf8(BASE64URL_NOPAD.decode(token.as_bytes()).ok()?).ok()?;
        let mut parts = text.splitn(3, '\t');
        Some(Place {
            created: parts.next()?.parse().ok()?,
            sequence: parts.next()?.parse().ok()?,
            name: parts.next()?.to_owned(),
        })
    };
    let wrong = || Refusal::invalid("pageToken", token, "It is none that a list has given out.");
    read().ok_or_else(wrong)
}

/// Answers with a list. `kind` is what one item is, as in `compute#machineImage`.
pub fn list(request: &Request, links: &Links, kind: &str, items: Vec<Value>) -> Answer {
    list_in_sequence(request, links, kind, items.into_iter().map(|item| (0, item)).collect())
}

/// Answers with a list of items that have numbers, which tell those of one time apart.
pub fn list_in_sequence(
    request: &Request,
    links: &Links,
    kind: &str,
    items: Vec<(u64, Value)>,
) -> Answer {
    let here = |(sequence, shown)| Item { scope: request.scope.clone(), sequence, shown };
    let items = items.into_iter().map(here).collect();
    let Page { items, next } = page(request, items, |_| String::new())?;
    let items: Vec<Value> = items.into_iter().map(|item| item.shown).collect();
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
    let items = items.into_iter().map(|(scope, shown)| Item { scope, sequence: 0, shown });
    let Page { items, next } = page(request, items.collect(), key)?;
    for item in items {
        scopes.entry(key(&item.scope)).or_default().push(item.shown);
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
