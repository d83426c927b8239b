//! The configuration: engines, guards, and what holds for all policies.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde_json::{Value, json};

use super::Loader;
use super::documents::Document;
use super::engines::one_kind_each;
use super::notify::notify;
use crate::cost::{Prices, Rate};
use crate::elapsed::Elapsed;
use crate::inventory::{Consistency, ImageKind, Via};
use crate::name::PolicyName;
use crate::policy::effective::{Layer, Layers};
use crate::policy::finding::{Code, Finding, Place};
use crate::policy::meaning::reader::Reader;
use crate::policy::meant::{
    Blackout, Capture, Config, DiskChoice, EngineConfig, Exemption, Guards, LeasePlace, Lifecycle,
    OnSourceGone, Policies, Policy, Watch, WhenStalled,
};
use crate::policy::naming::{DESCRIPTION_DEFAULT, NAME_DEFAULT, Naming};
use crate::policy::select::Selection;
use crate::policy::written::{
    BlackoutSpec, ExemptionSpec, GuardsSpec, LengthText, MovedSpec, PricesSpec, RemovedSpec,
    WatchSpec,
};
use crate::retention::Retention;
use crate::schedule::{Schedule, Zone};

/// Where the ledger is kept, relative to the configuration file, unless it says otherwise.
const LEDGER_DEFAULT: &str = "../.stillframe/ledger.ndjson";
/// Where an overlay says what is different in the configuration.
const OVERLAID: &str = "/spec/config";
/// How long nothing changes after a policy was removed, unless the entry says otherwise.
const REMOVED_GRACE: Elapsed = Elapsed::days(14);

/// A configuration, and what it says about policies.
pub(super) struct Configured {
    pub(super) config: Config,
    /// As it is written, with what is different in the environment.
    pub(super) json: Value,
    blackouts: Vec<Blackout>,
    moved: Vec<Moved>,
    removed: Vec<Policy>,
}

/// A policy that has a new name.
struct Moved {
    from: PolicyName,
    to: PolicyName,
    from_place: Place,
    to_place: Place,
}

impl Loader<'_> {
    pub(super) fn config(
        &mut self,
        document: &Document,
        overlay: Option<&Document>,
        environment: Option<&str>,
    ) -> Option<Configured> {
        let spec = document.json.get("spec")?;
        let nothing = json!({});
        let overlay = overlay.filter(|overlay| overlay.json.pointer(OVERLAID).is_some());
        let overlaid = overlay.into_iter().flat_map(|overlay| overlay.damaged_in(OVERLAID));
        let unread: Vec<&str> = document.damaged_in("/spec").chain(overlaid).collect();
        let overlay = overlay.map(|overlay| overlay.layer(OVERLAID, &nothing));
        let own =
            Layer { json: spec, document: &document.node, prefix: "/spec", file: &document.file };
        let mut layers = Layers::new(overlay.into_iter().collect(), own, Vec::new(), &json!({}));
        one_kind_each(&mut layers.json, overlay.map(|overlay| overlay.json));
        let engines = self.engines(&layers, &unread);
        let mut reader = Reader::new(&layers);
        let json = &layers.json;
        let guards = json.get("guards").cloned().unwrap_or_else(|| json!({}));
        let guards: GuardsSpec = serde_json::from_value(guards).unwrap_or_default();
        let standard = Guards::default();
        let metadata = document.json.get("metadata").unwrap_or(&Value::Null);
        let config = Config {
            name: metadata.get("name").and_then(Value::as_str).map(str::to_owned),
            guards: Guards {
                series_percent: guards.series_percent.unwrap_or(standard.series_percent),
                engine_percent: guards.engine_percent.unwrap_or(standard.engine_percent),
                engine_count: guards.engine_count.unwrap_or(standard.engine_count),
                refuse: guards.refuse.unwrap_or(standard.refuse),
            },
            ledger: json.get("ledger").and_then(Value::as_str).unwrap_or(LEDGER_DEFAULT).to_owned(),
            file: document.file.path.clone(),
            watch: watch(&mut reader, &engines),
            exemptions: exemptions(&mut reader, &engines),
            prices: prices(&mut reader),
            allowed: reader.allowed(metadata),
            environment: environment.map(str::to_owned),
            engines,
        };
        let blackouts: Vec<BlackoutSpec> = list(json, "blackouts").into_iter().flatten().collect();
        let configured = Configured {
            blackouts: reader.blackouts(Some(&blackouts), &Zone::UTC),
            moved: moved(&mut reader),
            removed: removed(&mut reader, &config),
            json: json.clone(),
            config,
        };
        self.findings.append(&mut reader.findings);
        Some(configured)
    }
}

