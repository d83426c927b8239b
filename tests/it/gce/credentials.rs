//! Application Default Credentials: the program with an environment of its own, and who gives tokens
//! on a port of this machine.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::authority::Authority;
use super::{Fake, now};
use crate::support::{Run, project};

/// A directory of policies over a fake of the service, and who gives tokens.
pub struct House {
    pub api: Fake,
    pub authority: Authority,
    directory: TempDir,
}

impl House {
    /// `settings` is put into the settings of the engine.
    pub fn new(settings: &str) -> Self {
        let api = Fake::new(now());
        api.state().add_instance("p", "us-a", "web-1", "4201");
        let authority = Authority::new();
        let directory = tempfile::tempdir().unwrap();
        let this = Self { api, authority, directory };
        fs::create_dir(this.path("policies")).unwrap();
        fs::create_dir(this.path("home")).unwrap();
        let config = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines:\n    cloud:\n      gce:\n        projects: [p]\n        endpoint: http://{}\n{}",
            this.api.address,
            settings
                .lines()
                .map(|line| format!("        {}\n", line.trim()))
                .collect::<String>()
                .replace("AUTHORITY", &this.authority.url(""))
        );
        fs::write(this.path("policies/stillframe.yaml"), config).unwrap();
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of credentials.
    fn credentials(&self, name: &str, json: &Value) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, json.to_string()).unwrap();
        path.display().to_string()
    }

    /// Runs the program with nothing in its environment but this; it logs all it can.
    pub fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stillframe"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("HOME", self.path("home"))
            .env("RUST_LOG", "trace")
            .envs(environment.iter().copied())
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        let run = Run {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        // Whatever else is looked at: no token that was given or sent is ever shown.
        let mut secrets = self.authority.state().given.clone();
        secrets.extend(self.bearer());
        secrets
            .extend(["a-refresh-token", "a-subject-token", "a-client-secret"].map(str::to_owned));
        secrets.extend(key().lines().filter(|line| !line.starts_with("--")).map(str::to_owned));
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            assert!(!run.out.contains(secret.as_str()), "{secret} is in the output");
            let shown = run.err.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(shown, None, "{secret} is in the log");
        }
        run
    }

    fn inventory(&self, environment: &[(&str, &str)]) -> Run {
        self.run(&["inventory", "--json"], environment)
    }

    /// The token that the last request had.
    fn bearer(&self) -> Option<String> {
        let state = self.api.state();
        let header = state.headers.get("authorization")?;
        Some(header.strip_prefix("Bearer ").unwrap().to_owned())
    }

    fn quota_project(&self) -> Option<String> {
        self.api.state().headers.get("x-goog-user-project").cloned()
    }
}

fn key() -> String {
    fs::read_to_string(project().join("tests/data/gce/key-for-tests.pem")).unwrap()
}

fn service_account() -> Value {
    json!({
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "key-1",
        "private_key": key(),
        "client_email": "planner@p.iam.gserviceaccount.com",
        "token_uri": "http://127.0.0.1:1/never",
    })
}

fn assert_seen(run: &Run) {
    assert_eq!(run.code, Some(0), "{}", gaps(run));
    let inventory: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(inventory["engines"][0]["instances"][0]["name"], "web-1");
}

/// What could not be seen, and why.
fn gaps(run: &Run) -> String {
    let inventory: Value = serde_json::from_str(&run.out).unwrap_or_default();
    let gaps = inventory["engines"][0]["gaps"].as_array().cloned().unwrap_or_default();
    let lines: Vec<&str> = gaps.iter().filter_map(|gap| gap["message"].as_str()).collect();
    let errors: Vec<&str> = run.err.lines().filter(|line| line.contains("error")).collect();
    format!("{}\n{}", lines.join("\n"), errors.join("\n"))
}

const DEFAULT: &str = "credentials: application-default";

#[test]
fn a_key_signs_a_token_that_the_service_can_check() {
    let house = House::new(DEFAULT);
    let mut json = service_account();
    json["quota_project_id"] = json!("billed");
    let file = house.credentials("key.json", &json);
    let run = house.inventory(&[("GOOGLE_APPLICATION_CREDENTIALS", &file)]);
    assert_seen(&run);
    assert!(house.authority.lines().is_empty(), "nobody else is asked");
    let token = house.bearer().unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let [head, claims, signature] = parts[..] else { panic!("{token}") };
    let public = fs::read(project().join("tests/data/gce/key-for-tests.public.der")).unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
        .verify(
            format!("{head}.{claims}").as_bytes(),
            &BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap(),
        )
        .unwrap();
    let read = |part: &str| -> Value {
        serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
    };
    assert_eq!(read(head), json!({"alg": "RS256", "typ": "JWT", "kid": "key-1"}));
    let claims = read(claims);
    assert_eq!(claims["iss"], "planner@p.iam.gserviceaccount.com");
    assert_eq!(claims["sub"], claims["iss"]);
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/cloud-platform");
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 3_640);
    assert_eq!(house.quota_project().as_deref(), Some("billed"));
}

