//! The settings of an engine of this kind.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::credentials::{Credentials, DefaultCredentials, Impersonation};
use crate::engine::http::{Place, SecretSource};
use crate::files::joined;
use crate::inventory::{
    Capabilities, Consistency, DeleteRule, Deprecation, Idempotency, ImageKind, KeyChoice, Limits,
};
use crate::policy::BadSetting;

/// Whom images can be shared with (members of a binding, the IAM documentation).
/// `allUsers` is not among them: images are shared with nobody who is not known.
const MEMBERS: [&str; 10] = [
    "allAuthenticatedUsers",
    "user:",
    "group:",
    "serviceAccount:",
    "domain:",
    "principal:",
    "principalSet:",
    "projectOwner:",
    "projectEditor:",
    "projectViewer:",
];
/// How roles are written: those of the service, of a project and of an organization.
const ROLES: [&str; 3] =
    ["roles/{id}", "projects/{id}/roles/{id}", "organizations/{id}/roles/{id}"];
/// How storage locations are written: multi-regions and regions. A zone is none.
const LOCATIONS: [&str; 4] = ["us", "eu", "asia", "{letters}-{letters}{digits}"];
/// How keys are written: a version of a key is none.
const KEYS: [&str; 1] = ["projects/{id}/locations/{id}/keyRings/{id}/cryptoKeys/{id}"];
/// Where the API is.
const ENDPOINT_DEFAULT: &str = "https://compute.googleapis.com/compute/v1/";
/// What is behind the host where an endpoint names only a host.
const API_PATH: &str = "/compute/v1/";
/// The most characters of a description.
pub(super) const DESCRIPTION_MAX: usize = 2048;
/// So many creations a region takes at once.
pub(super) const CREATIONS_MAX: usize = 20;
/// The shortest time between two images of one source, in minutes, and the most within an hour.
/// Source: cloud.google.com/compute/docs/disks/snapshots, machine-images/create-machine-images.
pub(super) const SOURCE_INTERVAL_MINUTES: u32 = 10;
pub(super) const SOURCE_HOURLY: u64 = 6;
/// Where something is that a token is shown to: with TLS, or on this machine.
const PLACE: &str = r"^(https://|http://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?(/|$))";
/// What stands for Google's own service, by whatever host it is reached.
const SERVICE: &str = "https://compute.googleapis.com/compute/";
/// The versions of the API.
const VERSIONS: [&str; 3] = ["v1", "beta", "alpha"];
/// What this machine is called, the first of them in what belongs to an engine.
const LOOPBACKS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];
/// How the hosts of Google's services end.
const GOOGLE: &str = ".googleapis.com";
/// Where the service stores what nobody has said a location for, by the beginning of the zone: the
/// multi-region of the source, else the closest. Of regions that are not named here (`africa-`, `me-`)
/// nothing that is published says which is the closest, and it is not guessed. Source:
/// cloud.google.com/compute/docs/disks/snapshots, storage location.
const DEFAULT_LOCATIONS: [(&str, &str); 6] = [
    ("asia-", "asia"),
    ("australia-", "asia"),
    ("europe-", "eu"),
    ("northamerica-", "us"),
    ("southamerica-", "us"),
    ("us-", "us"),
];

