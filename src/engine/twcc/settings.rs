//! The settings of an engine of this kind.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::image::SYSTEM;
use super::record::TEXT_LENGTH_MAX;
use crate::engine::http::{Place, SecretSource};
use crate::files::joined;
use crate::inventory::{
    Capabilities, Consistency, DeleteRule, Deprecation, Idempotency, ImageKind, KeyChoice, Limits,
    LocationChoice, OWN_LABELS, RecordPlace,
};
use crate::policy::BadSetting;

/// Where the API is.
const ENDPOINT_DEFAULT: &str = "https://apigateway.twcc.ai";
/// What is behind the host.
const API_PATH: &str = "/api/v3/";
/// The platform of VCS.
const PLATFORM_DEFAULT: &str = "openstack-taichung-default-2";
/// So many minutes a job may be QUEUED before it counts as one that never begins.
const QUEUED_MINUTES: u32 = 60;
/// How many captures run at once where nothing else is said. The service says nothing of it.
const CAPTURES_MAX: usize = 4;

/// TWCC VCS: images of the system disks of a project's instances, and snapshots of their data disks.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "TwccEngineSettings", extend("required" = ["project"]))]
pub struct Settings {
    /// The code of the project whose instances are protected: `GOV000001`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,63}$"))]
    pub project: String,
    /// The platform. The default is `openstack-taichung-default-2`.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]{0,62}$"))]
    pub platform: Option<String>,
    /// A file with the API key, relative to this file. It is read afresh for every request.
    pub api_key_file: Option<String>,
    /// The environment variable with the API key.
    pub api_key_env: Option<String>,
    /// Where the API is, where that is not TWCC's own place: `http://127.0.0.1:8470`. Without TLS
    /// only on this machine, and only there requests go without a key.
    pub endpoint: Option<String>,
    /// Whether the instances of all users of the project are sources, and not only those of the user
    /// whose key it is. Only a tenant administrator may see them.
    pub all_users: Option<bool>,
    /// How many minutes an image may be QUEUED before it counts as one that never begins. The default
    /// is 60.
    #[schemars(range(min = 1, max = 10_080))]
    pub queued_minutes: Option<u32>,
    /// How many captures run at once. The default is 4.
    #[schemars(range(min = 1, max = 64))]
    pub captures: Option<u32>,
    /// How many captures, copies or drills begin within a minute at the most, in all of the engine: they
    /// are spread evenly. The default is as many as there are.
    #[schemars(range(min = 1, max = 6_000))]
    pub captures_per_minute: Option<u32>,
}

impl Settings {
    /// Reads settings that hold to the schema. Codes of projects are compared in any case, and all
    /// that is made of one has one.
    pub fn read(settings: &Value) -> Result<Self, serde_json::Error> {
        let mut settings: Self = serde_json::from_value(settings.clone())?;
        settings.project.make_ascii_uppercase();
        Ok(settings)
    }

    /// What an engine with these settings can do.
    pub fn capabilities(&self) -> Capabilities {
        let project = |(place, _): (Place, bool)| {
            vec![format!("{}{}/projects/{}", place.url, self.platform(), self.project)]
        };
        Capabilities {
            claims: self.endpoint().map(project).unwrap_or_default(),
            kinds: vec![ImageKind::DiskImage],
            consistencies: vec![Consistency::Crash],
            deprecation: Deprecation::Label,
            record: RecordPlace::Text,
            source_labels: false,
            idempotency: Idempotency::Search,
            delete_rules: vec![DeleteRule::Unused, DeleteRule::Vanished, DeleteRule::RecordLast],
            key: KeyChoice::None,
            location_choice: LocationChoice::Fixed,
            locations: Vec::new(),
            labels_max: OWN_LABELS,
            description_length_max: TEXT_LENGTH_MAX,
            captures_max: self.captures.map_or(CAPTURES_MAX, |captures| captures as usize),
            per_disk_kinds: vec![ImageKind::DiskImage],
            boot_disk_kinds: vec![ImageKind::DiskImage],
            boot_disk_name: Some(SYSTEM.to_owned()),
            companions: BTreeMap::from([(ImageKind::DiskImage, ImageKind::Snapshot)]),
            whole_kinds: vec![ImageKind::DiskImage],
            limits: Limits {
                captures_per_minute: self.captures_per_minute.map(u64::from),
                source_captures: Some(1),
                ..Limits::default()
            },
            ..Capabilities::default()
        }
    }