#[test]
fn the_quota_project_of_the_settings_comes_before_that_of_the_environment() {
    let environment = |house: &House| {
        let mut json = service_account();
        json["quota_project_id"] = json!("billed");
        let file = house.credentials("key.json", &json);
        let environment = [
            ("GOOGLE_APPLICATION_CREDENTIALS", file.as_str()),
            ("GOOGLE_CLOUD_QUOTA_PROJECT", "of-the-environment"),
        ];
        assert_seen(&house.inventory(&environment));
    };
    let house = House::new(DEFAULT);
    environment(&house);
    assert_eq!(house.quota_project().as_deref(), Some("of-the-environment"));
    let house = House::new("credentials: application-default\nquotaProject: of-the-settings");
    environment(&house);
    assert_eq!(house.quota_project().as_deref(), Some("of-the-settings"));
}

#[test]
fn a_machine_of_the_cloud_asks_its_metadata_server_once() {
    let house = House::new(DEFAULT);
    // It may start a little later than a container.
    house.authority.state().failures = 1;
    let host = house.authority.address.to_string();
    assert_seen(&house.inventory(&[("GCE_METADATA_HOST", &host)]));
    assert_eq!(house.bearer().as_deref(), Some("machine-token-1"));
    let path = "GET /computeMetadata/v1/instance/service-accounts/default/token";
    assert_eq!(house.authority.lines(), [path, path]);
}

fn external(house: &House) -> Value {
    let file = house.path("subject");
    fs::write(&file, "a-subject-token").unwrap();
    json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/providers/forge",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": house.authority.url("/sts"),
        "credential_source": {"file": file},
    })
}

#[test]
fn a_workload_exchanges_the_token_of_its_platform() {
    let house = House::new(DEFAULT);
    let file = house.credentials("external.json", &external(&house));
    assert_seen(&house.inventory(&[("GOOGLE_APPLICATION_CREDENTIALS", &file)]));
    assert_eq!(house.bearer().as_deref(), Some("exchanged-token-1"));
    let state = house.authority.state();
    let [asked] = &state.asked[..] else { panic!("{:?}", state.asked) };
    let url = reqwest::Url::parse(&format!("http://form/?{}", asked.body)).unwrap();
    let form: std::collections::BTreeMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!(form["subject_token"], "a-subject-token");
    assert_eq!(form["subject_token_type"], "urn:ietf:params:oauth:token-type:jwt");
    assert!(form["audience"].ends_with("/providers/forge"));
    assert_eq!(form["scope"], "https://www.googleapis.com/auth/cloud-platform");
}

#[test]
fn a_workload_may_act_as_a_service_account() {
    let house = House::new(DEFAULT);
    let mut json = external(&house);
    let path =
        "/v1/projects/-/serviceAccounts/backup@p.iam.gserviceaccount.com:generateAccessToken";
    json["service_account_impersonation_url"] = json!(house.authority.url(path));
    let file = house.credentials("external.json", &json);
    assert_seen(&house.inventory(&[("GOOGLE_APPLICATION_CREDENTIALS", &file)]));
    assert_eq!(house.bearer().as_deref(), Some("other-token-2"));
    assert_eq!(house.authority.lines(), ["POST /sts".to_owned(), format!("POST {path}")]);
    let state = house.authority.state();
    assert_eq!(state.asked[1].headers["authorization"], "Bearer exchanged-token-1");
}

#[test]
fn the_settings_name_a_service_account_to_act_as() {
    let house = House::new(
        "impersonate: creator@p.iam.gserviceaccount.com
         delegates: [between@p.iam.gserviceaccount.com]
         credentialsEndpoint: AUTHORITY",
    );
    let file = house.credentials("key.json", &service_account());
    assert_seen(&house.inventory(&[("GOOGLE_APPLICATION_CREDENTIALS", &file)]));
    assert_eq!(house.bearer().as_deref(), Some("other-token-1"));
    let state = house.authority.state();
    let [asked] = &state.asked[..] else { panic!("{:?}", state.asked) };
    assert_eq!(
        asked.line,
        "POST /v1/projects/-/serviceAccounts/creator@p.iam.gserviceaccount.com:generateAccessToken"
    );
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(
        body["delegates"],
        json!(["projects/-/serviceAccounts/between@p.iam.gserviceaccount.com"])
    );
    assert_eq!(body["scope"], json!(["https://www.googleapis.com/auth/cloud-platform"]));
    assert!(asked.headers["authorization"].starts_with("Bearer eyJ"));
}

