//! Requests as values: which service, what of it, which of them and what is to be done.

use serde_json::{Map, Value};

use super::answer::{Code, Refusal};
use crate::serve::Call;

/// The services that there are, by the beginning of their paths.
const SERVICES: [(&str, &[&str]); 4] = [
    ("compute", &["compute", "v1"]),
    ("iam", &["iam", "v1"]),
    ("resource-manager", &["resource-manager", "v1"]),
    ("", &[]),
];

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The method of HTTP.
    pub method: String,
    /// The service; empty for those without a path of their own.
    pub service: &'static str,
    /// Which collection.
    pub collection: String,
    /// Which of them.
    pub id: Option<String>,
    /// What is to be done with it, behind `:`, or what of it is asked for, behind `/`.
    pub verb: Option<String>,
    /// The query, in order.
    pub query: Vec<(String, String)>,
    /// The body; an empty object where there is none.
    pub body: Map<String, Value>,
    /// What the client calls this request.
    pub idempotency_key: Option<String>,
}

impl Request {
    /// Reads a request.
    pub fn read(call: &Call) -> Result<Self, Refusal> {
        let not_found =
            || Refusal::new(Code::NotFound, format!("there is nothing under {}", call.path));
        let segments = call.segments();
        let (service, rest) = SERVICES
            .into_iter()
            .find_map(|(service, begin)| {
                let rest = segments.strip_prefix(
                    begin.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>().as_slice(),
                )?;
                Some((service, rest))
            })
            .ok_or_else(not_found)?;
        let (collection, id, verb) = match rest {
            [collection] => {
                let (collection, verb) = split(collection);
                (collection, None, verb)
            }
            [collection, id] => {
                let (id, verb) = split(id);
                (collection.clone(), Some(id), verb)
            }
            [collection, id, verb] => (collection.clone(), Some(id.clone()), Some(verb.clone())),
            _ => return Err(not_found()),
        };
        let key = call.header("idempotency-key");
        Ok(Self {
            method: call.method.clone(),
            service,
            collection,
            id,
            verb,
            query: call.pairs(),
            body: read_body(&call.body)?,
            idempotency_key: Some(key.to_owned()).filter(|key| !key.is_empty()),
        })
    }

    /// A value of the query; an empty one counts as none.
    pub fn query(&self, key: &str) -> Option<&str> {
        let found = self.query.iter().rev().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A text of the body; an empty one counts as none.
    pub fn text(&self, field: &str) -> Result<Option<&str>, Refusal> {
        match self.body.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(Refusal::invalid(field, "it must be a text")),
        }
    }

    /// A number of the body, which may be written as a text.
    pub fn number(&self, field: &str) -> Result<Option<u64>, Refusal> {
        let number = match self.body.get(field) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(other) => other.as_u64(),
        };
        let number = number.ok_or_else(|| Refusal::invalid(field, "it must be a number"))?;
        Ok(Some(number).filter(|number| *number > 0))
    }

    /// A text of the body that must be there.
    pub fn required(&self, field: &str) -> Result<&str, Refusal> {
        self.text(field)?.ok_or_else(|| Refusal::invalid(field, "Field is required"))
    }

    /// Which fields an update is about, as the paths of its mask; `None` where it has no mask, which
    /// means all of them.
    pub fn mask(&self) -> Result<Option<Vec<String>>, Refusal> {
        let mask = self.text("updateMask")?;
        Ok(mask.map(|mask| mask.split(',').map(|one| one.trim().to_owned()).collect()))
    }

    /// The method, the id and the verb, to be matched.
    pub fn parts(&self) -> (&str, Option<&str>, Option<&str>) {
        (&self.method, self.id.as_deref(), self.verb.as_deref())
    }

    /// The refusal of what this server does not do.
    pub fn not_done(&self) -> Refusal {
        let verb = self.verb.as_deref().unwrap_or_default();
        Refusal::not_done(format!("{} {} {verb}", self.method, self.collection).trim_end())
    }

    /// What makes two requests the same. It is kept, so it has nothing of what a URL was signed with. What
    /// they say of it for people is theirs: the service answers by the key alone.
    pub fn summary(&self) -> String {
        let mut body = self.body.clone();
        body.remove("description");
        if let Some(Value::String(uri)) = body.get_mut("uri") {
            uri.truncate(uri.find('?').unwrap_or(uri.len()));
        }
        let body = Value::Object(body);
        let (id, verb) = (self.id.as_deref(), self.verb.as_deref());
        format!("{} {} {id:?} {verb:?} {body}", self.method, self.collection)
    }
}

fn split(segment: &str) -> (String, Option<String>) {
    match segment.split_once(':') {
        Some((before, verb)) => (before.to_owned(), Some(verb.to_owned())),
        None => (segment.to_owned(), None),
    }
}

fn read_body(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Refusal::new(Code::InvalidArgument, "the body is no object")),
        Err(error) => {
            Err(Refusal::new(Code::InvalidArgument, format!("the body is no JSON: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    fn read(path: &str) -> Result<Request, Refusal> {
        Request::read(&Call {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: "pageSize=2&filter=name%3D%22a%22".to_owned(),
            content_type: String::new(),
            headers: HeaderMap::new(),
            body: Vec::new(),
        })
    }

    #[test]
    fn paths_are_read() {
        let of = |path: &str| {
            let request = read(path).unwrap();
            (request.service, request.collection, request.id, request.verb)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(of("/compute/v1/images"), ("compute", "images".to_owned(), None, None));
        assert_eq!(
            of("/compute/v1/images:latestByFamily"),
            ("compute", "images".to_owned(), None, text("latestByFamily"))
        );
        assert_eq!(
            of("/compute/v1/images/f1:setAccessBindings"),
            ("compute", "images".to_owned(), text("f1"), text("setAccessBindings"))
        );
        assert_eq!(
            of("/compute/v1/images/f1/operations"),
            ("compute", "images".to_owned(), text("f1"), text("operations"))
        );
        assert_eq!(of("/endpoints").1, "endpoints");
        assert_eq!(of("/operations/o1:cancel").3, text("cancel"));
        assert_eq!(of("/iam/v1/tokens").0, "iam");
        for path in ["/", "/compute/v1", "/compute/v1/a/b/c/d"] {
            assert_eq!(read(path).unwrap_err().code, Code::NotFound, "{path}");
        }
        assert_eq!(read("/compute/v1/images").unwrap().query("filter"), Some("name=\"a\""));
    }
}
