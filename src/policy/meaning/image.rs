//! What is captured, where it is stored and what it is called.

use std::collections::BTreeMap;

use similar::get_close_matches;

use super::Meaning;
use crate::inventory::KeyChoice;
use crate::name::{self, LABEL_PREFIX};
use crate::policy::finding::{Code, Finding};
use crate::policy::meant::{Capture, DiskChoice};
use crate::policy::naming::{Naming, TemplateError};
use crate::policy::select::Patterns;
use crate::policy::written::{PolicySpec, Texts};
use crate::policy::yaml::escape;

/// Labels that stillframe itself may put on an image.
const OWN_LABELS: usize = 9;
/// The longest name of a key that any engine takes.
const KEY_LENGTH_MAX: usize = 512;

impl Meaning<'_> {
    pub(super) fn capture(&mut self, spec: &PolicySpec) -> Option<Capture> {
        let written = spec.capture.clone().unwrap_or_default();
        let kind = written.kind.unwrap_or_default();
        let consistency = written.consistency.unwrap_or_default();
        if let Some(capabilities) = self.capabilities {
            if !capabilities.kinds.contains(&kind) {
                let kinds: Vec<&str> = capabilities.kinds.iter().map(|kind| kind.word()).collect();
                self.find(
                    Code::MissingCapability,
                    "/capture/kind",
                    format!("the engine makes no {}", kind.word()),
                )
                .hint = Some(format!("it makes {}", kinds.join(", ")));
            }
            if !capabilities.consistencies.contains(&consistency) {
                self.find(
                    Code::MissingCapability,
                    "/capture/consistency",
                    format!("the engine has no {}-consistent capture", consistency.word()),
                );
            }
        }
        let disks = match written.disks.unwrap_or_else(|| Texts(vec!["all".to_owned()])) {
            Texts(words) if words == ["all"] => DiskChoice::All,
            Texts(words) if words == ["boot"] => DiskChoice::Boot,
            texts => match Patterns::new(&texts) {
                Ok(patterns) => DiskChoice::Named(patterns),
                Err(mistakes) => {
                    for (position, reason) in mistakes {
                        let pointer =
                            if texts.0.len() == 1 { String::new() } else { format!("/{position}") };
                        self.find(
                            Code::BadPattern,
                            &format!("/capture/disks{pointer}"),
                            format!("not a pattern: {reason}"),
                        );
                    }
                    return None;
                }
            },
        };
        Some(Capture { kind, disks, consistency })
    }

    pub(super) fn labels(&mut self, spec: &PolicySpec) -> BTreeMap<String, String> {
        let labels = spec.labels.clone().unwrap_or_default();
        for (key, value) in &labels {
            let pointer = format!("/labels/{}", escape(key));
            let key_place =
                || self.layers.layer(&pointer).unwrap_or(self.layers.policy).key_place(&pointer);
            if key.starts_with(LABEL_PREFIX) {
                let message =
                    format!("labels that begin with `{LABEL_PREFIX}` belong to stillframe");
                self.findings.push(Finding::new(Code::BadLabel, key_place(), message));
            } else if !name::is_label_key(key) {
                self.findings.push(
                    Finding::new(
                        Code::BadLabel,
                        key_place(),
                        format!("`{key}` is not a label key"),
                    )
                    .hint("1 to 63 of a-z, 0-9, `-` and `_`, beginning with a letter"),
                );
            }
            if !name::is_label_value(value) {
                self.find(Code::BadLabel, &pointer, format!("`{value}` is not a label value"))
                    .hint = Some("up to 63 of a-z, 0-9, `-` and `_`".to_owned());
            }
        }
        let room = self
            .capabilities
            .map_or(64, |capabilities| capabilities.labels_max)
            .saturating_sub(OWN_LABELS);
        if labels.len() > room {
            self.find(
                Code::OutOfRange,
                "/labels",
                format!("{} labels: there is room for {room}", labels.len()),
            );
        }
        labels
    }

    pub(super) fn location(&mut self, spec: &PolicySpec) -> String {
        let location =
            spec.storage.as_ref().and_then(|storage| storage.location.clone()).unwrap_or_default();
        let known: &[String] =
            self.capabilities.map_or(&[], |capabilities| &capabilities.locations);
        if !known.is_empty() && !known.contains(&location) {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let hint = match get_close_matches(location.as_str(), &names, 1, 0.6).first() {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("it has {}", names.join(", ")),
            };
            self.find(
                Code::UnknownLocation,
                "/storage/location",
                format!("the engine has no storage location `{location}`"),
            )
            .hint = Some(hint);
        }
        location
    }

    pub(super) fn kms_key(&mut self, spec: &PolicySpec) -> Option<String> {
        let key = spec.encryption.as_ref().and_then(|encryption| encryption.kms_key.clone())?;
        let is_key = (1..=KEY_LENGTH_MAX).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@+".contains(&byte));
        if !is_key {
            self.find(Code::BadKey, "/encryption/kmsKey", format!("`{key}` is not the name of a key")).hint =
                Some("letters, digits and `-_./:@+`, like `projects/p/locations/us/keyRings/r/cryptoKeys/k`".to_owned());
        }
        if self.capabilities.is_some_and(|capabilities| capabilities.key == KeyChoice::None) {
            self.find(
                Code::MissingCapability,
                "/encryption/kmsKey",
                "the engine encrypts under no key of yours",
            );
        }
        Some(key)
    }

    pub(super) fn naming(&mut self, spec: &PolicySpec) -> Option<Naming> {
        let written = spec.naming.clone().unwrap_or_default();
        let (name, description) =
            (written.name.unwrap_or_default(), written.description.unwrap_or_default());
        match Naming::new(&name, &description) {
            Ok(naming) => Some(naming),
            Err(errors) => {
                let mut report = |pointer: &str, error: Option<TemplateError>| {
                    if let Some(TemplateError { message, hint }) = error {
                        self.find(Code::BadTemplate, pointer, message).hint = hint;
                    }
                };
                report("/naming/name", errors.name);
                report("/naming/description", errors.description);
                None
            }
        }
    }
}
