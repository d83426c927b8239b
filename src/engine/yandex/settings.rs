//! The settings of an engine of this kind.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::credentials::Credentials;
use super::sharing;
use crate::engine::http::{Place, SecretSource};
use crate::files::joined;
use crate::inventory::{
    Capabilities, Consistency, DeleteRule, Deprecation, Idempotency, ImageKind, ImportFormat,
    KeyChoice, Limits, LocationChoice,
};
use crate::policy::BadSetting;

/// Where the list of services is.
const ENDPOINT_DEFAULT: &str = "https://api.cloud.yandex.net";
/// The services that settings may say a place of.
const SERVICES: [&str; 3] = ["compute", "iam", "operation"];
/// So many operations a folder takes at once.
pub(super) const OPERATIONS_MAX: usize = 15;
/// So many captures run at once where nobody says: each may ask for several disks at once.
const CAPTURES_DEFAULT: u32 = 5;
/// The quotas of a cloud for images and snapshots where it has not asked for more.
const QUOTA_DEFAULT: u64 = 32;
const IMAGES_GIB_DEFAULT: u64 = 1024;
const SNAPSHOTS_GIB_DEFAULT: u64 = 400;
/// The fewest characters of the name of a family: `|[a-z][-a-z0-9]{1,61}[a-z0-9]` (Image of the
/// Compute Cloud API).
const FAMILY_LENGTH_MIN: usize = 3;
/// Bytes of the unit that sizes are set in.
/// The most characters of a description.
pub(super) const DESCRIPTION_MAX: usize = 256;
pub(super) const GIB: u64 = 1 << 30;

/// Yandex Compute Cloud: snapshots and images of the disks of instances in folders.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "YandexEngineSettings", extend("required" = ["folders"]))]
pub struct Settings {
    /// The ids of the folders whose instances are protected. Images are made in the folder of their
    /// instance, unless `imagesFolder` says otherwise.
    #[schemars(length(min = 1), inner(regex(pattern = r"^[a-z0-9][-_a-z0-9]{0,49}$")))]
    pub folders: Vec<String>,
    /// The folder that images and snapshots are made in, where that is not the folder of their
    /// instance: a folder for backups. It belongs to this engine alone.
    #[schemars(regex(pattern = r"^[a-z0-9][-_a-z0-9]{0,49}$"))]
    pub images_folder: Option<String>,
    /// The folders that disk images are copied to where a policy says so in `storage.copies`: folders of
    /// this cloud or of others, whose instances are not protected. They belong to this engine alone.
    #[schemars(length(min = 1), inner(regex(pattern = r"^[a-z0-9][-_a-z0-9]{0,49}$")))]
    pub copy_folders: Option<Vec<String>>,
    /// Where the list of the services is, where that is not the cloud's own place:
    /// `http://127.0.0.1:8470`. Without TLS only on this machine.
    pub endpoint: Option<String>,
    /// Where single services are: `compute`, `iam`, `operation`. What is not said here is asked of
    /// `endpoint`.
    pub endpoints: Option<Services>,
    /// The file with the authorised key of a service account, relative to this file, as
    /// `yc iam key create` writes it.
    pub key_file: Option<String>,
    /// A file with an IAM token, relative to this file. It is read afresh for every request.
    pub token_file: Option<String>,
    /// The environment variable with an IAM token.
    pub token_env: Option<String>,
    /// Which credentials are used where neither a key nor a token is named. The default is
    /// `metadata`, and `anonymous` where `endpoint` is on this machine.
    pub credentials: Option<CredentialsChoice>,
    /// How many captures run at once. The default is 5. Whatever this says, a folder is asked for 15
    /// operations at once and no more.
    #[schemars(range(min = 1, max = 15))]
    pub captures: Option<u32>,
    /// How many captures, copies or drills begin within a minute at the most, in all of the engine: they
    /// are spread evenly. The default is as many as there are.
    #[schemars(range(min = 1, max = 6_000))]
    pub captures_per_minute: Option<u32>,
    /// What the cloud takes: the default is that of a new one, 32 snapshots and 32 images. Copies
    /// count as well, whatever cloud their folder is of.
    pub quota: Option<Quota>,
    /// How disk images are made.
    pub images: Option<Images>,
}

