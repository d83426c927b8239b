//! The same API over gRPC, as the vendor's SDKs speak it: each call is carried over to the request in JSON
//! that means the same, and its answer back. So there is one service, and this only translates.
//!
//! The messages are described by a table (`schema`); `prost-reflect` knows how a message is written in
//! JSON. Calls have one message and one answer each; nothing is compressed.

mod method;
mod schema;

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde_json::{Map, Value};

use method::METHODS;

use super::answer::Refusal;
use crate::serve::{Call, Content, Reply};

/// What gRPC calls its bodies.
pub const CONTENT_TYPE: &str = "application/grpc";
/// The status of what went well, and of what is not done here.
const OK: u8 = 0;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
/// Before each message: whether it is compressed, and its length.
const PREFIX_LENGTH: usize = 5;

/// The messages of the API.
pub struct Translator {
    pool: DescriptorPool,
}

/// A call in gRPC as one in JSON, and what its answer is to be.
pub struct Translated {
    /// The call.
    pub call: Call,
    response: MessageDescriptor,
}

/// Why a call cannot be carried over: a code of gRPC, and why.
pub type Untranslatable = (u8, String);

impl Translator {
    /// Reads the table of messages.
    pub fn new() -> Result<Self, String> {
        Ok(Self { pool: schema::pool()? })
    }

    /// Carries a call over.
    pub fn call(&self, call: &Call) -> Result<Translated, Untranslatable> {
        let method = METHODS.iter().find(|method| call.path == method.path());
        let method = method
            .ok_or_else(|| (UNIMPLEMENTED, format!("this server does not do {}", call.path)))?;
        let internal = |why: String| (INTERNAL, why);
        let request = self.message(method.request).map_err(internal)?;
        let message = DynamicMessage::decode(request, unframed(&call.body)?)
            .map_err(|error| internal(error.to_string()))?;
        let json = serde_json::to_value(&message).map_err(|error| internal(error.to_string()))?;
        let Value::Object(mut fields) = json else {
            return Err(internal("the message is no object".to_owned()));
        };
        let path = fill(method.template, &mut fields)?;
        let is_body = matches!(method.verb, "POST" | "PATCH");
        let (query, body) = if is_body {
            (String::new(), Value::Object(fields).to_string().into_bytes())
        } else {
            (query(&fields), Vec::new())
        };
        Ok(Translated {
            call: Call {
                method: method.verb.to_owned(),
                path,
                query,
                content_type: "application/json".to_owned(),
                headers: call.headers.clone(),
                body,
            },
            response: self.message(method.response).map_err(internal)?,
        })
    }

    fn message(&self, name: &str) -> Result<MessageDescriptor, String> {
        let found = self.pool.get_message_by_name(&schema::full_name(name));
        found.ok_or_else(|| format!("there is no message {name}"))
    }
}

impl Translated {
    /// Carries an answer back.
    pub fn reply(&self, reply: Reply) -> Reply {
        let Content::Json(body) = reply.content else {
            return refused(INTERNAL, "the answer is no JSON");
        };
        if reply.status != 200 {
            let code = body["code"].as_u64().and_then(|code| u8::try_from(code).ok());
            let message = body["message"].as_str().unwrap_or_default();
            return refused(code.unwrap_or(INTERNAL), message);
        }
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let message =
            DynamicMessage::deserialize_with_options(self.response.clone(), body, &options);
        match message {
            Ok(message) => framed(&message.encode_to_vec(), OK, ""),
            Err(error) => refused(INTERNAL, &error.to_string()),
        }
    }
}

/// What somebody is told who gets no message.
pub fn refused(code: u8, message: &str) -> Reply {
    let mut reply = framed(&[], code, message);
    if let Content::Bytes { bytes, .. } = &mut reply.content {
        bytes.clear();
    }
    reply
}

/// The same for a refusal of the service.
pub fn refusal(refusal: &Refusal) -> Reply {
    refused(refusal.code.number(), &refusal.message)
}

/// A message behind its length, and the status behind it.
fn framed(message: &[u8], code: u8, said: &str) -> Reply {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(message);
    let said = percent_encoding::utf8_percent_encode(said, percent_encoding::CONTROLS);
    let content = Content::Bytes {
        kind: CONTENT_TYPE.to_owned(),
        bytes,
        trailers: vec![("grpc-status", code.to_string()), ("grpc-message", said.to_string())],
    };
    Reply::new(200, content)
}