/// Google Compute Engine: machine images, disk images and snapshots of projects.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "GceEngineSettings", extend("required" = ["projects"]))]
pub struct Settings {
    /// The ids of the projects whose instances are protected. Images are made in the project of
    /// their instance, unless `imagesProject` says otherwise.
    #[schemars(
        length(min = 1),
        inner(regex(pattern = r"^([-a-z0-9.]{1,63}:)?[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"))
    )]
    pub projects: Vec<String>,
    /// The project that images are made in, where that is not the project of their instance: a
    /// project for backups. It belongs to this engine alone.
    #[schemars(regex(pattern = r"^([-a-z0-9.]{1,63}:)?[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"))]
    pub images_project: Option<String>,
    /// Where the API is, without TLS only on this machine: `http://127.0.0.1:8080`. The default is
    /// Google's own place.
    #[schemars(regex(pattern = PLACE))]
    pub endpoint: Option<String>,
    /// The project that requests are counted for.
    pub quota_project: Option<String>,
    /// A file with an access token, relative to this file. It is read afresh for every request.
    pub token_file: Option<String>,
    /// The environment variable with an access token.
    pub token_env: Option<String>,
    /// Which credentials are used where no token is named. The default is `application-default`, and
    /// `anonymous` where `endpoint` is on this machine. Where it is neither that nor Google's, there is
    /// none: whose token goes where has to be said.
    pub credentials: Option<CredentialsChoice>,
    /// The service account whose rights are used, by impersonation.
    #[schemars(regex(pattern = r"^[^\s@/:]+@[^\s@/:]+$"))]
    pub impersonate: Option<String>,
    /// Service accounts on the way to it, each of which may act as the next.
    #[schemars(inner(regex(pattern = r"^[^\s@/:]+@[^\s@/:]+$")))]
    pub delegates: Option<Vec<String>>,
    /// Where tokens of service accounts are had, where that is not Google's own place. Only with a
    /// credentials file, and not with one of the type `impersonated_service_account`.
    #[schemars(regex(pattern = PLACE))]
    pub credentials_endpoint: Option<String>,
    /// How many captures run at once in all of the engine, however many regions there are. The default is
    /// 20 for each region that has instances: a region takes so many creations at once, whatever is said here.
    #[schemars(range(min = 1, max = 200))]
    pub captures: Option<u32>,
    /// How many captures, copies or drills begin within a minute at the most, in all of the engine: they
    /// are spread evenly. The default is as many as there are.
    #[schemars(range(min = 1, max = 6_000))]
    pub captures_per_minute: Option<u32>,
}

impl Settings {
    /// Reads settings that hold to the schema.
    pub fn read(settings: &Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(settings.clone())
    }

    /// What an engine with these settings can do.
    pub fn capabilities(&self) -> Capabilities {
        let endpoint = self.endpoint().ok();
        // What stands in for the service has locations and keys of its own.
        let is_google = endpoint.as_ref().is_some_and(|endpoint| endpoint.is_google);
        let of_google = |forms: &[&str]| -> Vec<String> {
            let forms = forms.iter().filter(|_| is_google);
            forms.map(|form| (*form).to_owned()).collect()
        };
        Capabilities {
            location_forms: of_google(&LOCATIONS),
            key_forms: of_google(&KEYS),
            role_forms: ROLES.map(str::to_owned).into(),
            claims: endpoint.map(|endpoint| self.places(&endpoint)).unwrap_or_default(),
            kinds: vec![ImageKind::MachineImage, ImageKind::DiskImage, ImageKind::Snapshot],
            consistencies: vec![Consistency::Crash, Consistency::Application],
            crash_only_kinds: vec![ImageKind::DiskImage],
            deprecation: Deprecation::Label,
            native_kinds: vec![ImageKind::DiskImage],
            idempotency: Idempotency::RequestId,
            delete_rules: vec![DeleteRule::Operation, DeleteRule::Unused],
            key: KeyChoice::Settable,
            locations: Vec::new(),
            labels_max: 64,
            description_length_max: DESCRIPTION_MAX,
            captures_max: self.captures(),
            families: true,
            sharing: true,
            share_with: MEMBERS.map(str::to_owned).into(),
            copies: true,
            copied_kinds: vec![ImageKind::DiskImage],
            one_disk_kinds: vec![ImageKind::DiskImage],
            whole_kinds: vec![ImageKind::DiskImage],
            per_disk_kinds: vec![ImageKind::Snapshot],
            via_snapshot_kinds: vec![ImageKind::DiskImage],
            archived_kinds: vec![ImageKind::Snapshot],
            default_locations: DEFAULT_LOCATIONS
                .map(|(zones, location)| (zones.to_owned(), location.to_owned()))
                .into(),
            limits: Limits {
                captures_per_minute: self.captures_per_minute.map(u64::from),
                source_interval_seconds: Some(u64::from(SOURCE_INTERVAL_MINUTES) * 60),
                source_hourly: Some(SOURCE_HOURLY),
                ..Limits::default()
            },
            ..Capabilities::default()
        }
    }

    /// How many captures run at once, of each region where nothing is said.
    pub fn captures(&self) -> usize {
        self.captures.map_or(CREATIONS_MAX, |captures| captures as usize)
    }

    /// The projects that may hold images.
    pub fn image_projects(&self) -> impl Iterator<Item = &String> {
        self.projects.iter().chain(self.projects_of_images_alone())
    }

