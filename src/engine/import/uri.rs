//! The URL of a disk, which is a secret from its query on.

use std::fmt;
use std::net::IpAddr;

/// What is written in the place of what is hidden.
const HIDDEN: &str = "…";
/// A part of the secret of this length in a text is no accident.
const TELLING: usize = 10;
/// What a signature is about, after the prefix of its scheme: no secret. Messages of others are full of
/// dates and regions.
const OPEN: [&str; 4] = ["algorithm", "date", "expires", "signedheaders"];
const SCHEMES: [&str; 2] = ["x-amz-", "x-goog-"];
/// The longest URL that object storage signs, with room to spare.
const LENGTH_MAX: usize = 8192;

/// Why a text is no URL to import from. The text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImportUriError {
    /// It is none.
    #[error("what was given is no URL; it looks like https://HOST/BUCKET/OBJECT?SIGNATURE")]
    NotAUrl,
    /// It has a user in it.
    #[error(
        "the URL holds a user or a password before its host; sign it instead, so that it ends with a signature"
    )]
    User,
    /// It leads over the network in the open.
    #[error("the URL goes over the network without TLS, which would show its signature; use https")]
    Open,
}

/// Where a disk lies, and the right to read it. It shows of itself what is before its query.
#[derive(Clone, PartialEq, Eq)]
pub struct ImportUri {
    text: String,
    /// Where the query begins, with its `?`.
    secret_from: usize,
}

impl fmt::Debug for ImportUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown())
    }
}

impl ImportUri {
    /// Reads a URL, which may have space around it. Elsewhere than on this machine only with TLS.
    pub fn parse(text: &str) -> Result<Self, ImportUriError> {
        let text = text.trim();
        let is_plain = text.len() <= LENGTH_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || text.contains(['#', '"', '<', '>', '\\', '`']) {
            return Err(ImportUriError::NotAUrl);
        }
        let (scheme, rest) = text.split_once("://").ok_or(ImportUriError::NotAUrl)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let authority = &rest[..end];
        if authority.contains('@') {
            return Err(ImportUriError::User);
        }
        let host = host_of(authority).ok_or(ImportUriError::NotAUrl)?;
        match scheme {
            "https" => {}
            "http" if is_loopback(host) => {}
            "http" => return Err(ImportUriError::Open),
            _ => return Err(ImportUriError::NotAUrl),
        }
        let secret_from = text.find('?').unwrap_or(text.len());
        Ok(Self { text: text.to_owned(), secret_from })
    }

    /// All of it: for the request alone.
    pub fn secret(&self) -> &str {
        &self.text
    }

    /// Where the disk lies, without what was signed.
    pub fn open(&self) -> &str {
        &self.text[..self.secret_from]
    }

    /// The same for people, who see that something is hidden.
    pub fn shown(&self) -> String {
        if self.secret_from < self.text.len() {
            format!("{}?{HIDDEN}", self.open())
        } else {
            self.open().to_owned()
        }
    }

