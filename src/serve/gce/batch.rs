//! Several requests in one, as `multipart/mixed`, each answered by itself.

use std::fmt::Write;

use super::Inner;
use super::answer::{Refusal, reply};
use crate::serve::{Call, Content, Reply};

/// Most requests of a batch, as the API has it.
const REQUESTS_MAX: usize = 1000;
/// What divides the parts of an answer. No answer has it in it: JSON has no line of its own like it.
const BOUNDARY: &str = "batch_of_stillframe";

/// A part of a batch.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    /// What the client calls it.
    id: String,
    /// The request.
    call: Call,
}

impl Inner {
    /// Answers each request of a batch, in order.
    pub(super) async fn batch(&self, call: &Call) -> Reply {
        let parts = match read(call) {
            Ok(parts) => parts,
            Err(refusal) => return reply(Err(refusal)),
        };
        let mut text = String::new();
        for part in parts {
            let Reply { status, content, .. } = reply(self.answer(&part.call).await);
            let reason = axum::http::StatusCode::from_u16(status)
                .ok()
                .and_then(|status| status.canonical_reason())
                .unwrap_or("Unknown");
            let body = match content {
                Content::Json(body) => body.to_string(),
                Content::Text { text, .. } => text,
                Content::None | Content::Bytes { .. } => String::new(),
            };
            let id = &part.id;
            let length = body.len();
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "--{BOUNDARY}\r\nContent-Type: application/http\r\nContent-ID: <response-{id}>\r\n\r\n\
                 HTTP/1.1 {status} {reason}\r\nContent-Type: application/json; charset=UTF-8\r\n\
                 Content-Length: {length}\r\n\r\n{body}\r\n"
            );
        }
        let _ = write!(text, "--{BOUNDARY}--\r\n");
        let kind = format!("multipart/mixed; boundary={BOUNDARY}");
        Reply::new(200, Content::Text { kind, text })
    }
}

fn read(call: &Call) -> Result<Vec<Part>, Refusal> {
    let (kind, parameters) = call.content_type.split_once(';').unwrap_or((&call.content_type, ""));
    let boundary = parameters
        .split(';')
        .find_map(|parameter| parameter.trim().strip_prefix("boundary="))
        .map(|boundary| boundary.trim_matches('"'));
    let Some(boundary) = boundary.filter(|_| kind.trim().eq_ignore_ascii_case("multipart/mixed"))
    else {
        return Err(Refusal::bad("a batch is multipart/mixed with a boundary"));
    };
    let body = std::str::from_utf8(&call.body).map_err(|_| Refusal::bad("a batch is text"))?;
    let body = format!("\n{}", body.replace("\r\n", "\n"));
    let divider = format!("\n--{boundary}");
    let mut pieces = body.split(divider.as_str()).skip(1);
    let mut parts = Vec::new();
    loop {
        let piece = pieces.next().ok_or_else(|| Refusal::bad("the batch has no end"))?;
        if piece.starts_with("--") {
            return Ok(parts);
        }
        if parts.len() == REQUESTS_MAX {
            let message = format!("a batch has at most {REQUESTS_MAX} requests");
            return Err(Refusal::bad(message));
        }
        parts.push(read_part(piece)?);
    }
}

fn read_part(piece: &str) -> Result<Part, Refusal> {
    let wrong = || Refusal::bad("a part of the batch is no request");
    let piece = piece.strip_prefix('\n').ok_or_else(wrong)?;
    let (outer, inner) = piece.split_once("\n\n").ok_or_else(wrong)?;
    let (line, rest) = inner.split_once('\n').unwrap_or((inner, ""));
    // A request without headers is followed by its empty line at once.
    let (headers, body) = match rest.strip_prefix('\n') {
        Some(body) => ("", body),
        None => rest.split_once("\n\n").unwrap_or((rest, "")),
    };
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().ok_or_else(wrong)?, words.next().ok_or_else(wrong)?);
    let target = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let id = header(outer, "content-id").unwrap_or_default();
    Ok(Part {
        id: id.trim_start_matches('<').trim_end_matches('>').to_owned(),
        call: Call {
            method: method.to_ascii_uppercase(),
            path: path.to_owned(),
            query: query.to_owned(),
            content_type: header(headers, "content-type").unwrap_or_default().to_owned(),
            headers: axum::http::HeaderMap::new(),
            body: body.trim_end_matches('\n').as_bytes().to_vec(),
        },
    })
}

fn header<'a>(headers: &'a str, name: &str) -> Option<&'a str> {
    headers.lines().find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(content_type: &str, body: &str) -> Result<Vec<Part>, Refusal> {
        read(&Call {
            method: "POST".to_owned(),
            path: "/batch/compute/v1".to_owned(),
            query: String::new(),
            content_type: content_type.to_owned(),
            headers: axum::http::HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        })
    }

    #[test]
    fn parts_are_read_as_clients_write_them() {
        // As google-api-python-client 2.202 writes it.
        let body = "--===1==\nContent-Type: application/http\nMIME-Version: 1.0\n\
            Content-Transfer-Encoding: binary\nContent-ID: <0d5f + 1>\n\n\
            GET /compute/v1/projects/p/global/images?alt=json HTTP/1.1\nAccept: application/json\n\
            Host: 127.0.0.1\n\n\n--===1==\nContent-ID: <0d5f + 2>\n\n\
            POST /compute/v1/projects/p/global/images HTTP/1.1\r\nContent-Type: application/json\r\n\r\n\
            {\"name\": \"a\"}\r\n--===1==--";
        let parts = batch("multipart/mixed; boundary=\"===1==\"", body).unwrap();
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].id, "0d5f + 1");
        assert_eq!(
            (parts[0].call.path.as_str(), parts[0].call.query.as_str()),
            ("/compute/v1/projects/p/global/images", "alt=json")
        );
        assert!(parts[0].call.body.is_empty());
        assert_eq!(parts[1].call.method, "POST");
        assert_eq!(parts[1].call.body, b"{\"name\": \"a\"}");
        for (kind, body) in [
            ("application/json", body),
            ("multipart/mixed", body),
            ("multipart/mixed; boundary=x", body),
            ("multipart/mixed; boundary=x", "--x\nno request"),
            ("multipart/mixed; boundary=x", "--x\n\n\n\n--x--"),
        ] {
            assert_eq!(batch(kind, body).unwrap_err().status, 400, "{kind}");
        }
    }
}