    /// The projects that images are made in: only their quotas matter.
    pub fn made_in(&self) -> impl Iterator<Item = &String> {
        let theirs = self.projects.iter().filter(|_| self.images_project.is_none());
        theirs.chain(&self.images_project)
    }

    /// The project that holds images and no instances that are protected, where there is one.
    pub fn projects_of_images_alone(&self) -> impl Iterator<Item = &String> {
        self.images_project.iter().filter(|other| !self.projects.contains(other))
    }

    /// What belongs to this engine alone: the projects that may hold its images, at an endpoint. It is the
    /// same whatever the version of the API, and under each name that a host is known by.
    pub fn places(&self, endpoint: &Endpoint) -> Vec<String> {
        let service = endpoint.service();
        self.image_projects().map(|project| format!("{service}projects/{project}")).collect()
    }

    /// Where the API is.
    pub fn endpoint(&self) -> Result<Endpoint, String> {
        Endpoint::parse(self.endpoint.as_deref().unwrap_or(ENDPOINT_DEFAULT))
    }

    /// Where the token comes from, by settings with which nothing is wrong.
    pub fn credentials(&self, base: &Path, endpoint: &Endpoint) -> Result<Credentials, String> {
        if let Some(file) = &self.token_file {
            return Ok(Credentials::Named(SecretSource::File(joined(base, file))));
        }
        if let Some(name) = &self.token_env {
            return Ok(Credentials::Named(SecretSource::Variable(name.clone())));
        }
        let impersonation = self.impersonation()?;
        match self.credentials {
            Some(CredentialsChoice::Anonymous) => Ok(Credentials::None),
            None if impersonation.is_none() && endpoint.place.is_loopback => Ok(Credentials::None),
            _ => Ok(Credentials::Default(Box::new(DefaultCredentials::find(impersonation)?))),
        }
    }

    fn impersonation(&self) -> Result<Option<Impersonation>, String> {
        let Some(account) = self.impersonate.clone() else { return Ok(None) };
        let endpoint = self.credentials_place()?.map(|place| place.below("/").url.to_string());
        let delegates = self.delegates.clone().unwrap_or_default();
        Ok(Some(Impersonation { account, delegates, endpoint }))
    }

    fn credentials_place(&self) -> Result<Option<Place>, String> {
        let text = self.credentials_endpoint.as_ref();
        text.map(|text| Place::parse("credentialsEndpoint", text)).transpose()
    }

    /// Everything that is wrong with them and that the schema cannot say.
    pub fn check(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        let mut wrong = |about: &[&str], message: &str| found.push(BadSetting::new(about, message));
        let endpoint = self.endpoint();
        if let Err(message) = &endpoint {
            wrong(&["/endpoint"], message);
        }
        if let Err(message) = self.credentials_place() {
            wrong(&["/credentialsEndpoint"], &message);
        }
        if self.token_file.is_some() && self.token_env.is_some() {
            let message = "name one of `tokenFile` and `tokenEnv`, not both";
            wrong(&["/tokenEnv", "/tokenFile"], message);
        }
        for (number, project) in self.projects.iter().enumerate() {
            if self.projects[..number].contains(project) {
                wrong(&[&format!("/projects/{number}")], &format!("{project} is named twice"));
            }
        }
        let is_project = |text: &String| {
            let is_of = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            !text.is_empty() && text.bytes().all(|byte| is_of(byte) || b"-.:".contains(&byte))
        };
        if let Some(project) = self.quota_project.as_ref().filter(|project| !is_project(project)) {
            wrong(&["/quotaProject"], &format!("`{project}` is no project: write its id"));
        }
        for (at, text) in [("/tokenFile", &self.token_file), ("/tokenEnv", &self.token_env)] {
            if text.as_ref().is_some_and(String::is_empty) {
                wrong(&[at], &format!("`{}` names nothing: leave it out", &at[1..]));
            }
        }
        let is_named = self.token_file.is_some() || self.token_env.is_some();
        if is_named && self.credentials.is_some() {
            let message = "name a token or `credentials`, not both";
            wrong(&["/credentials", "/tokenFile", "/tokenEnv"], message);
        }
        if is_named && self.impersonate.is_some() {
            let message = "`impersonate` needs credentials, and a token is none: leave `tokenFile` and `tokenEnv` out";
            wrong(&["/impersonate", "/tokenFile", "/tokenEnv"], message);
        }
        for (at, is_there) in [
            ("/delegates", self.delegates.is_some()),
            ("/credentialsEndpoint", self.credentials_endpoint.is_some()),
        ] {
            if is_there && self.impersonate.is_none() {
                let message = format!("`{}` goes with `impersonate`", &at[1..]);
                wrong(&[at, "/impersonate"], &message);
            }
        }
        let is_anonymous = self.credentials == Some(CredentialsChoice::Anonymous);
        if is_anonymous && self.impersonate.is_some() {
            let message = "`impersonate` and `credentials: anonymous` exclude each other";
            wrong(&["/impersonate", "/credentials"], message);
        }
        let elsewhere = endpoint.ok().filter(|endpoint| !endpoint.place.is_loopback);
        found.extend(elsewhere.and_then(|endpoint| self.check_elsewhere(&endpoint)));
        found
    }

