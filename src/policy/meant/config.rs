//! What the configuration means.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::{Allowed, Notify, Place, Risk};
use crate::cost::Prices;
use crate::elapsed::Elapsed;
use crate::inventory::{Capabilities, Instance};
use crate::policy::select::Patterns;

/// The configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name, for people.
    pub name: Option<String>,
    /// The engines by name.
    pub engines: BTreeMap<String, EngineConfig>,
    /// What a plan may not do unasked.
    pub guards: Guards,
    /// How the long-running mode works.
    pub watch: Watch,
    /// Sources that are meant to be without protection.
    pub exemptions: Vec<Exemption>,
    /// What stored bytes cost, where that is written.
    pub prices: Option<Prices>,
    /// Warnings that are meant, in whichever policy they are found.
    pub allowed: Vec<Allowed>,
    /// The environment whose overlay is put over it.
    pub environment: Option<String>,
    /// The ledger file, relative to the configuration file.
    pub ledger: String,
    /// The configuration file, as it was given.
    pub file: String,
}

/// An engine as configured.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Its kind: `local`, …
    pub kind: String,
    /// Its settings, which hold to its kind's schema.
    pub settings: serde_json::Value,
    /// What it can do with these settings.
    pub capabilities: Capabilities,
}

/// What a plan may not do unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guards {
    /// The largest share of a series that one plan may delete, in percent.
    pub series_percent: u32,
    /// The largest share of an engine's managed images that one plan may delete, in percent.
    pub engine_percent: u32,
    /// The most images of an engine that one plan may delete.
    pub engine_count: u32,
    /// Deletes of these classes are refused.
    pub refuse: Vec<Risk>,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            series_percent: 30,
            engine_percent: 30,
            engine_count: 100,
            refuse: vec![Risk::LastPoint],
        }
    }
}

/// How the long-running mode works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// How often everything is looked at where nothing is due.
    pub reconcile_every: Elapsed,
    /// How long deletes wait that a change of the policies would cause.
    pub delete_delay: Elapsed,
    /// How long what is under way may go on after it was told to end.
    pub grace: Elapsed,
    /// How long a capture, a copy or a drill may take.
    pub capture_limit: Elapsed,
    /// How often the files are looked at where the system tells of no changes.
    pub poll_every: Elapsed,
    /// What only one watch holds at a time.
    pub lease: Option<LeasePlace>,
    /// Who is told of what goes wrong.
    pub notify: Notify,
}

/// Where a lease is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeasePlace {
    /// A file that is locked, relative to the configuration file.
    File(PathBuf),
    /// A Lease of Kubernetes.
    Kubernetes(KubernetesLease),
}

/// A Lease of Kubernetes (`coordination.k8s.io/v1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesLease {
    /// Its namespace; that of the pod, or of the current context, where none is named.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl LeasePlace {
    /// `kubernetes:NAME`, `kubernetes:NAMESPACE/NAME`, or the path of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            let means = "leave it out where one works alone";
            return Err(format!("`{text}` names no file that could be locked; {means}"));
        }
        let Some(lease) = text.strip_prefix("kubernetes:") else {
            return Ok(Self::File(PathBuf::from(text)));
        };
        let (namespace, name) = match lease.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, lease),
        };
        // Names of namespaces have no dot (RFC 1123 label), those of leases may (subdomain).
        let is_label = |text: &str| {
            let is_edge =
                |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            text.len() <= 63
                && is_edge(text.chars().next())
                && is_edge(text.chars().next_back())
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        if name.len() > 253 || !name.split('.').all(is_label) || !namespace.is_none_or(is_label) {
            return Err(format!(
                "`{text}` names no Lease of Kubernetes; write kubernetes:NAME or kubernetes:NAMESPACE/NAME, in lower case"
            ));
        }
        let namespace = namespace.map(str::to_owned);
        Ok(Self::Kubernetes(KubernetesLease { namespace, name: name.to_owned() }))
    }
}

impl fmt::Display for KubernetesLease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "kubernetes:")?;
        if let Some(namespace) = &self.namespace {
            write!(formatter, "{namespace}/")?;
        }
        write!(formatter, "{}", self.name)
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            reconcile_every: Elapsed::hours(1),
            delete_delay: Elapsed::minutes(10),
            grace: Elapsed::minutes(5),
            capture_limit: Elapsed::days(1),
            poll_every: Elapsed::seconds(30),
            lease: None,
            notify: Notify::default(),
        }
    }
}

/// Sources that are meant to be without protection.
#[derive(Debug, Clone)]
pub struct Exemption {
    /// Patterns for the name or the id of the source.
    pub source: Patterns,
    /// The engine, where it is meant for one only.
    pub engine: Option<String>,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When it ends.
    pub until: Timestamp,
    /// Where it is written.
    pub place: Place,
}

impl Exemption {
    /// Whether it is about an instance of an engine, whatever the time.
    pub fn covers(&self, engine: &str, instance: &Instance) -> bool {
        self.engine.as_ref().is_none_or(|only| only == engine)
            && (self.source.matches(&instance.name) || self.source.matches(instance.id.as_str()))
    }

    /// Whether it has ended.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.until <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_a_file_or_a_lease_of_kubernetes() {
        let kubernetes = |namespace: Option<&str>, name: &str| {
            let namespace = namespace.map(str::to_owned);
            Ok(LeasePlace::Kubernetes(KubernetesLease { namespace, name: name.to_owned() }))
        };
        assert_eq!(LeasePlace::parse("kubernetes:a"), kubernetes(None, "a"));
        assert_eq!(LeasePlace::parse("kubernetes:b-1/a.x"), kubernetes(Some("b-1"), "a.x"));
        for file in ["../watch.lock", "kubernetes/lock", "/run/lock"] {
            assert_eq!(LeasePlace::parse(file), Ok(LeasePlace::File(PathBuf::from(file))));
        }
        for wrong in [
            "",
            " ",
            "kubernetes:",
            "kubernetes:A",
            "kubernetes:a/b/c",
            "kubernetes:a.b/c",
            "kubernetes:-a",
            "kubernetes:a..b",
            "kubernetes:/a",
        ] {
            assert!(LeasePlace::parse(wrong).is_err(), "{wrong}");
        }
    }
}