/// Where services are.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "YandexServices")]
pub struct Services {
    /// Instances, disks, images and snapshots.
    pub compute: Option<String>,
    /// Tokens.
    pub iam: Option<String>,
    /// Operations.
    pub operation: Option<String>,
}

/// What the cloud takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "YandexQuota")]
pub struct Quota {
    /// Images.
    pub images: Option<u64>,
    /// Snapshots.
    pub snapshots: Option<u64>,
    /// GiB of all images. The default is 1024.
    #[schemars(range(max = 1_048_576))]
    pub images_gib: Option<u64>,
    /// GiB of all snapshots. The default is 400.
    #[schemars(range(max = 1_048_576))]
    pub snapshots_gib: Option<u64>,
    /// Images that are optimised for deployment. The default is none. Where they are made so, there
    /// are no more of them than this and `images` say.
    pub pooled_images: Option<u64>,
}

/// How disk images are made.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "YandexImages")]
pub struct Images {
    /// Whether they are optimised for deployment. A cloud takes none of those until it has asked for
    /// a quota, which `quota.pooledImages` repeats. Copies are not.
    #[serde(default)]
    pub pooled: bool,
    /// The smallest disk that may be made of them, in GiB. The default is the size of their disk.
    #[schemars(range(min = 1, max = 4096))]
    pub min_disk_gib: Option<u64>,
    /// Which instances start Windows, by labels that all must have. The service must know that of
    /// images of boot disks.
    #[serde(default)]
    pub windows: BTreeMap<String, String>,
}

/// Which credentials are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "YandexCredentials")]
pub enum CredentialsChoice {
    /// None: no token is sent. Only to an endpoint on this machine.
    Anonymous,
    /// The service account of the machine that stillframe runs on, by its metadata service.
    Metadata,
}

impl Settings {
    /// Reads settings that hold to the schema.
    pub fn read(settings: &Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(settings.clone())
    }

    /// What an engine with these settings can do.
    pub fn capabilities(&self) -> Capabilities {
        let quota = self.quota.clone().unwrap_or_default();
        let images = quota.images.unwrap_or(QUOTA_DEFAULT);
        // All images of a family are in one folder.
        let has_families = self.folders.len() < 2 || self.images_folder.is_some();
        let families_need =
            "with several `folders`, name one that all images are made in: `imagesFolder`";
        let pooled = self.is_pooled().then(|| quota.pooled_images.unwrap_or(0));
        let folders = |place: Place| {
            let folder = |folder| format!("{}folders/{folder}", place.url);
            self.image_folders().map(folder).collect()
        };
        Capabilities {
            claims: self.endpoint().map(folders).unwrap_or_default(),
            kinds: vec![ImageKind::Snapshot, ImageKind::DiskImage],
            consistencies: vec![Consistency::Crash, Consistency::Stopped],
            // A machine would stand still for as long as an image is made.
            crash_only_kinds: vec![ImageKind::DiskImage],
            deprecation: Deprecation::Label,
            idempotency: Idempotency::RequestId,
            delete_rules: vec![DeleteRule::Operation, DeleteRule::Unused],
            key: KeyChoice::Inherited,
            // The id of a key, and not its path in another cloud.
            key_forms: vec!["{id}".to_owned()],
            location_choice: LocationChoice::Fixed,
            labels_max: 64,
            description_length_max: DESCRIPTION_MAX,
            captures_max: self.captures(),
            families: has_families,
            families_need: (!has_families).then(|| families_need.to_owned()),
            family_length_min: FAMILY_LENGTH_MIN,
            sharing: true,
            copies: !self.copy_folders().is_empty(),
            copied_kinds: vec![ImageKind::DiskImage],
            copy_locations: self.copy_folders().to_vec(),
            share_with: sharing::MEMBERS.map(str::to_owned).into(),
            one_disk_kinds: vec![ImageKind::DiskImage],
            whole_kinds: vec![ImageKind::DiskImage],
            per_disk_kinds: vec![ImageKind::Snapshot],
            via_snapshot_kinds: vec![ImageKind::DiskImage],
            imports: BTreeMap::from([(
                ImageKind::DiskImage,
                vec![ImportFormat::Qcow2, ImportFormat::Raw, ImportFormat::Vmdk],
            )]),
            limits: Limits {
                captures_per_minute: self.captures_per_minute.map(u64::from),
                images: BTreeMap::from([
                    (ImageKind::DiskImage, pooled.map_or(images, |pooled| pooled.min(images))),
                    (ImageKind::Snapshot, quota.snapshots.unwrap_or(QUOTA_DEFAULT)),
                ]),
                stored_bytes: BTreeMap::from([
                    (ImageKind::DiskImage, quota.images_gib.unwrap_or(IMAGES_GIB_DEFAULT) * GIB),
                    (
                        ImageKind::Snapshot,
                        quota.snapshots_gib.unwrap_or(SNAPSHOTS_GIB_DEFAULT) * GIB,
                    ),
                ]),
                operations: Some(OPERATIONS_MAX as u64),
                ..Limits::default()
            },
            ..Capabilities::default()
        }
    }