    /// What is wrong with them for an endpoint that is not on this machine.
    fn check_elsewhere(&self, endpoint: &Endpoint) -> Option<BadSetting> {
        let is_named = self.token_file.is_some() || self.token_env.is_some();
        match self.credentials {
            Some(CredentialsChoice::Anonymous) => Some(BadSetting::new(
                &["/credentials", "/endpoint"],
                "only an endpoint on this machine goes without a token: leave `credentials: anonymous` out",
            )),
            None if !is_named && !endpoint.is_google => Some(BadSetting::new(
                &["/endpoint", "/credentials", "/tokenFile", "/tokenEnv"],
                format!(
                    "`endpoint` is not Google's ({}), and nothing says that it may have a token that works there as well: write `credentials: application-default`, or name a token with `tokenFile` or `tokenEnv`",
                    endpoint.place.url.host_str().unwrap_or_default()
                ),
            )),
            _ => None,
        }
    }
}

/// Which credentials are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialsChoice {
    /// None: no token is sent. Only to an endpoint on this machine.
    Anonymous,
    /// Application Default Credentials: the file that `GOOGLE_APPLICATION_CREDENTIALS` names, what
    /// `gcloud auth application-default login` has written, or the metadata server.
    ApplicationDefault,
}

/// Everything that is wrong with settings that hold to the schema.
pub fn check(settings: &Value) -> Vec<BadSetting> {
    Settings::read(settings).map_or_else(|_| Vec::new(), |settings| settings.check())
}