    /// The platform.
    pub fn platform(&self) -> &str {
        self.platform.as_deref().unwrap_or(PLATFORM_DEFAULT)
    }

    /// How many minutes a job may be QUEUED.
    pub fn queued_minutes(&self) -> u32 {
        self.queued_minutes.unwrap_or(QUEUED_MINUTES)
    }

    /// How long a job may be QUEUED.
    pub fn queued(&self) -> SignedDuration {
        SignedDuration::from_mins(self.queued_minutes().into())
    }

    /// Where the API is, and whether that is TWCC's own place.
    pub fn endpoint(&self) -> Result<(Place, bool), String> {
        let of = |text: &str| Place::parse("endpoint", text).map(|place| place.below(API_PATH));
        let place = of(self.endpoint.as_deref().unwrap_or(ENDPOINT_DEFAULT))?;
        let is_default = place == of(ENDPOINT_DEFAULT)?;
        Ok((place, is_default))
    }

    /// Where the key is; nowhere for a place on this machine, which needs none.
    pub fn key(&self, base: &Path) -> Option<SecretSource> {
        let file = self.api_key_file.as_ref().map(|file| SecretSource::File(joined(base, file)));
        file.or_else(|| self.api_key_env.clone().map(SecretSource::Variable))
    }

    /// Everything that is wrong with them and that the schema cannot say.
    pub fn check(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        let place = self.endpoint().map_err(|message| {
            found.push(BadSetting::new(&["/endpoint"], message));
        });
        match (&self.api_key_file, &self.api_key_env) {
            (Some(_), Some(_)) => found.push(BadSetting::new(
                &["/apiKeyEnv", "/apiKeyFile"],
                "name one of `apiKeyFile` and `apiKeyEnv`, not both",
            )),
            (None, None) if place.is_ok_and(|(place, _)| !place.is_loopback) => {
                found.push(BadSetting::new(
                    &["/apiKeyFile", "/apiKeyEnv", "/endpoint"],
                    "there is no API key: name a file with `apiKeyFile` or a variable with `apiKeyEnv`",
                ));
            }
            _ => {}
        }
        found
    }
}

/// Everything that is wrong with settings that hold to the schema.
pub fn check(settings: &Value) -> Vec<BadSetting> {
    Settings::read(settings).map_or_else(|_| Vec::new(), |settings| settings.check())
}

/// What settings can do; those that do not hold to the schema can do nothing.
pub fn capabilities(settings: &Value) -> Capabilities {
    Settings::read(settings).unwrap_or_default().capabilities()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(fields: &Value) -> Settings {
        Settings::read(fields).unwrap()
    }

    #[test]
    fn without_a_key_only_this_machine_is_asked() {
        let base = Path::new("/etc");
        let of = |fields: Value| {
            let settings = settings(&fields);
            BadSetting::refuse(&settings.check())?;
            Ok::<_, String>(settings.key(base).map(|key| key.to_string()))
        };
        assert!(of(json!({"project": "GOV1"})).unwrap_err().contains("apiKeyFile"));
        let here = "http://127.0.0.1:8470";
        assert_eq!(of(json!({"project": "GOV1", "endpoint": here})), Ok(None));
        assert_eq!(
            of(json!({"project": "GOV1", "apiKeyFile": "key"})),
            Ok(Some("/etc/key".to_owned()))
        );
        assert!(of(json!({"project": "GOV1", "apiKeyFile": "a", "apiKeyEnv": "B"})).is_err());
        let all = json!({"project": "GOV1", "apiKeyFile": "a", "apiKeyEnv": "B", "endpoint": "x"});
        let all = of(all).unwrap_err();
        assert!(all.starts_with("2 things") && all.contains("not a URL"), "{all}");
    }

    #[test]
    fn a_project_has_one_code_in_whatever_case_it_is_written() {
        assert_eq!(settings(&json!({"project": "gov000001"})).project, "GOV000001");
    }

    #[test]
    fn an_endpoint_is_a_host_or_a_whole_path() {
        let of = |endpoint: &str| {
            let settings = settings(&json!({"project": "GOV1", "endpoint": endpoint}));
            settings.endpoint().map(|(place, is_default)| (place.url.to_string(), is_default))
        };
        assert_eq!(of("http://[::1]:1"), Ok(("http://[::1]:1/api/v3/".to_owned(), false)));
        assert_eq!(of("https://example.com/x"), Ok(("https://example.com/x/".to_owned(), false)));
        assert!(of(ENDPOINT_DEFAULT).unwrap().1);
        assert!(of("http://example.com").is_err());
    }
}