#[test]
fn what_a_person_has_logged_in_with_is_found_where_it_was_written() {
    let json = |house: &House| {
        json!({
            "type": "authorized_user",
            "client_id": "me",
            "client_secret": "a-client-secret",
            "refresh_token": "a-refresh-token",
            "token_uri": house.authority.url("/oauth"),
            "quota_project_id": "billed",
        })
    };
    let name = "application_default_credentials.json";
    let house = House::new(DEFAULT);
    house.credentials(&format!("home/.config/gcloud/{name}"), &json(&house));
    assert_seen(&house.inventory(&[]));
    assert_eq!(house.bearer().as_deref(), Some("user-token-1"));
    assert_eq!(house.quota_project().as_deref(), Some("billed"));
    let house = House::new(DEFAULT);
    house.credentials(&format!("elsewhere/{name}"), &json(&house));
    let elsewhere = house.path("elsewhere").display().to_string();
    assert_seen(&house.inventory(&[("CLOUDSDK_CONFIG", &elsewhere)]));
    assert_eq!(house.bearer().as_deref(), Some("user-token-1"));
}

#[test]
fn a_token_that_is_not_taken_any_more_is_had_anew_once() {
    let house = House::new(DEFAULT);
    let host = house.authority.address.to_string();
    house.api.state().token = "machine-token-2".to_owned();
    assert_seen(&house.inventory(&[("GCE_METADATA_HOST", &host)]));
    assert_eq!(house.authority.state().given.len(), 2);
    // One that is never taken does not go on for ever.
    house.api.state().token = "none".to_owned();
    house.api.state().log.clear();
    let run = house.inventory(&[("GCE_METADATA_HOST", &host)]);
    assert_eq!(run.code, Some(1));
    assert!(gaps(&run).contains("Invalid Credentials (authError)"), "{}", gaps(&run));
    let requests = house.api.state().log.len();
    assert_eq!(requests, 18, "nine questions, each asked twice");
}

#[test]
fn who_has_no_credentials_is_told_where_they_were_looked_for() {
    let house = House::new(DEFAULT);
    // Nobody listens there.
    let run = house.inventory(&[("GCE_METADATA_HOST", "127.0.0.1:1")]);
    assert_eq!(run.code, Some(1));
    assert!(
        gaps(&run).contains(
            "no access token with the metadata server at 127.0.0.1:1 (GCE_METADATA_HOST)"
        ),
        "{}",
        gaps(&run)
    );
    assert!(house.api.state().log.is_empty());
}

#[test]
fn credentials_that_cannot_be_used_are_named() {
    let house = House::new(DEFAULT);
    let refused = |file: &str, message: &str| {
        let run = house.inventory(&[("GOOGLE_APPLICATION_CREDENTIALS", file)]);
        assert_eq!(run.code, Some(1));
        assert!(gaps(&run).contains(message), "{}", gaps(&run));
    };
    refused("/nowhere/key.json", "the variable GOOGLE_APPLICATION_CREDENTIALS names that file");
    let file = house.path("no.json");
    fs::write(&file, "a-client-secret").unwrap();
    refused(&file.display().to_string(), "holds no credentials: it is no JSON with a `type`");
    let file = house.credentials("gdch.json", &json!({"type": "external_account_authorized_user"}));
    refused(&file, "credentials of the type `external_account_authorized_user` cannot be used");
    let mut json = service_account();
    json["private_key"] = json!("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let file = house.credentials("broken.json", &json);
    refused(&file, "broken.json (service_account): ");
    // A service that repeats what it was sent does not get it into a message.
    let long = "eyJ".repeat(60);
    house.authority.state().refusal = Some(format!("{{\"error\": \"no\", \"got\": \"{long}\"}}"));
    let file = house.credentials("external.json", &external(&house));
    let run = house.inventory(&[("GOOGLE_APPLICATION_CREDENTIALS", &file)]);
    let told = gaps(&run);
    assert!(told.contains("\"error\": \"no\", \"got\": \"…\""), "{told}");
    assert!(!run.out.contains(&long));
}

#[test]
fn another_endpoint_is_gone_to_and_named() {
    let house = House::new("");
    let other = Fake::new(now());
    other.state().add_instance("p", "us-a", "elsewhere", "17");
    let url = format!("http://{}", other.address);
    for given in [url.clone(), format!("cloud={url}")] {
        let run = house.run(&["inventory", "--json", "--engine-endpoint", &given], &[]);
        let inventory: Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!(inventory["engines"][0]["instances"][0]["name"], "elsewhere");
        assert_eq!(inventory["engines"][0]["identity"], format!("p at {url}/compute/v1/"));
    }
    assert!(house.api.state().log.is_empty());
    // It is held to the rules of the settings.
    for (given, message) in [
        ("http://example.com".to_owned(), "goes over the network without TLS"),
        (format!("clout={url}"), "there is no engine clout"),
        ("cloud=nowhere".to_owned(), "is not a URL"),
    ] {
        let run = house.run(&["plan", "--engine-endpoint", &given], &[]);
        assert_eq!(run.code, Some(1));
        assert!(run.err.contains(message), "{}", gaps(&run));
    }
}
