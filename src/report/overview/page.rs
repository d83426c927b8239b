//! The page for a browser: one document that loads nothing from elsewhere.
//!
//! Its script and its style are named by their digests, so that nothing else runs, wherever it came
//! from. What is shown stands in the document as JSON, or is asked for by a served page.

use std::sync::LazyLock;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use super::Overview;
use super::gather::bits;

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the page may do.
pub static CONTENT_POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = |text: &str| format!("'sha256-{}'", BASE64.encode(&Sha256::digest(text)));
    format!(
        "default-src 'none'; base-uri 'none'; form-action 'none'; connect-src 'self'; \
         style-src {}; script-src {}",
        digest(STYLE),
        digest(SCRIPT)
    )
});

/// The page with what it shows in it.
pub fn page(overview: &Overview) -> Result<String, serde_json::Error> {
    // In JSON `<` stands only in texts, where this says the same; no name ends the element.
    let json = serde_json::to_string(overview)?.replace('<', "\\u003c");
    Ok(document(&format!("<script type=\"application/json\" id=\"data\">{json}</script>\n")))
}

/// The page that asks for `page.json`.
pub fn shell() -> String {
    document("")
}

fn document(data: &str) -> String {
    HTML.replace("@POLICY@", &CONTENT_POLICY)
        .replace("@STYLE@", STYLE)
        .replace("@SCRIPT@", SCRIPT)
        .replacen("@DATA@", data, 1)
}

impl Overview {
    /// An overview with nothing in it yet.
    pub fn new(at: jiff::Timestamp, name: &str, policies_digest: &str) -> Self {
        Self {
            format_version: super::FORMAT_VERSION.to_owned(),
            at,
            name: crate::report::clean(name),
            policies_digest: policies_digest.to_owned(),
            mistakes: Vec::new(),
            bits: bits(),
            policies: Vec::new(),
            engines: Vec::new(),
            unseen: Vec::new(),
            rounds: Vec::new(),
        }
    }
}
