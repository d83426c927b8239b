//! Requests, as far as their paths say what they are about.

use serde_json::Value;

use super::answer::Refusal;
use crate::serve::Call;

/// The platform that virtual machines are on.
pub const PLATFORM: &str = "openstack-taichung-default-2";

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method, in upper case.
    pub method: String,
    /// The path, as it was sent.
    pub path: String,
    /// The platform; what is common to all has none.
    pub platform: String,
    /// What it is about.
    pub collection: String,
    /// The number of one of them.
    pub id: Option<String>,
    /// What is done with it.
    pub verb: Option<String>,
    /// The number of something below that.
    pub below: Option<String>,
    query: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// Reads a request. Both versions of the API have the same paths here.
    pub fn read(call: &Call) -> Result<Self, Refusal> {
        if !call.path.ends_with('/') && call.path.starts_with("/api/") {
            return Err(Refusal::inside(&call.path));
        }
        let mut parts = call.segments().into_iter();
        let begin = (parts.next(), parts.next());
        let (Some("api"), Some("v2" | "v3")) = (begin.0.as_deref(), begin.1.as_deref()) else {
            return Err(Refusal::login(&call.path));
        };
        let first = parts.next().ok_or_else(|| Refusal::login(&call.path))?;
        let (platform, collection) = if first == PLATFORM {
            (first, parts.next().ok_or_else(|| Refusal::login(&call.path))?)
        } else {
            (String::new(), first)
        };
        let request = Self {
            method: call.method.clone(),
            path: call.path.clone(),
            platform,
            collection,
            id: parts.next(),
            verb: parts.next(),
            below: parts.next(),
            query: call.pairs(),
            body: call.body.clone(),
        };
        if parts.next().is_some() {
            return Err(Refusal::login(&call.path));
        }
        Ok(request)
    }

    /// A parameter.
    pub fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body, which is JSON.
    pub fn body(&self) -> Result<Value, Refusal> {
        match serde_json::from_slice(&self.body) {
            Ok(body @ Value::Object(_)) => Ok(body),
            Ok(_) => Err(Refusal::bad("Invalid data. Expected a dictionary.")),
            Err(error) => Err(Refusal::bad(format!("JSON parse error - {error}"))),
        }
    }

    /// Whether a list is asked for.
    pub fn is_list(&self) -> bool {
        self.method == "GET" && self.id.is_none()
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
            query: "project=101&name=a+b".to_owned(),
            content_type: String::new(),
            headers: HeaderMap::new(),
            body: Vec::new(),
        })
    }

    #[test]
    fn a_path_says_what_is_asked_for() {
        let request = read(&format!("/api/v3/{PLATFORM}/images/7/save/")).unwrap();
        let parts = (request.collection.as_str(), request.id.as_deref(), request.verb.as_deref());
        assert_eq!(parts, ("images", Some("7"), Some("save")));
        assert_eq!(request.query("name"), Some("a b"));
        assert_eq!(read(&format!("/api/v2/{PLATFORM}/snapshots/")).unwrap().platform, PLATFORM);
        assert_eq!(read("/api/v3/solutions/").unwrap().collection, "solutions");
    }

    #[test]
    fn a_path_that_is_not_there_leads_elsewhere() {
        let status = |path: &str| read(path).unwrap_err().status;
        assert_eq!(status(&format!("/api/v3/{PLATFORM}/images")), 301);
        assert_eq!(status("/somewhere/"), 302);
        assert_eq!(status("/api/v4/images/"), 302);
        assert_eq!(status(&format!("/api/v3/{PLATFORM}/images/1/2/3/4/")), 302);
    }
}