    /// Everything that is wrong with them and that the schema cannot say.
    pub fn check(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        let pooled = self.quota.as_ref().and_then(|quota| quota.pooled_images).unwrap_or(0);
        if self.is_pooled() && pooled == 0 {
            found.push(BadSetting::new(&["/images/pooled", "/quota/pooledImages"], "`images.pooled` asks for images that are optimised for deployment, and a cloud takes 0 of them until it has asked for more: have the quota raised and repeat it in `quota.pooledImages`, or leave `pooled` out"));
        }
        found.extend(self.check_folders());
        for service in SERVICES {
            let at = format!("/endpoints/{service}");
            found.extend(self.service(service).err().map(|why| BadSetting::new(&[&at], why)));
        }
        found.extend(self.check_credentials());
        found
    }

    /// What is wrong with the folders, those of copies among them.
    fn check_folders(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        for (index, folder) in self.folders.iter().enumerate() {
            if self.folders[..index].contains(folder) {
                let message = format!("`folders` has `{folder}` twice");
                found.push(BadSetting::new(&[&format!("/folders/{index}")], message));
            }
        }
        let copies = self.copy_folders();
        for (index, copy) in copies.iter().enumerate() {
            let mut wrong = |other: &str, why: &str| {
                let message = format!(
                    "`copyFolders` has `{copy}`, and {why}: a copy goes to a folder that has nothing else of this engine"
                );
                found.push(BadSetting::new(&[&format!("/copyFolders/{index}"), other], message));
            };
            if self.folders.contains(copy) {
                wrong("/folders", "it is one of `folders`, where originals are");
            }
            if self.images_folder.as_ref() == Some(copy) {
                wrong("/imagesFolder", "it is `imagesFolder`, where originals are");
            }
            if copies[..index].contains(copy) {
                wrong("/copyFolders", "it is written twice");
            }
        }
        found
    }

    /// Whether disk images are optimised for deployment.
    fn is_pooled(&self) -> bool {
        self.images.as_ref().is_some_and(|images| images.pooled)
    }

    /// How many captures run at once.
    pub fn captures(&self) -> usize {
        self.captures.unwrap_or(CAPTURES_DEFAULT) as usize
    }

    /// The folders that may hold images, those of copies last.
    pub fn image_folders(&self) -> impl Iterator<Item = &String> {
        let other = self.images_folder.iter().filter(|other| !self.folders.contains(other));
        self.folders.iter().chain(other).chain(self.copy_folders())
    }

    /// The folders that hold copies and nothing else.
    pub fn copy_folders(&self) -> &[String] {
        self.copy_folders.as_deref().unwrap_or_default()
    }