fn unframed(body: &[u8]) -> Result<&[u8], Untranslatable> {
    let wrong = |why: &str| (INTERNAL, why.to_owned());
    let (prefix, message) =
        body.split_at_checked(PREFIX_LENGTH).ok_or_else(|| wrong("there is no message"))?;
    if prefix[0] != 0 {
        return Err((UNIMPLEMENTED, "this server reads nothing that is compressed".to_owned()));
    }
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if message.len() == length as usize {
        Ok(message)
    } else {
        Err(wrong("the message is not as long as it says"))
    }
}

/// The path of a request, with fields of the message in place of `{…}`, which are taken out of it.
fn fill(template: &str, fields: &mut Map<String, Value>) -> Result<String, Untranslatable> {
    let Some((before, rest)) = template.split_once('{') else { return Ok(template.to_owned()) };
    let (field, after) = rest.split_once('}').unwrap_or((rest, ""));
    let value = fields.remove(field);
    let value = value.as_ref().and_then(Value::as_str).filter(|value| !value.is_empty());
    let value = value.ok_or_else(|| (3, format!("{field}: Field is required")))?;
    let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
    Ok(format!("{before}{value}{after}"))
}

fn query(fields: &Map<String, Value>) -> String {
    let pairs = fields.iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let value =
            percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC);
        format!("{name}={value}")
    });
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use serde_json::json;

    use super::*;

    fn call(path: &str, message: &[u8]) -> Call {
        let Content::Bytes { bytes, .. } = framed(message, OK, "").content else {
            panic!("it has bytes")
        };
        Call {
            method: "POST".to_owned(),
            path: path.to_owned(),
            query: String::new(),
            content_type: CONTENT_TYPE.to_owned(),
            headers: HeaderMap::new(),
            body: bytes,
        }
    }

    #[test]
    fn every_method_has_its_messages() {
        let translator = Translator::new().unwrap();
        for method in METHODS {
            for message in [method.request, method.response] {
                translator.message(message).unwrap();
            }
        }
    }

    #[test]
    fn a_call_is_carried_over_and_its_answer_back() {
        let translator = Translator::new().unwrap();
        // folder_id = "f", page_size = 2, filter = "name=\"a b\""
        let message = b"\x0a\x01f\x10\x02\x22\x0aname=\"a b\"";
        let path = "/yandex.cloud.compute.v1.ImageService/List";
        let translated = translator.call(&call(path, message)).unwrap();
        assert_eq!(translated.call.method, "GET");
        assert_eq!(translated.call.path, "/compute/v1/images");
        let pairs: std::collections::BTreeMap<_, _> = translated.call.pairs().into_iter().collect();
        assert_eq!(pairs["filter"], "name=\"a b\"");
        assert_eq!((pairs["folderId"].as_str(), pairs["pageSize"].as_str()), ("f", "2"));
        let answer =
            json!({"images": [{"id": "i", "status": "READY", "storageSize": "7", "new": 1}]});
        let reply = translated.reply(Reply::new(200, Content::Json(answer)));
        let Content::Bytes { bytes, trailers, .. } = reply.content else { panic!("it has bytes") };
        // images = { id = "i", storage_size = 7, status = READY }
        assert_eq!(&bytes[PREFIX_LENGTH..], b"\x0a\x07\x0a\x01i\x40\x07\x58\x02");
        assert_eq!(trailers[0], ("grpc-status", "0".to_owned()));
    }

    #[test]
    fn a_refusal_has_its_code() {
        let translator = Translator::new().unwrap();
        let path = "/yandex.cloud.compute.v1.ImageService/Get";
        let translated = translator.call(&call(path, b"\x0a\x02i:")).unwrap();
        assert_eq!(translated.call.path, "/compute/v1/images/i%3A");
        let body = json!({"code": 5, "message": "Image i: not found\n"});
        let reply = translated.reply(Reply::new(404, Content::Json(body)));
        let Content::Bytes { bytes, trailers, .. } = reply.content else { panic!("it has bytes") };
        assert!(bytes.is_empty());
        let said = |name| trailers.iter().find(|(known, _)| *known == name).unwrap().1.as_str();
        assert_eq!((said("grpc-status"), said("grpc-message")), ("5", "Image i: not found%0A"));
        assert_eq!(translator.call(&call(path, b"")).err().unwrap().0, 3);
        assert_eq!(translator.call(&call("/x.Y/Z", b"")).err().unwrap().0, UNIMPLEMENTED);
    }
}
