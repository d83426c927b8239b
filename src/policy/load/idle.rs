//! Mistakes in what no policy makes use of: overlays of other environments, and defaults.
//!
//! What stands there is read as if it were a policy of its own, so that a mistake shows before
//! somebody needs it. The policies themselves are not read again.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Loader;
use super::config::Configured;
use super::documents::Document;
use super::policies::built_in_for;
use crate::policy::effective::{Layer, Layers};
use crate::policy::finding::{Code, Finding};
use crate::policy::meaning::{Meaning, Periods};
use crate::policy::meant::Config;

impl Loader<'_> {
    /// Looks at the overlays that are not in use, and at the defaults.
    pub(super) fn idle(
        &mut self,
        config: &Document,
        known: Option<&Config>,
        overlays: &[Document],
        chosen: Option<&str>,
    ) {
        let nothing = json!({});
        if let (Some(known), None) = (known, chosen) {
            let found = meanings(config, config.layer("/spec/defaults", &nothing), known);
            self.extend_in(config, found);
        }
        for overlay in overlays.iter().filter(|overlay| Some(overlay.name()) != chosen) {
            let mut other =
                Loader { kinds: self.kinds, endpoints: self.endpoints, findings: Vec::new() };
            let configured = other.config(config, Some(overlay), Some(overlay.name()));
            let patches = other.patches(overlay);
            let mut found = other.findings;
            if let Some(Configured { config: known, .. }) = &configured {
                let prefixes = patches.iter().map(|patch| patch.prefix.as_str());
                for prefix in prefixes.chain(["/spec/config/defaults"]) {
                    found.extend(meanings(overlay, overlay.layer(prefix, &nothing), known));
                }
            }
            self.extend_in(overlay, found);
        }
    }

    /// Adds the errors that stand in a document and were not known before.
    fn extend_in(&mut self, document: &Document, found: Vec<Finding>) {
        let before = self.findings.len();
        for finding in found.into_iter().filter(Finding::is_error) {
            let Some(place) = &finding.place else { continue };
            let span = &document.node.span;
            let is_inside = Arc::ptr_eq(&place.file, &document.file)
                && (span.start..=span.end).contains(&place.span.start);
            let is_known =
                |known: &Finding| known.code == finding.code && known.place.as_ref() == Some(place);
            if is_inside && !self.findings[..before].iter().any(is_known) {
                self.findings.push(finding);
            }
        }
    }
}

/// What is wrong with values that policies could have, whatever else they say and whichever engine
/// they are for.
fn meanings(document: &Document, own: Layer<'_>, config: &Config) -> Vec<Finding> {
    let engines = &config.engines;
    let mut found: Option<Vec<Finding>> = None;
    let built_in = built_in_for(Some(config));
    let periods = Periods::default();
    let nothing = json!({});
    for (name, engine) in engines {
        let values = built_in.get(&Some(name.clone())).unwrap_or(&nothing);
        let layers = Layers::new(Vec::new(), own, Vec::new(), values);
        let capabilities = Some(&engine.capabilities);
        let meaning = Meaning::new(&layers, &document.damaged, capabilities, &periods);
        let mut meaning = meaning.each_by_itself();
        // It has no name and no source, so it is no policy, which nobody needs here.
        let _ = meaning.policy(&nothing, document.place(), None);
        let of_engine = meaning.into_findings();
        let is_common = |one: &Finding| {
            of_engine.iter().any(|other| other.code == one.code && other.place == one.place)
        };
        found = Some(match found {
            Some(found) => found.into_iter().filter(is_common).collect(),
            None => of_engine,
        });
    }
    // What an engine cannot do matters once a policy asks for it.
    let mut found = found.unwrap_or_default();
    found.retain(|finding| finding.code != Code::MissingCapability);
    let engine = own.json.get("engine").and_then(Value::as_str);
    if let Some(name) = engine.filter(|name| !engines.contains_key(*name) && !engines.is_empty()) {
        let names: Vec<&str> = engines.keys().map(String::as_str).collect();
        let message = format!("there is no engine `{name}`");
        found.push(
            Finding::new(Code::UnknownEngine, own.place("/engine"), message)
                .hint(format!("there are {}", names.join(", "))),
        );
    }
    found
}