/// The items of a list; one that the schema has found wrong is `None` and keeps its position.
fn list<T: serde::de::DeserializeOwned>(json: &Value, key: &str) -> Vec<Option<T>> {
    let items = json.get(key).and_then(Value::as_array);
    items.into_iter().flatten().map(|item| serde_json::from_value(item.clone()).ok()).collect()
}

fn exemptions(reader: &mut Reader<'_>, engines: &BTreeMap<String, EngineConfig>) -> Vec<Exemption> {
    let mut exemptions = Vec::new();
    for (position, spec) in
        list::<ExemptionSpec>(&reader.layers.json, "exemptions").iter().enumerate()
    {
        let Some(spec) = spec else { continue };
        let pointer = format!("/exemptions/{position}");
        let (owner, reason) = (spec.owner.as_deref(), spec.reason.as_deref());
        reader.says_something(owner, &format!("{pointer}/owner"), "the owner");
        reader.says_something(reason, &format!("{pointer}/reason"), "the reason");
        let source = reader.patterns(spec.source.as_ref(), &format!("{pointer}/source"));
        let until = reader.time(spec.until.as_deref(), &Zone::UTC, &format!("{pointer}/until"));
        if let Some(engine) = spec.engine.as_ref().filter(|name| !engines.contains_key(*name)) {
            let message = format!("there is no engine `{engine}`");
            reader.find(Code::UnknownEngine, &format!("{pointer}/engine"), message);
        }
        if let (Some(source), Some(until), Some(owner), Some(reason)) =
            (source, until, &spec.owner, &spec.reason)
        {
            exemptions.push(Exemption {
                source,
                engine: spec.engine.clone(),
                owner: owner.clone(),
                reason: reason.clone(),
                until,
                place: reader.layers.place(&format!("{pointer}/until")),
            });
        }
    }
    exemptions
}

/// How the long-running mode works.
fn watch(reader: &mut Reader<'_>, engines: &BTreeMap<String, EngineConfig>) -> Watch {
    let written = reader.layers.json.get("watch").cloned().unwrap_or_else(|| json!({}));
    let spec: WatchSpec = serde_json::from_value(written).unwrap_or_default();
    let notify = notify(reader, spec.notify.as_ref(), engines);
    let mut length = |text: Option<&LengthText>, key: &str, least: Elapsed, standard: Elapsed| {
        let pointer = format!("/watch/{key}");
        let length = reader.length(text, &pointer).unwrap_or(standard);
        if length < least {
            reader.find(Code::OutOfRange, &pointer, format!("{length} is below {least}"));
        }
        length
    };
    let (standard, minute, second) = (Watch::default(), Elapsed::minutes(1), Elapsed::seconds(1));
    let every = spec.reconcile_every.as_ref();
    Watch {
        reconcile_every: length(every, "reconcileEvery", minute, standard.reconcile_every),
        delete_delay: length(
            spec.delete_delay.as_ref(),
            "deleteDelay",
            Elapsed::ZERO,
            standard.delete_delay,
        ),
        grace: length(spec.grace.as_ref(), "grace", Elapsed::ZERO, standard.grace),
        capture_limit: length(
            spec.capture_limit.as_ref(),
            "captureLimit",
            minute,
            standard.capture_limit,
        ),
        poll_every: length(spec.poll_every.as_ref(), "pollEvery", second, standard.poll_every),
        lease: spec.lease.and_then(|text| match LeasePlace::parse(&text) {
            Ok(place) => Some(place),
            Err(message) => {
                reader.find(Code::OutOfRange, "/watch/lease", message);
                None
            }
        }),
        notify,
    }
}

/// The table of prices, unless something in it is wrong.
fn prices(reader: &mut Reader<'_>) -> Option<Prices> {
    let written: PricesSpec =
        serde_json::from_value(reader.layers.json.get("prices")?.clone()).ok()?;
    let as_of = written.as_of.as_deref().and_then(|text| {
        let date = text.parse::<Date>().ok().filter(|_| text.len() == 10);
        if date.is_none() {
            let message = format!("`{text}` is not a date");
            reader.find(Code::BadTime, "/prices/asOf", message).hint =
                Some("write a date like `2026-12-01`".to_owned());
        }
        date
    });
    let mut rates = Vec::new();
    let before = reader.findings.len();
    for (position, spec) in written.per_gib_month.iter().flatten().enumerate() {
        let pointer = format!("/prices/perGibMonth/{position}");
        let engines = reader.patterns(spec.engine.as_ref(), &format!("{pointer}/engine"));
        let locations = reader.patterns(spec.location.as_ref(), &format!("{pointer}/location"));
        let Some(price) = spec.price else { continue };
        let Some(per_gib_month) = micros(price) else {
            let message = format!("the price {price} has more than six digits behind the point");
            reader.find(Code::OutOfRange, &format!("{pointer}/price"), message);
            continue;
        };
        rates.push(Rate { engines, locations, kind: spec.kind, per_gib_month });
    }
    let is_sound = reader.findings.len() == before;
    Some(Prices::new(written.currency?, as_of?, rates)).filter(|_| is_sound)
}

