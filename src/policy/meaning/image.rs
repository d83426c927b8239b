//! What is captured, where it is stored and what it is called.

use std::collections::BTreeMap;

use similar::get_close_matches;

use super::Meaning;
use crate::inventory::form::refused;
use crate::inventory::{
    Capabilities, Grant, ImageKind, KeyChoice, LocationChoice, RecordPlace, Tier, Via,
};
use crate::name::{self, LABEL_PREFIX};
use crate::policy::finding::{Code, Finding};
use crate::policy::meant::{Capture, DiskChoice};
use crate::policy::naming::{self, Naming, TemplateError};
use crate::policy::written::{GrantSpec, PolicySpec, Texts};
use crate::policy::yaml::escape;

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
                self.reader
                    .find(
                        Code::MissingCapability,
                        "/capture/kind",
                        format!("the engine makes no {}", kind.word()),
                    )
                    .hint = Some(format!("it makes {}", kinds.join(", ")));
            }
            if !capabilities.consistencies.contains(&consistency) {
                self.reader.find(
                    Code::MissingCapability,
                    "/capture/consistency",
                    format!("the engine has no {}-consistent capture", consistency.word()),
                );
            } else if self.are_together
                && !capabilities.consistencies_of(kind).contains(&consistency)
            {
                let message = format!(
                    "the engine makes no {}-consistent {}",
                    consistency.word(),
                    kind.word()
                );
                let found =
                    self.reader.find(Code::MissingCapability, "/capture/consistency", message);
                let kinds: Vec<&str> = capabilities
                    .kinds
                    .iter()
                    .filter(|kind| capabilities.consistencies_of(**kind).contains(&consistency))
                    .map(|kind| kind.word())
                    .collect();
                if !kinds.is_empty() {
                    found.hint = Some(format!("{} can be", kinds.join(", ")));
                }
            }
        }
        let disks = match written.disks.unwrap_or_else(|| Texts(vec!["all".to_owned()])) {
            Texts(words) if words == ["all"] => DiskChoice::All,
            Texts(words) if words == ["boot"] => DiskChoice::Boot,
            texts => DiskChoice::Named(self.reader.patterns(Some(&texts), "/capture/disks")?),
        };
        self.check_boot_disk(&disks, kind);
        let family = self.family(written.family, kind);
        let via = written.via.unwrap_or_default();
        self.check_via(via, kind);
        Some(Capture { kind, via, disks, consistency, family })
    }

    /// Whether the disk that machines start from is among those that are asked for, where images of
    /// the kind always hold it and it is known what it is called.
    fn check_boot_disk(&mut self, disks: &DiskChoice, kind: ImageKind) {
        let Some(capabilities) = self.capabilities.filter(|_| self.are_together) else { return };
        let Some(name) = &capabilities.boot_disk_name else { return };
        if !capabilities.boot_disk_kinds.contains(&kind) || disks.takes(name, true) {
            return;
        }
        let message = format!(
            "a {} of this engine always holds the disk that the machine starts from",
            kind.word()
        );
        self.reader.find(Code::MissingCapability, "/capture/disks", message).hint =
            Some(format!("it is called `{name}`: write it as well, or `all`, or `boot`"));
    }

    /// Whether images of a kind are made from what is asked for.
    fn check_via(&mut self, via: Via, kind: ImageKind) {
        let Some(capabilities) = self.capabilities else { return };
        if via == Via::Disk {
            return;
        }
        let kinds = &capabilities.via_snapshot_kinds;
        let (message, hint) = if kinds.is_empty() {
            let message = "the engine makes no images from snapshots".to_owned();
            (message, "leave `via` out: they are made from the disk".to_owned())
        } else if self.are_together && !kinds.contains(&kind) {
            let words: Vec<&str> = kinds.iter().map(|kind| kind.word()).collect();
            let message = format!("a {} is not made from a snapshot", kind.word());
            (message, format!("write `kind: {}`, or leave `via` out", words.join(", ")))
        } else {
            return;
        };
        self.reader.find(Code::MissingCapability, "/capture/via", message).hint = Some(hint);
    }

    fn family(&mut self, family: Option<String>, kind: ImageKind) -> Option<String> {
        let family = family?;
        let pointer = "/capture/family";
        if !name::is_rfc1035_label(&family) {
            let message = format!("`{family}` is not a name for a family");
            self.reader.find(Code::BadName, pointer, message).hint =
                Some("1 to 63 of a-z, 0-9 and `-`, beginning with a letter".to_owned());
        } else if let Some(least) = self.capabilities.map(|known| known.family_length_min)
            && family.len() < least
        {
            let message = format!("`{family}` is too short for a family of the engine");
            self.reader.find(Code::BadName, pointer, message).hint =
                Some(format!("{least} to 63 of a-z, 0-9 and `-`, beginning with a letter"));
        }
        if kind != ImageKind::DiskImage {
            let message = format!("a {} belongs to no family", kind.word());
            self.reader.find(Code::MissingCapability, pointer, message).hint =
                Some("only disk images have families: write `kind: disk-image`".to_owned());
        } else if let Some(capabilities) = self.capabilities.filter(|known| !known.families) {
            let message = "the engine has no image families";
            let finding = self.reader.find(Code::MissingCapability, pointer, message);
            finding.hint.clone_from(&capabilities.families_need);
        }
        Some(family)
    }

    /// The locations of copies, each of which the engine has and none twice.
    pub(super) fn copies(&mut self, spec: &PolicySpec, location: &str) -> Vec<String> {
        let written = spec.storage.as_ref().and_then(|storage| storage.copies.clone());
        let Some(Texts(copies)) = written else { return Vec::new() };
        let has_none = self.capabilities.is_some_and(|capabilities| !capabilities.copies);
        if has_none && !copies.is_empty() {
            let message = "the engine copies no images to other locations";
            self.reader.find(Code::MissingCapability, "/storage/copies", message);
        } else if let Some(capabilities) = self.capabilities
            && !copies.is_empty()
        {
            let kind = spec.capture.as_ref().and_then(|capture| capture.kind).unwrap_or_default();
            if !capabilities.can_copy(kind) {
                let kinds: Vec<&str> =
                    capabilities.copied_kinds.iter().map(|kind| kind.word()).collect();
                let message = format!("the engine copies no {} to other locations", kind.word());
                self.reader.find(Code::MissingCapability, "/storage/copies", message).hint =
                    Some(format!("it copies {}", kinds.join(", ")));
            }
        }
        for (position, copy) in copies.iter().enumerate() {
            let pointer = self.reader.item("/storage/copies", position);
            if copy == location && self.are_together {
                let message = format!("`{copy}` is where the originals are stored");
                self.reader.find(Code::UnknownLocation, &pointer, message).hint =
                    Some("a copy in the same place protects from nothing".to_owned());
            } else if copies[..position].contains(copy) {
                let message = format!("`{copy}` is written twice");
                self.reader.find(Code::UnknownLocation, &pointer, message);
            } else {
                self.known_copy_location(copy, &pointer);
            }
        }
        copies
    }

    /// Who else may use the images, in order.
    pub(super) fn sharing(&mut self, spec: &PolicySpec) -> Option<Vec<Grant>> {
        let written = spec.sharing.as_ref()?;
        if self.capabilities.is_some_and(|capabilities| !capabilities.sharing) {
            let message = "the engine shares no images with others";
            self.reader.find(Code::MissingCapability, "/sharing", message);
        }
        let mut grants: Vec<Grant> = written
            .iter()
            .filter_map(|grant| {
                // What is missing has a finding from the schema.
                let Texts(mut members) = grant.members.clone()?;
                members = members.iter().map(|member| Grant::member(member)).collect();
                members.sort();
                members.dedup();
                Some(Grant { role: grant.role.clone()?, members })
            })
            .collect();
        grants.sort();
        self.check_members(written);
        for (position, grant) in written.iter().enumerate() {
            let Some(role) = &grant.role else { continue };
            if written[..position].iter().any(|other| other.role.as_ref() == Some(role)) {
                let message = format!("the role `{role}` is written twice");
                self.reader.find(Code::DuplicateKey, &format!("/sharing/{position}/role"), message);
            }
        }
        Some(grants)
    }

    /// Whether the engine knows whom images are to be shared with.
    fn check_members(&mut self, written: &[GrantSpec]) {
        let Some(capabilities) = self.capabilities.filter(|one| one.sharing) else { return };
        for (position, grant) in written.iter().enumerate() {
            let role = grant.role.as_deref().unwrap_or_default();
            let hint = refused(&capabilities.role_forms, role).filter(|_| !role.is_empty());
            if let Some(hint) = hint {
                let message = format!("the engine has no role `{role}`");
                let pointer = format!("/sharing/{position}/role");
                self.reader.find(Code::MissingCapability, &pointer, message).hint = Some(hint);
            }
            let Some(Texts(members)) = &grant.members else { continue };
            for (number, member) in members.iter().enumerate() {
                let Err(hint) = capabilities.knows_member(member) else { continue };
                let list = format!("/sharing/{position}/members");
                let pointer = self.reader.item(&list, number);
                let message = format!("the engine shares images with no `{member}`");
                self.reader.find(Code::MissingCapability, &pointer, message).hint = Some(hint);
            }
        }
    }

    pub(super) fn labels(&mut self, spec: &PolicySpec) -> BTreeMap<String, String> {
        let labels = spec.labels.clone().unwrap_or_default();
        for (key, value) in &labels {
            let pointer = format!("/labels/{}", escape(key));
            let key_place = || self.reader.layers.key_place(&pointer);
            if key.starts_with(LABEL_PREFIX) {
                let message =
                    format!("labels that begin with `{LABEL_PREFIX}` belong to stillframe");
                self.reader.findings.push(Finding::new(Code::BadLabel, key_place(), message));
            } else if !name::is_label_key(key) {
                self.reader.findings.push(
                    Finding::new(
                        Code::BadLabel,
                        key_place(),
                        format!("`{key}` is not a label key"),
                    )
                    .hint("1 to 63 of a-z, 0-9, `-` and `_`, beginning with a letter"),
                );
            }
            if !name::is_label_value(value) {
                self.reader
                    .find(Code::BadLabel, &pointer, format!("`{value}` is not a label value"))
                    .hint = Some("up to 63 of a-z, 0-9, `-` and `_`".to_owned());
            }
        }
        let default = Capabilities::default();
        let capabilities = self.capabilities.unwrap_or(&default);
        let room = capabilities.labels_room();
        if !labels.is_empty() && capabilities.record == RecordPlace::Text {
            let message = "the engine puts no labels on images";
            self.reader.find(Code::MissingCapability, "/labels", message).hint = Some(
                "take them out; what people should read goes into `naming.description`".to_owned(),
            );
        } else if labels.len() > room {
            self.reader.find(
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
        let is_fixed = self
            .capabilities
            .is_some_and(|capabilities| capabilities.location_choice == LocationChoice::Fixed);
        if is_fixed && !location.is_empty() {
            let message = "the engine does not let choose where images are stored";
            self.reader.find(Code::MissingCapability, "/storage/location", message).hint =
                Some("take `location` out".to_owned());
        } else {
            self.known_location(&location, "/storage/location");
        }
        location
    }

    /// How cheap images are to keep, where the engine has that for their kind.
    pub(super) fn tier(&mut self, spec: &PolicySpec) -> Option<Tier> {
        let tier = spec.storage.as_ref().and_then(|storage| storage.tier)?;
        let kind = spec.capture.as_ref().and_then(|capture| capture.kind).unwrap_or_default();
        let archived = self.capabilities.map(|capabilities| &capabilities.archived_kinds);
        if let Some(archived) = archived
            && tier == Tier::Archive
            && !archived.contains(&kind)
        {
            let kinds: Vec<&str> = archived.iter().map(|kind| kind.word()).collect();
            let message = format!("the engine archives no {}", kind.word());
            let found = self.reader.find(Code::MissingCapability, "/storage/tier", message);
            if !kinds.is_empty() {
                found.hint = Some(format!("it archives {}", kinds.join(", ")));
            }
        }
        Some(tier)
    }

    fn known_location(&mut self, location: &str, pointer: &str) {
        let known: &[String] =
            self.capabilities.map_or(&[], |capabilities| &capabilities.locations);
        let message = format!("the engine has no storage location `{location}`");
        let is_open = |one: &&Capabilities| one.locations.is_empty() && !location.is_empty();
        let forms = self.capabilities.filter(is_open);
        if let Some(hint) = forms.and_then(|one| refused(&one.location_forms, location)) {
            self.reader.find(Code::UnknownLocation, pointer, message).hint = Some(hint);
            return;
        }
        self.one_of(known, location, pointer, (message, "it has"));
    }

    fn known_copy_location(&mut self, location: &str, pointer: &str) {
        let Some(capabilities) = self.capabilities else { return };
        if capabilities.copy_locations.is_empty() {
            return self.known_location(location, pointer);
        }
        let message = format!("the engine copies nothing to `{location}`");
        self.one_of(&capabilities.copy_locations, location, pointer, (message, "it copies to"));
    }

    /// Finds what is none of these, where there are some: what is said of it, and what stands before
    /// those that there are.
    fn one_of(
        &mut self,
        known: &[String],
        location: &str,
        pointer: &str,
        (message, before): (String, &str),
    ) {
        if known.is_empty() || known.iter().any(|name| name == location) {
            return;
        }
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let hint = match get_close_matches(location, &names, 1, 0.6).first() {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("{before} {}", names.join(", ")),
        };
        self.reader.find(Code::UnknownLocation, pointer, message).hint = Some(hint);
    }

    pub(super) fn kms_key(&mut self, spec: &PolicySpec) -> Option<String> {
        let key = spec.encryption.as_ref().and_then(|encryption| encryption.kms_key.clone())?;
        let is_key = (1..=KEY_LENGTH_MAX).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@+".contains(&byte));
        if !is_key {
            self.reader
                .find(
                    Code::BadKey,
                    "/encryption/kmsKey",
                    format!("`{key}` is not the name of a key"),
                )
                .hint = Some("letters, digits and `-_./:@+`".to_owned());
        } else if let Some(hint) =
            self.capabilities.and_then(|capabilities| refused(&capabilities.key_forms, &key))
        {
            let message = format!("`{key}` is not the name of a key of the engine");
            self.reader.find(Code::BadKey, "/encryption/kmsKey", message).hint = Some(hint);
        }
        if self.capabilities.is_some_and(|capabilities| capabilities.key == KeyChoice::None) {
            self.reader.find(
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
        let most = self.capabilities.map(|capabilities| capabilities.description_length_max);
        let fixed = naming::fixed_length(&description);
        if let Some(most) = most.filter(|most| fixed > *most) {
            let message =
                format!("a description of at least {fixed} characters; the engine takes {most}");
            self.reader.find(Code::OutOfRange, "/naming/description", message);
        }
        match Naming::new(&name, &description) {
            Ok(naming) => Some(naming),
            Err(errors) => {
                let mut report = |pointer: &str, error: Option<TemplateError>| {
                    if let Some(TemplateError { message, hint }) = error {
                        self.reader.find(Code::BadTemplate, pointer, message).hint = hint;
                    }
                };
                report("/naming/name", errors.name);
                report("/naming/description", errors.description);
                None
            }
        }
    }
}