/// What settings can do; those that do not hold to the schema can do nothing.
pub fn capabilities(settings: &Value) -> Capabilities {
    Settings::read(settings).unwrap_or_default().capabilities()
}

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What paths are relative to; ends with `/`.
    pub place: Place,
    /// Whether it is Google's own place.
    pub is_default: bool,
    /// Whether it is a service of Google's, by its host.
    pub is_google: bool,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        let place = Place::parse("endpoint", text)?.below(API_PATH);
        let is_default = place.url.as_str() == ENDPOINT_DEFAULT;
        let host = place.url.host_str().unwrap_or_default();
        let is_google = host.ends_with(GOOGLE) && place.url.scheme() == "https";
        Ok(Self { place, is_default, is_google })
    }

    /// The service that is there, by one name: all of Google's hosts lead to the same projects, and so do all
    /// versions of the API.
    fn service(&self) -> String {
        if self.is_google {
            return SERVICE.to_owned();
        }
        let mut url = self.place.url.clone();
        if url.host_str().is_some_and(|host| LOOPBACKS.contains(&host)) {
            // What has been parsed has a host that can be set.
            let _ = url.set_host(Some(LOOPBACKS[0]));
        }
        let path = url.path().trim_end_matches('/');
        let (before, last) = path.rsplit_once('/').unwrap_or(("", path));
        if VERSIONS.contains(&last) {
            let before = format!("{before}/");
            url.set_path(&before);
        }
        url.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wrong one would be a promise that the service does not keep.
    #[test]
    fn the_default_location_is_told_where_it_is_known_and_not_guessed() {
        let settings = Settings { projects: vec!["p".to_owned()], ..Settings::default() };
        let can = settings.capabilities();
        for (zone, location) in [
            ("us-central1-a", "us"),
            ("southamerica-east1-b", "us"),
            ("europe-west4-a", "eu"),
            ("australia-southeast1-c", "asia"),
            ("me-west1-a", ""),
            ("me-central2-b", ""),
            ("africa-south1-a", ""),
        ] {
            assert_eq!(can.default_location(zone), location, "{zone}");
        }
    }

    #[test]
    fn an_endpoint_is_a_host_or_a_whole_path() {
        for (text, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/compute/v1/"),
            ("http://[::1]:8080/", "http://[::1]:8080/compute/v1/"),
            ("http://localhost:1/compute/beta", "http://localhost:1/compute/beta/"),
            ("https://example.com/x/", "https://example.com/x/"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().place.url.as_str(), url);
        }
        assert!(Endpoint::parse(ENDPOINT_DEFAULT).unwrap().is_default);
    }

    #[test]
    fn a_service_has_one_name() {
        for (text, service) in [
            (ENDPOINT_DEFAULT, SERVICE),
            ("https://www.googleapis.com/compute/beta", SERVICE),
            ("https://compute.us-central1.rep.googleapis.com", SERVICE),
            ("https://compute-backup.p.googleapis.com/compute/v1/", SERVICE),
            (
                "https://compute.googleapis.com.example.com",
                "https://compute.googleapis.com.example.com/compute/",
            ),
            ("http://localhost:8080", "http://127.0.0.1:8080/compute/"),
            ("http://[::1]:8080/compute/alpha/", "http://127.0.0.1:8080/compute/"),
            ("http://127.0.0.2:8080", "http://127.0.0.2:8080/compute/"),
            ("https://example.com/v1", "https://example.com/"),
            ("https://example.com/tenant-a/", "https://example.com/tenant-a/"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().service(), service, "{text}");
        }
    }

    #[test]
    fn what_the_schema_takes_for_a_place_is_one() {
        let pattern = regex::Regex::new(PLACE).unwrap();
        for (text, is_one) in [
            ("http://127.0.0.1:8080", true),
            ("http://localhost/compute/v1/", true),
            ("http://[::1]:1", true),
            ("https://10.0.0.1", true),
            ("http://10.0.0.1:8080", false),
            ("http://127.0.0.1.example.com", false),
            ("http://localhost:x", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(pattern.is_match(text), is_one, "{text}");
            assert_eq!(Endpoint::parse(text).is_ok(), is_one, "{text}");
        }
    }

    #[test]
    fn a_token_is_named_in_one_way() {
        let base = Path::new("/etc");
        let here =
            Settings { endpoint: Some("http://127.0.0.1:1".to_owned()), ..Settings::default() };
        let of = |settings: Settings| {
            BadSetting::refuse(&settings.check())?;
            let endpoint = settings.endpoint().unwrap();
            settings.credentials(base, &endpoint).map(|credentials| format!("{credentials:?}"))
        };
        assert!(of(here.clone()).unwrap().contains("no credentials"));
        let file = Settings { token_file: Some("../token".to_owned()), ..here.clone() };
        assert_eq!(of(file.clone()).unwrap(), "Credentials(/token)");
        let elsewhere =
            |more: Settings| Settings { endpoint: Some("https://10.0.0.1".to_owned()), ..more };
        assert!(of(elsewhere(file.clone())).is_ok());
        let asked = Some(CredentialsChoice::ApplicationDefault);
        let asked = of(elsewhere(Settings { credentials: asked, ..Settings::default() }));
        assert!(asked.is_ok_and(|one| one != "Credentials(no credentials)"));
        let wrong = [
            Settings { token_env: Some("B".to_owned()), ..file.clone() },
            Settings { impersonate: Some("a@b".to_owned()), ..file.clone() },
            Settings { credentials: Some(CredentialsChoice::ApplicationDefault), ..file },
            Settings { delegates: Some(vec!["a@b".to_owned()]), ..here.clone() },
            Settings { credentials: Some(CredentialsChoice::Anonymous), ..Settings::default() },
            // What works at Google's must not be shown to others unasked.
            Settings { endpoint: Some("https://10.0.0.1".to_owned()), ..Settings::default() },
            Settings {
                endpoint: Some("https://compute.googleapis.com.example.com".to_owned()),
                impersonate: Some("a@b".to_owned()),
                ..Settings::default()
            },
            Settings {
                impersonate: Some("a@b".to_owned()),
                credentials: Some(CredentialsChoice::Anonymous),
                ..here.clone()
            },
            Settings {
                impersonate: Some("a@b".to_owned()),
                credentials_endpoint: Some("http://example.com".to_owned()),
                ..here
            },
        ];
        for settings in wrong {
            assert!(of(settings.clone()).is_err(), "{settings:?}");
        }
    }
}
