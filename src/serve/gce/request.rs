//! Requests as values: what is asked for, of what, read from path, query and body.

use serde_json::{Map, Value};

use super::answer::Refusal;
use super::link::Scope;
use crate::name::is_rfc1035_label;
use crate::serve::Call;

/// A request for something of a project.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The method of HTTP.
    pub method: String,
    /// The project.
    pub project: String,
    /// Where in the project.
    pub scope: Scope,
    /// Which collection; empty where the project itself is meant.
    pub collection: String,
    /// Which of them.
    pub name: Option<String>,
    /// What is to be done with it.
    pub verb: Option<String>,
    /// The query, in order.
    pub query: Vec<(String, String)>,
    /// The body; an empty object where there is none.
    pub body: Map<String, Value>,
}

impl Request {
    /// Reads a request. Whatever is in the query beyond what is known is of no matter.
    pub fn read(call: &Call) -> Result<Self, Refusal> {
        let not_found = || Refusal {
            status: 404,
            reason: "notFound",
            message: format!("there is nothing under {}", call.path),
        };
        let segments = call.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let ["compute", "v1" | "beta" | "alpha", "projects", project, rest @ ..] =
            segments.as_slice()
        else {
            return Err(not_found());
        };
        let (scope, rest) = match rest {
            ["global", rest @ ..] => (Scope::Global, rest),
            ["aggregated", rest @ ..] => (Scope::Aggregated, rest),
            ["zones", zone, rest @ ..] if !rest.is_empty() => (Scope::zone(zone), rest),
            ["regions", region, rest @ ..] if !rest.is_empty() => (Scope::region(region), rest),
            rest => (Scope::Project, rest),
        };
        let mut rest = rest.iter().map(|&segment| segment.to_owned());
        let request = Self {
            method: call.method.clone(),
            project: (*project).to_owned(),
            scope,
            collection: rest.next().unwrap_or_default(),
            name: rest.next(),
            verb: rest.next(),
            query: call.pairs(),
            body: read_body(&call.body)?,
        };
        if rest.next().is_some() { Err(not_found()) } else { Ok(request) }
    }

    /// A value of the query; an empty one counts as none.
    pub fn query(&self, key: &str) -> Option<&str> {
        let found = self.query.iter().rev().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether a switch of the query is on, however it is cased.
    pub fn is_on(&self, key: &str) -> bool {
        self.query(key).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A text of the body; an empty one counts as none.
    pub fn text(&self, field: &str) -> Result<Option<&str>, Refusal> {
        text_of(&self.body, "resource", field)
    }

    /// The name of something new, if it is one.
    pub fn name_of_new(&self) -> Result<&str, Refusal> {
        let name = self.text("name")?.ok_or_else(|| Refusal::required("resource.name"))?;
        if is_rfc1035_label(name) {
            return Ok(name);
        }
        let why = "Must be a match of regex '[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?'";
        Err(Refusal::invalid("resource.name", name, why))
    }

    /// The method, the name and the verb, to be matched.
    pub fn parts(&self) -> (&str, Option<&str>, Option<&str>) {
        (&self.method, self.name.as_deref(), self.verb.as_deref())
    }

    /// The refusal of what this server does not do.
    pub fn not_done(&self) -> Refusal {
        let verb = self.verb.as_deref().unwrap_or_default();
        Refusal::not_done(format!("{} {} {verb}", self.method, self.collection).trim_end())
    }
}

/// A text of an object that is at a place of a body; an empty one counts as none.
pub fn text_of<'a>(
    object: &'a Map<String, Value>,
    within: &str,
    field: &str,
) -> Result<Option<&'a str>, Refusal> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => {
            let field = format!("{within}.{field}");
            Err(Refusal::invalid(&field, &other.to_string(), "It must be a text."))
        }
    }
}

fn read_body(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(Value::String(text)) if text.is_empty() => Ok(Map::new()),
        Ok(_) => Err(Refusal { reason: "parseError", ..Refusal::bad("the body is no object") }),
        Err(error) => Err(Refusal {
            reason: "parseError",
            ..Refusal::bad(format!("the body is no JSON: {error}"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, path: &str, query: &str, body: &str) -> Result<Request, Refusal> {
        Request::read(&Call {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            content_type: String::new(),
            headers: axum::http::HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        })
    }

    #[test]
    fn paths_of_every_scope_are_read() {
        let of = |path: &str| {
            let request = read("GET", &format!("/compute/beta/projects/p{path}"), "", "").unwrap();
            (request.scope, request.collection, request.name, request.verb)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(of(""), (Scope::Project, String::new(), None, None));
        assert_eq!(of("/zones"), (Scope::Project, "zones".to_owned(), None, None));
        assert_eq!(of("/zones/a"), (Scope::Project, "zones".to_owned(), text("a"), None));
        assert_eq!(
            of("/zones/hall-a/instances/web-1"),
            (Scope::zone("hall-a"), "instances".to_owned(), text("web-1"), None)
        );
        assert_eq!(
            of("/global/machineImages/m/setLabels"),
            (Scope::Global, "machineImages".to_owned(), text("m"), text("setLabels"))
        );
        assert_eq!(of("/aggregated/disks").0, Scope::Aggregated);
        for path in ["/", "/compute/v2/projects/p", "/compute/v1/projects/p/global/a/b/c/d"] {
            assert_eq!(read("GET", path, "", "").unwrap_err().status, 404, "{path}");
        }
    }

    #[test]
    fn queries_and_bodies_are_read_as_clients_write_them() {
        let path = "/compute/v1/projects/p/global/images";
        let query = "pageToken=&filter=name+eq%20a&%24alt=json&returnPartialSuccess=True";
        let request = read("GET", path, query, "\"\"").unwrap();
        assert_eq!(request.query("pageToken"), None);
        assert_eq!(request.query("filter"), Some("name eq a"));
        assert!(request.is_on("returnPartialSuccess"));
        assert!(request.body.is_empty());
        assert_eq!(read("POST", path, "", "[]").unwrap_err().reason, "parseError");
        assert!(read("POST", path, "", "{").unwrap_err().message.contains("no JSON"));
    }
}
