//! The settings of an embedded engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::joined;
use crate::inventory::{
    Capabilities, Consistency, Deprecation, DrillCheck, Idempotency, ImageKind, KeyChoice, Limits,
};

/// The location there is where none is configured.
const LOCATION_DEFAULT: &str = "local";
/// The store there is where none is configured, relative to the configuration file.
const STORE_DEFAULT: &str = "../.stillframe/store";
/// The key images are encrypted under where nobody names one.
const KEY_DEFAULT: &str = "default";
/// The most characters of a description.
pub(super) const DESCRIPTION_MAX: usize = 2048;
/// How many captures run at once where nothing else is said.
const CAPTURES_DEFAULT: usize = 2;

/// An embedded engine: instances are described by files, images are kept in restic repositories.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "LocalEngineSettings", extend("required" = ["instances"]))]
pub struct Settings {
    /// The directory with the instance files, relative to this file.
    pub instances: String,
    /// The directory that holds images and what belongs to them, relative to this file. The
    /// default is `../.stillframe/store`.
    pub store: Option<String>,
    /// The storage locations by name. The default is one, `local`, inside the store.
    #[schemars(length(min = 1))]
    pub locations: Option<BTreeMap<String, LocationSettings>>,
    /// The location of policies that name none. The default is the first by name.
    pub default_location: Option<String>,
    /// The directory with the key files, relative to this file. The default is `keys` inside the
    /// store; keep a copy of it elsewhere, without the keys no image can be read.
    pub keys: Option<String>,
    /// Whether a key that is named for the first time is made.
    pub create_keys: Option<bool>,
    /// The key of policies that name none. The default is `default`.
    pub default_key: Option<String>,
    /// Whether this store is for trying policies out: then `apply --now` may carry out a plan as
    /// if it were another time. Never set it where images matter.
    pub trial: Option<bool>,
    /// How many captures, copies or drills run at once. The default is 2.
    #[schemars(range(min = 1, max = 64))]
    pub captures: Option<u32>,
    /// How many captures, copies or drills begin within a minute at the most, in all of the engine: they
    /// are spread evenly. The default is as many as there are.
    #[schemars(range(min = 1, max = 6_000))]
    pub captures_per_minute: Option<u32>,
}

/// A storage location.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocationSettings {
    /// The directory of the location, relative to this file. The default is a directory of its
    /// name inside the store.
    pub path: Option<String>,
}

impl Settings {
    /// Reads settings that hold to the schema.
    pub fn read(settings: &Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(settings.clone())
    }

    /// The names of the locations, the default one first.
    pub fn location_names(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.locations {
            Some(locations) if !locations.is_empty() => locations.keys().cloned().collect(),
            _ => vec![LOCATION_DEFAULT.to_owned()],
        };
        if let Some(default) = &self.default_location {
            names.retain(|name| name != default);
            names.insert(0, default.clone());
        }
        names
    }

    /// What an engine with these settings can do.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            kinds: vec![ImageKind::MachineImage],
            consistencies: vec![Consistency::Crash],
            deprecation: Deprecation::Native,
            idempotency: Idempotency::Name,
            key: KeyChoice::Settable,
            locations: self.location_names(),
            labels_max: 64,
            description_length_max: DESCRIPTION_MAX,
            // A copy in the same place protects from nothing.
            copies: self.location_names().len() > 1,
            drills: vec![DrillCheck::Verify, DrillCheck::Restore],
            captures_max: self.captures.map_or(CAPTURES_DEFAULT, |captures| captures as usize),
            limits: Limits {
                captures_per_minute: self.captures_per_minute.map(u64::from),
                ..Limits::default()
            },
            ..Capabilities::default()
        }
    }

    /// All paths, relative to the directory of the configuration file, which has no links in it.
    pub fn paths(&self, base: &Path) -> Paths {
        let store = joined(base, self.store.as_deref().unwrap_or(STORE_DEFAULT));
        let locations = self
            .location_names()
            .into_iter()
            .map(|name| {
                let own = self
                    .locations
                    .as_ref()
                    .and_then(|locations| locations.get(&name)?.path.clone());
                let path = own.map_or_else(
                    || store.join("locations").join(&name),
                    |path| joined(base, &path),
                );
                (name, path)
            })
            .collect();
        Paths {
            instances: joined(base, &self.instances),
            keys: self.keys.as_ref().map_or_else(|| store.join("keys"), |keys| joined(base, keys)),
            locations,
            store,
        }
    }

    /// The key of policies that name none.
    pub fn default_key(&self) -> &str {
        self.default_key.as_deref().unwrap_or(KEY_DEFAULT)
    }
}

/// Where everything of an engine is.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The instance files.
    pub instances: PathBuf,
    /// Locks, attempts and what is known of repositories.
    pub store: PathBuf,
    /// The key files.
    pub keys: PathBuf,
    /// The locations.
    pub locations: BTreeMap<String, PathBuf>,
}

/// What a configuration can do; settings that do not hold to the schema can do nothing.
pub fn capabilities(settings: &Value) -> Capabilities {
    Settings::read(settings).unwrap_or_default().capabilities()
}