    /// A text of somebody else about it, who may quote it, without what is hidden. Where a part of that is
    /// there all the same, cut short or written in another way, nothing of the text is passed on.
    pub fn without_secret(&self, text: &str) -> String {
        let Some(query) = self.text.get(self.secret_from + 1..).filter(|query| !query.is_empty())
        else {
            return text.to_owned();
        };
        let mut values = values(query);
        // The longest first: one may be a part of another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let mut text = text.replace(query, HIDDEN).replace(&decoded(query), HIDDEN);
        for value in values.iter().filter(|value| value.len() >= TELLING) {
            text = text.replace(value.as_str(), HIDDEN);
        }
        let said = text.to_ascii_lowercase();
        let is_told = values.iter().any(|value| {
            let value = value.to_ascii_lowercase().into_bytes();
            value.windows(TELLING).any(|part| contains(said.as_bytes(), part))
        });
        if is_told {
            return "what was said of it repeats a part of the secret in the URL, and is left out"
                .to_owned();
        }
        text
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The values of a query that may be secret, as they are written and as they are meant.
fn values(query: &str) -> Vec<String> {
    let mut values = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or(("", pair));
        let name = name.to_ascii_lowercase();
        let of_scheme = SCHEMES.iter().find_map(|scheme| name.strip_prefix(scheme));
        if of_scheme.is_some_and(|name| OPEN.contains(&name)) {
            continue;
        }
        let meant = decoded(value);
        // The key comes first in it, then its scope: a date, a region, a service.
        if of_scheme == Some("credential") {
            values.extend(meant.split('/').next().map(str::to_owned));
            continue;
        }
        if meant != value {
            values.push(meant);
        }
        values.push(value.to_owned());
    }
    values
}

/// Without the percent signs of URLs.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The host of what stands between `://` and the path, whose port is a number.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, port.strip_prefix(':').or(port.is_empty().then_some("80"))?)
    } else {
        authority.split_once(':').unwrap_or((authority, "80"))
    };
    let is_host = |character: char| character.is_ascii_alphanumeric() || "-._:".contains(character);
    (!host.is_empty() && host.chars().all(is_host) && port.parse::<u16>().is_ok()).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "https://storage.example.net/backups/web-1.qcow2?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=YCAJEabcdefgh%2F20261121%2Fru-central1%2Fs3%2Faws4_request&X-Amz-Date=20261121T120000Z&X-Amz-Expires=3600&X-Amz-Signature=4f1c2e9d0b7a6f5544332211ffeeddcc";

    #[test]
    fn it_shows_no_more_than_where_the_disk_lies() {
        let uri = ImportUri::parse(&format!(" {SIGNED}\n")).unwrap();
        assert_eq!(uri.secret(), SIGNED);
        assert_eq!(uri.open(), "https://storage.example.net/backups/web-1.qcow2");
        for shown in [uri.shown(), format!("{uri:?}"), format!("{:?}", Some(&uri))] {
            assert!(!shown.contains("X-Amz"), "{shown}");
        }
        let plain = ImportUri::parse("https://storage.example.net/web-1.raw").unwrap();
        assert_eq!(plain.shown(), plain.secret());
    }

    #[test]
    fn what_is_no_url_is_refused_and_not_repeated() {
        for (text, error) in [
            ("", ImportUriError::NotAUrl),
            ("web-1.qcow2?X-Amz-Signature=1", ImportUriError::NotAUrl),
            ("file:///etc/shadow", ImportUriError::NotAUrl),
            ("https:///bucket/x", ImportUriError::NotAUrl),
            ("https://host:port/x", ImportUriError::NotAUrl),
            ("https://ho st/x", ImportUriError::NotAUrl),
            ("https://host/x#part", ImportUriError::NotAUrl),
            ("https://host/x\nX: y", ImportUriError::NotAUrl),
            ("ftp://host/x", ImportUriError::NotAUrl),
            ("https://[::1/x", ImportUriError::NotAUrl),
            ("https://me:secret@host/x", ImportUriError::User),
            ("http://storage.example.net/x?X-Amz-Signature=1", ImportUriError::Open),
            ("http://127.0.0.1.example.net/x", ImportUriError::Open),
        ] {
            assert_eq!(ImportUri::parse(text), Err(error), "{text}");
            assert!(!error.to_string().contains("secret@"));
        }
        for text in ["http://127.0.0.1:9000/b/x", "http://[::1]:9000/x", "http://localhost/x"] {
            assert!(ImportUri::parse(text).is_ok(), "{text}");
        }
        assert!(ImportUri::parse(&format!("https://h/{}", "x".repeat(LENGTH_MAX))).is_err());
    }

    #[test]
    fn what_others_say_of_it_has_nothing_of_the_secret() {
        let uri = ImportUri::parse(SIGNED).unwrap();
        let query = SIGNED.split_once('?').unwrap().1;
        let decoded = decoded(query);
        let cut = &SIGNED[..SIGNED.len() - 5];
        for said in [
            format!("cannot read {SIGNED}"),
            format!("cannot read `{query}` of it"),
            format!("cannot read {cut}…"),
            format!("no such credential: {decoded}"),
            "signature 4F1C2E9D0B7A6F5544332211FFEEDDCC does not match".to_owned(),
            "signature 4f1c2e9d0b7a6f55… does not match".to_owned(),
            format!("cannot read {}", SIGNED.replace('&', "\\u0026")),
            "no key YCAJEabcdefgh/20261121/ru-central1".to_owned(),
        ] {
            let passed_on = uri.without_secret(&said);
            for secret in ["4f1c2e9d0b", "YCAJEabcdefgh", "a6f5544332"] {
                let is_there = passed_on.to_lowercase().contains(&secret.to_lowercase());
                assert!(!is_there, "{said}: {passed_on}");
            }
        }
        assert_eq!(
            uri.without_secret(&format!("cannot read {SIGNED}: 403")),
            "cannot read https://storage.example.net/backups/web-1.qcow2?…: 403"
        );
        for harmless in [
            "The limit on total number of images has exceeded.",
            "the zone ru-central1-a has no room since 20261121T120000Z",
        ] {
            assert_eq!(uri.without_secret(harmless), harmless);
        }
    }
}