    /// Whether a folder holds copies and nothing else.
    pub fn is_of_copies(&self, folder: &str) -> bool {
        self.copy_folders().iter().any(|known| known == folder)
    }

    /// The folder that images of an instance in a folder are made in.
    pub fn images_folder_of<'a>(&'a self, folder: &'a str) -> &'a str {
        self.images_folder.as_deref().unwrap_or(folder)
    }

    /// Where the list of the services is.
    pub fn endpoint(&self) -> Result<Place, String> {
        let text = self.endpoint.as_deref().unwrap_or(ENDPOINT_DEFAULT);
        Ok(Place::parse("endpoint", text)?.below("/"))
    }

    /// Whether that is the cloud's own place.
    pub fn is_default_endpoint(&self) -> bool {
        self.endpoint.as_deref().is_none_or(|text| text.trim_end_matches('/') == ENDPOINT_DEFAULT)
    }

    /// Where a service is, where that is said.
    pub fn service(&self, name: &str) -> Result<Option<Place>, String> {
        let Some(services) = &self.endpoints else { return Ok(None) };
        let text = match name {
            "compute" => &services.compute,
            "iam" => &services.iam,
            _ => &services.operation,
        };
        let place = |text: &String| Place::parse(&format!("endpoints.{name}"), text);
        Ok(text.as_ref().map(place).transpose()?.map(|place| place.below("/")))
    }

    /// What is wrong with the endpoint, and with how the token is named, wherever it comes from.
    fn check_credentials(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        let endpoint = self.endpoint().map_err(|message| {
            found.push(BadSetting::new(&["/endpoint"], message));
        });
        let named: Vec<&str> = [
            ("/keyFile", &self.key_file),
            ("/tokenFile", &self.token_file),
            ("/tokenEnv", &self.token_env),
        ]
        .into_iter()
        .filter_map(|(at, named)| named.as_ref().map(|_| at))
        .collect();
        if named.len() > 1 {
            let others: Vec<&str> = named.iter().rev().copied().collect();
            let message = "name one of `keyFile`, `tokenFile` and `tokenEnv`";
            found.push(BadSetting::new(&others, message));
        }
        if self.credentials.is_some() && !named.is_empty() {
            let about: Vec<&str> = [&["/credentials"], &named[..]].concat();
            let message = "name a key, a token or `credentials`, not two of them";
            found.push(BadSetting::new(&about, message));
        }
        if self.credentials == Some(CredentialsChoice::Anonymous)
            && endpoint.is_ok_and(|endpoint| !endpoint.is_loopback)
        {
            let message = "only an endpoint on this machine goes without a token: leave `credentials: anonymous` out";
            found.push(BadSetting::new(&["/credentials", "/endpoint"], message));
        }
        found
    }