/// A price in millionths of its currency, where it is a whole number of them.
fn micros(price: f64) -> Option<u64> {
    // The shortest text of a float is the number that was written.
    let text = price.to_string();
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    if part.len() > 6 {
        return None;
    }
    format!("{whole}{part:0<6}").parse().ok()
}

fn policy_name(reader: &mut Reader<'_>, text: Option<&str>, pointer: &str) -> Option<PolicyName> {
    let text = text?;
    let parsed = PolicyName::parse(text);
    if parsed.is_err() {
        let message = format!("`{text}` is not a name for a policy");
        reader.find(Code::BadName, pointer, message).hint =
            Some("1 to 63 of a-z, 0-9 and `-`, beginning with a letter".to_owned());
    }
    parsed.ok()
}

fn moved(reader: &mut Reader<'_>) -> Vec<Moved> {
    let mut moved = Vec::new();
    for (position, spec) in list::<MovedSpec>(&reader.layers.json, "moved").iter().enumerate() {
        let Some(spec) = spec else { continue };
        let (from_at, to_at) = (format!("/moved/{position}/from"), format!("/moved/{position}/to"));
        let from = policy_name(reader, spec.from.as_deref(), &from_at);
        let to = policy_name(reader, spec.to.as_deref(), &to_at);
        if let (Some(from), Some(to)) = (from, to) {
            let (from_place, to_place) =
                (reader.layers.place(&from_at), reader.layers.place(&to_at));
            moved.push(Moved { from, to, from_place, to_place });
        }
    }
    moved
}

/// The policies that were removed, each as one that selects nothing: its sources are gone, and what
/// becomes of their restore points is what the entry says.
fn removed(reader: &mut Reader<'_>, config: &Config) -> Vec<Policy> {
    let zone = reader.layers.json.pointer("/defaults/schedule/timeZone").and_then(Value::as_str);
    let zone = zone.and_then(Zone::find).unwrap_or(Zone::UTC);
    let mut removed: Vec<Policy> = Vec::new();
    for (position, spec) in list::<RemovedSpec>(&reader.layers.json, "removed").iter().enumerate() {
        let Some(spec) = spec else { continue };
        let pointer = format!("/removed/{position}");
        let reason = spec.reason.as_deref();
        reader.says_something(reason, &format!("{pointer}/reason"), "the reason");
        let grace = reader.length(spec.grace.as_ref(), &format!("{pointer}/grace"));
        let images = spec.images.unwrap_or(OnSourceGone::Keep);
        if spec.retention.is_some() != (images == OnSourceGone::Rules) {
            let message = "`retention` and `images: rules` belong together";
            reader.find(Code::BadRemoval, &format!("{pointer}/images"), message);
        }
        let name = policy_name(reader, spec.policy.as_deref(), &format!("{pointer}/policy"));
        let engine = removed_engine(reader, spec, config, &pointer);
        let (Some(name), Some(engine)) = (name, engine) else { continue };
        let Ok(naming) = Naming::new(NAME_DEFAULT, DESCRIPTION_DEFAULT) else { continue };
        removed.push(Policy {
            name,
            owner: None,
            description: None,
            engine,
            selection: Selection::default(),
            capture: Capture {
                kind: ImageKind::default(),
                via: Via::default(),
                disks: DiskChoice::All,
                consistency: Consistency::default(),
                family: None,
            },
            schedule: Schedule {
                crontabs: Vec::new(),
                zone: zone.clone(),
                deadline: None,
                jitter: Elapsed::ZERO,
            },
            retention: spec.retention.as_ref().map_or_else(Retention::default, Reader::rules),
            stalled_after: None,
            when_stalled: WhenStalled::Keep,
            lifecycle: Lifecycle {
                deprecate_after: None,
                obsolete_after: None,
                grace: Elapsed::hours(24),
                source_gone_grace: grace.unwrap_or(REMOVED_GRACE),
                on_source_gone: images,
            },
            location: String::new(),
            copies: Vec::new(),
            kms_key: None,
            labels: BTreeMap::new(),
            naming,
            sharing: None,
            tier: None,
            rpo: None,
            drill: None,
            blackouts: Vec::new(),
            holds: Vec::new(),
            paused: None,
            overlaps_with: None,
            allowed: Vec::new(),
            removed: Some(spec.reason.clone().unwrap_or_default()),
            place: reader.layers.place(&format!("{pointer}/policy")),
            effective: Vec::new(),
            digest: String::new(),
        });
    }
    removed
}