    /// Where the token comes from, by settings with which nothing is wrong.
    pub fn credentials(&self, base: &Path, endpoint: &Place) -> Result<Credentials, String> {
        if let Some(file) = &self.key_file {
            return Credentials::of_key(&joined(base, file));
        }
        if let Some(file) = &self.token_file {
            return Ok(Credentials::Secret(SecretSource::File(joined(base, file))));
        }
        if let Some(name) = &self.token_env {
            return Ok(Credentials::Secret(SecretSource::Variable(name.clone())));
        }
        match self.credentials {
            None | Some(CredentialsChoice::Anonymous) if endpoint.is_loopback => {
                Ok(Credentials::None)
            }
            // With `anonymous` it is an endpoint on this machine.
            _ => Credentials::of_machine(),
        }
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

    fn read(settings: &Value) -> Settings {
        Settings::read(settings).unwrap()
    }

    #[test]
    fn a_family_lives_in_one_folder() {
        let families = |settings: Value| read(&settings).capabilities().families;
        assert!(families(json!({"folders": ["a"]})));
        assert!(!families(json!({"folders": ["a", "b"]})));
        assert!(families(json!({"folders": ["a", "b"], "imagesFolder": "c"})));
        let need = read(&json!({"folders": ["a", "b"]})).capabilities().families_need;
        assert!(need.unwrap().contains("`imagesFolder`"));
    }

    #[test]
    fn what_the_cloud_takes_none_of_is_refused_early() {
        let check = |settings: Value| BadSetting::refuse(&read(&settings).check());
        let error = check(json!({"folders": ["a"], "images": {"pooled": true}})).unwrap_err();
        assert!(error.contains("quota.pooledImages"), "{error}");
        assert!(
            check(
                json!({"folders": ["a"], "images": {"pooled": true}, "quota": {"pooledImages": 2}})
            )
            .is_ok()
        );
    }

    #[test]
    fn images_that_are_optimised_have_the_smaller_of_two_quotas() {
        let most = |settings: Value| {
            let limits = read(&settings).capabilities().limits;
            (limits.images[&ImageKind::DiskImage], limits.images[&ImageKind::Snapshot])
        };
        let of = |pooled: bool, quota: Value| {
            most(json!({"folders": ["a"], "images": {"pooled": pooled}, "quota": quota}))
        };
        assert_eq!(of(true, json!({"pooledImages": 2})), (2, 32));
        assert_eq!(of(true, json!({"images": 10, "pooledImages": 20})), (10, 32));
        assert_eq!(of(false, json!({"images": 10, "pooledImages": 2})), (10, 32));
        // Which is refused when the engine is opened.
        assert_eq!(of(true, json!({"images": 10})), (0, 32));
    }

    #[test]
    fn copies_are_in_folders_of_their_own() {
        let of = |copies: &[&str]| {
            let settings =
                json!({"folders": ["a", "b"], "imagesFolder": "c", "copyFolders": copies});
            let settings = read(&settings);
            BadSetting::refuse(&settings.check()).map(|()| settings)
        };
        let settings = of(&["v", "w"]).unwrap();
        let folders: Vec<&String> = settings.image_folders().collect();
        assert_eq!(folders, ["a", "b", "c", "v", "w"]);
        let can = settings.capabilities();
        assert!(can.can_copy(ImageKind::DiskImage) && !can.can_copy(ImageKind::Snapshot));
        assert_eq!((can.copied_to().len(), can.locations.len()), (2, 0));
        for (copies, why) in [
            (["v", "a"], "one of `folders`"),
            (["c", "v"], "it is `imagesFolder`"),
            (["v", "v"], "written twice"),
        ] {
            let error = of(&copies).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let twice = read(&json!({"folders": ["a", "b", "a"]})).check();
        assert_eq!(twice.len(), 1);
        assert!(twice[0].message.contains("`a` twice"), "{}", twice[0].message);
        let without = read(&json!({"folders": ["a"]})).capabilities();
        assert!(!without.can_copy(ImageKind::DiskImage));
    }

    #[test]
    fn a_token_comes_from_one_place() {
        let of = |settings: Value| {
            let settings = read(&settings);
            BadSetting::refuse(&settings.check())?;
            let endpoint = settings.endpoint().unwrap();
            settings.credentials(Path::new("/etc"), &endpoint).map(|found| found.place())
        };
        let here = "http://127.0.0.1:1";
        assert!(
            of(json!({"folders": ["a"], "endpoint": here})).unwrap().contains("no credentials")
        );
        assert_eq!(of(json!({"folders": ["a"], "tokenFile": "t"})).unwrap(), "/etc/t");
        assert_eq!(of(json!({"folders": ["a"], "tokenEnv": "T"})).unwrap(), "the variable T");
        for wrong in [
            json!({"folders": ["a"], "tokenFile": "t", "tokenEnv": "T"}),
            json!({"folders": ["a"], "tokenFile": "t", "credentials": "metadata"}),
            json!({"folders": ["a"], "credentials": "anonymous"}),
            json!({"folders": ["a"], "keyFile": "not-there"}),
        ] {
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