fn removed_engine(
    reader: &mut Reader<'_>,
    spec: &RemovedSpec,
    config: &Config,
    pointer: &str,
) -> Option<String> {
    let mut names = config.engines.keys();
    match (&spec.engine, names.next(), names.next()) {
        (Some(engine), _, _) if config.engines.contains_key(engine) => Some(engine.clone()),
        (Some(engine), _, _) => {
            let message = format!("there is no engine `{engine}`");
            reader.find(Code::UnknownEngine, &format!("{pointer}/engine"), message);
            None
        }
        (None, Some(only), None) => Some(only.clone()),
        (None, None, _) => None,
        (None, Some(_), Some(_)) => {
            let message = "the entry does not say which engine";
            reader.find(Code::UnknownEngine, pointer, message);
            None
        }
    }
}

impl Configured {
    /// Holds the names of `moved` and `removed` against those of the policies there are.
    pub(super) fn check_names(&mut self, names: &BTreeSet<&str>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut gone: BTreeMap<&PolicyName, &Place> = BTreeMap::new();
        let moved = self.moved.iter().map(|moved| (&moved.from, &moved.from_place));
        let removed = self.removed.iter().map(|policy| (&policy.name, &policy.place));
        for (name, place) in moved.chain(removed) {
            if names.contains(name.as_str()) {
                let message = format!("there is a policy named `{name}`, so it has not gone");
                findings.push(
                    Finding::new(Code::BadMove, place.clone(), message)
                        .hint("take the entry out, or give the policy another name"),
                );
            }
            if let Some(first) = gone.insert(name, place) {
                let message = format!("what becomes of `{name}` is said twice");
                findings.push(
                    Finding::new(Code::BadMove, place.clone(), message)
                        .related(first.clone(), "first said here"),
                );
            }
        }
        for moved in &self.moved {
            match self.last_name(&moved.to) {
                None => {
                    let message = format!("`{}` moves in a circle", moved.from);
                    findings.push(Finding::new(Code::BadMove, moved.to_place.clone(), message));
                }
                Some(last) if !names.contains(last.as_str()) => {
                    let message = format!("there is no policy named `{last}`");
                    findings.push(
                        Finding::new(Code::BadMove, moved.to_place.clone(), message)
                            .hint("the restore points need a policy to belong to"),
                    );
                }
                Some(_) => {}
            }
        }
        findings
    }

    /// The name at the end of all moves; `None` where there is no end.
    fn last_name(&self, name: &PolicyName) -> Option<PolicyName> {
        let mut last = name.clone();
        for _ in 0..=self.moved.len() {
            match self.moved.iter().find(|moved| moved.from == last) {
                Some(moved) => last = moved.to.clone(),
                None => return Some(last),
            }
        }
        None
    }

    /// The policies with what holds for all of them.
    pub(super) fn policies(mut self, mut policies: Vec<Policy>, digest: String) -> Policies {
        let mut removed = std::mem::take(&mut self.removed);
        for policy in policies.iter_mut().chain(&mut removed) {
            policy.blackouts.extend(self.blackouts.iter().cloned());
        }
        let moved = self
            .moved
            .iter()
            .filter_map(|moved| Some((moved.from.clone(), self.last_name(&moved.to)?)))
            .collect();
        removed.sort_by(|one, other| one.name.cmp(&other.name));
        let places = self.moved.into_iter().map(|moved| (moved.from, moved.from_place));
        let moved_places = places.collect();
        Policies {
            config: self.config,
            policies,
            removed,
            moved,
            moved_places,
            digest,
            written_config: self.json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::micros;

    #[test]
    fn prices_are_exact_or_refused() {
        for (price, wanted) in [
            (0.0, Some(0)),
            (0.026, Some(26_000)),
            (0.05, Some(50_000)),
            (1.0, Some(1_000_000)),
            (12.345_678, Some(12_345_678)),
            (0.000_001, Some(1)),
            (0.000_000_1, None),
            (0.123_456_7, None),
        ] {
            assert_eq!(micros(price), wanted, "{price}");
        }
    }
}
