//! What all policies together hold in the long run: images, bytes and cost, by engine and kind.
//!
//! The sources of now, each with the steady state of its policies, and what stays of sources that
//! are gone and of policies that were removed. A policy is asked once, however many sources it has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::outlook::HORIZON;
use super::steady::{SteadyState, steady_state};
use super::taken::Taken;
use crate::cost::{Amount, Prices};
use crate::desired::{Desired, Presence, Series, SeriesPoint, desired};
use crate::elapsed::Elapsed;
use crate::inventory::{EngineInventory, Image, ImageKind, Inventory};
use crate::name::PolicyName;
use crate::policy::meant::OnSourceGone;
use crate::policy::sizes::Sizes;
use crate::policy::{Policies, Policy};
use crate::retention::{Point, Retention, retain};

/// What the images of one kind on one engine come to in the long run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SteadyTotal {
    /// Series of sources that are there, in the sums.
    pub series: u64,
    /// Images, copies among them.
    pub images: u64,
    /// Bytes of the images, of those whose size is known.
    pub bytes: u64,
    /// What each policy adds for a while when it captures: that is there before anything goes for it.
    /// Captures that jitter spreads come one after the other, and count once.
    pub captured: BTreeMap<PolicyName, Taken>,
    /// What those cost a month that have a price and a size.
    pub amount: Amount,
    /// Series of policies that never let go of anything: they grow for ever and are in no sum.
    pub endless_series: u64,
    /// Series, or images of sources that are gone, of whose sizes nothing is known: in the sum of
    /// images alone.
    pub unsized_series: u64,
    /// Images with a size that no price fits: in no amount. Zero without a table of prices.
    pub unpriced_images: u64,
}

/// The totals by engine, project and kind of image; the project is empty where an engine has one.
pub type SteadyTotals = BTreeMap<(String, String, ImageKind), SteadyTotal>;

/// What the sources that are there come to in the long run, and what stays for ever of those that are
/// gone. Held images and failed attempts are not looked at.
pub fn steady_totals(policies: &Policies, inventory: &Inventory, now: Timestamp) -> SteadyTotals {
    steady_totals_of(&desired(policies, inventory, now), policies.config.prices.as_ref(), now)
}

/// The same, for those who have asked already what should be.
pub fn steady_totals_of(
    desired: &Desired<'_>,
    prices: Option<&Prices>,
    now: Timestamp,
) -> SteadyTotals {
    let mut known: BTreeMap<(&str, &PolicyName), PolicySteady> = BTreeMap::new();
    let mut totals = SteadyTotals::new();
    for engine in &desired.engines {
        let name = &engine.engine.name;
        for series in &engine.series {
            let policy = series.policy;
            let Presence::Present(instance) = series.state.presence else {
                for image in staying(series, now) {
                    let place = (name.clone(), image.project.clone(), image.kind);
                    let total = totals.entry(place).or_default();
                    total.add(image, name, prices);
                }
                continue;
            };
            let steady = known
                .entry((name, &policy.name))
                .or_insert_with(|| PolicySteady::new(policy, engine.engine, prices, now));
            let place = (name.clone(), instance.project.clone(), policy.capture.kind);
            let total = totals.entry(place).or_default();
            let images = series.points.iter().map(|point| point.image);
            let members = policy.capture.members(instance, &engine.engine.capabilities);
            let capabilities = &engine.engine.capabilities;
            let sizes = Sizes::of(images, policy, Some(instance), capabilities);
            let captured = steady.add(total, sizes, members, prices.is_some());
            total.captures(policy, captured);
        }
    }
    totals
}

/// The READY images of a series without a source that nothing ever lets go of.
fn staying<'a>(series: &Series<'a>, now: Timestamp) -> Vec<&'a Image> {
    let policy = series.policy;
    let retention = match policy.lifecycle.on_source_gone {
        OnSourceGone::Expire => Cow::Owned(Retention::newest()),
        OnSourceGone::Keep | OnSourceGone::Rules => Cow::Borrowed(&policy.retention),
    };
    let mut groups: BTreeMap<Option<&str>, Vec<&SeriesPoint<'a>>> = BTreeMap::new();
    for point in series.points.iter().chain(&series.copies).filter(|point| point.is_ready(now)) {
        let location = point.image.is_copy().then_some(point.image.location.as_str());
        groups.entry(location).or_default().push(point);
    }
    let keeps_all = policy.lifecycle.on_source_gone == OnSourceGone::Keep;
    let last = HORIZON.after(now);
    let mut images = Vec::new();
    for points in groups.into_values() {
        let seen: Vec<Point<'_>> = points
            .iter()
            .map(|point| {
                let (slot, id) = (point.key.slot, point.image.id.as_str());
                Point { slot, id, content: point.image.content(), ready: true, held: false }
            })
            .collect();
        let fates = retain(&seen, &retention, &policy.schedule.zone, last);
        let stays = points.into_iter().zip(fates).filter(|(_, fate)| keeps_all || fate.is_kept());
        images.extend(stays.map(|(point, _)| point.image));
    }
    images
}

impl SteadyTotal {
    /// One source more that a policy captures.
    fn captures(&mut self, policy: &Policy, captured: Taken) {
        let sum = self.captured.entry(policy.name.clone()).or_default();
        *sum = if policy.schedule.jitter > Elapsed::ZERO {
            Taken { images: sum.images.max(captured.images), bytes: sum.bytes.max(captured.bytes) }
        } else {
            sum.plus(captured)
        };
    }

    /// One image more.
    fn add(&mut self, image: &Image, engine: &str, prices: Option<&Prices>) {
        self.images += image.members_there();
        let Some(bytes) = image.stored_bytes else {
            self.unsized_series += 1;
            return;
        };
        self.bytes = self.bytes.saturating_add(bytes);
        match prices.map(|prices| prices.rate(engine, &image.location, image.kind)) {
            Some(Some(rate)) => self.amount = self.amount.plus(Amount::of(bytes, rate)),
            Some(None) => self.unpriced_images += 1,
            None => {}
        }
    }
}

/// What is the same for all sources of a policy.
struct PolicySteady {
    state: Option<SteadyState>,
    /// The price in each location that its images are in, its copies included.
    rates: Vec<Option<u64>>,
}

impl PolicySteady {
    fn new(
        policy: &Policy,
        engine: &EngineInventory,
        prices: Option<&Prices>,
        now: Timestamp,
    ) -> Self {
        let own = match policy.location.as_str() {
            "" => engine.capabilities.locations.first().map_or("", String::as_str),
            location => location,
        };
        let copies = policy.copies.iter().map(String::as_str).filter(|location| *location != own);
        let copies = copies.take(if engine.capabilities.copies { usize::MAX } else { 0 });
        let rate = |location: &str| prices?.rate(&engine.name, location, policy.capture.kind);
        Self {
            state: steady_state(policy, now),
            rates: std::iter::once(own).chain(copies).map(rate).collect(),
        }
    }

    /// A source more, each of whose restore points is so many images. Comes back with what there is
    /// more of it for a while.
    fn add(&self, total: &mut SteadyTotal, sizes: Sizes, members: u64, has_prices: bool) -> Taken {
        let Some(state) = self.state else {
            total.endless_series += 1;
            return Taken::default();
        };
        let locations = self.rates.len() as u64;
        total.series += 1;
        let images = state.images().saturating_mul(locations).saturating_mul(members);
        total.images = total.images.saturating_add(images);
        let captured = state.captured.saturating_mul(locations);
        let captured = Taken {
            images: captured.saturating_mul(members),
            bytes: captured.saturating_mul(sizes.increment),
        };
        if sizes.first == 0 && sizes.increment == 0 {
            total.unsized_series += 1;
            return captured;
        }
        let bytes = state.bytes(sizes);
        total.bytes = total.bytes.saturating_add(bytes.saturating_mul(locations));
        for rate in &self.rates {
            match rate {
                Some(rate) => total.amount = total.amount.plus(Amount::of(bytes, *rate)),
                None if has_prices => total.unpriced_images += state.images(),
                None => {}
            }
        }
        captured
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Capabilities, Disk, FORMAT_VERSION, ImageState, Instance};
    use crate::name::{Key, SourceId};
    use crate::policy::{EngineKind, SourceFile, load};

    const GIB: u64 = 1 << 30;
    const NOW: &str = "2026-11-21T12:00:00Z";

    fn policies(config: &str, policies: &[(&str, &str)]) -> Policies {
        let kind = EngineKind {
            check: |_| Vec::new(),
            name: "memory",
            settings_schema: serde_json::json!({"type": "object"}),
            capabilities: |_| capabilities(),
        };
        let mut text = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{memory: {{memory: {{}}}}}}\n{config}"
        );
        for (name, spec) in policies {
            text.push_str(&format!(
                "---\napiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: {name}}}\nspec:\n{spec}"
            ));
        }
        let loaded = load(vec![SourceFile { path: "all.yaml".to_owned(), text }], &[kind]);
        loaded.policies.unwrap_or_else(|| panic!("{:?}", loaded.findings))
    }

    fn capabilities() -> Capabilities {
        let locations = vec!["near".to_owned(), "far".to_owned()];
        Capabilities { locations, copies: true, ..Capabilities::default() }
    }

    fn inventory(instances: &[(&str, Option<u64>)]) -> Inventory {
        let instance = |(name, gibs): &(&str, Option<u64>)| Instance {
            id: SourceId::parse(name).unwrap(),
            name: (*name).to_owned(),
            zone: String::new(),
            labels: BTreeMap::new(),
            status: String::new(),
            project: String::new(),
            machine_type: String::new(),
            disks: vec![Disk {
                name: "boot".into(),
                boot: true,
                size_bytes: gibs.map(|gibs| gibs * GIB),
                kms_key: None,
                problem: None,
            }],
        };
        let engine = EngineInventory {
            name: "memory".to_owned(),
            kind: "memory".to_owned(),
            identity: "here".to_owned(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: capabilities(),
            instances: instances.iter().map(instance).collect(),
            images: Vec::new(),
        };
        let observed_at = NOW.parse().unwrap();
        Inventory { format_version: FORMAT_VERSION.to_owned(), observed_at, engines: vec![engine] }
    }

    const NIGHTLY: &str = "  source: {match: [{names: [\"web-*\"]}]}\n  schedule: {cron: \"0 2 * * *\"}\n  \
                           lifecycle: {grace: 48h}\n  capture: {kind: machine-image}\n";

    #[test]
    fn images_of_all_sources_and_locations_are_added_up() {
        let nightly = format!("{NIGHTLY}  retention: {{last: 5}}\n  storage: {{copies: [far]}}\n");
        let prices = "  prices: {currency: USD, asOf: 2026-11-01, perGibMonth: [{location: near, price: 0.05}, {location: far, price: 0.01}]}\n";
        let policies = policies(prices, &[("nightly", &nightly)]);
        let inventory =
            inventory(&[("web-1", Some(100)), ("web-2", Some(200)), ("web-3", None), ("db", None)]);
        let totals = steady_totals(&policies, &inventory, NOW.parse().unwrap());
        // Five are kept and two are in their grace: a first one and six of 3 % each.
        let gibs = 300 / 100 * (100 + 6 * 3);
        let bytes = [100_u64, 200].map(|gibs| gibs * GIB + 6 * (gibs * GIB / 100 * 3));
        let bytes: u64 = bytes.iter().sum();
        assert!(bytes.abs_diff(gibs * GIB) < 6_000, "{bytes}");
        let total = &totals[&("memory".to_owned(), String::new(), ImageKind::MachineImage)];
        assert_eq!(
            *total,
            SteadyTotal {
                series: 3,
                images: 3 * 7 * 2,
                bytes: 2 * bytes,
                amount: Amount::of(bytes, 60_000),
                unsized_series: 1,
                // One more of each source in each location, while it is captured.
                captured: BTreeMap::from([(
                    policies.policies[0].name.clone(),
                    Taken { images: 3 * 2, bytes: 2 * (100 * GIB / 100 * 3 + 200 * GIB / 100 * 3) },
                )]),
                ..SteadyTotal::default()
            }
        );
        assert_eq!(totals.len(), 1);
    }

    #[test]
    fn a_set_is_as_many_images_as_it_has_members() {
        let sets = NIGHTLY.replace("machine-image", "snapshot");
        let policies = policies("", &[("nightly", &format!("{sets}  retention: {{last: 5}}\n"))]);
        let mut inventory = inventory(&[("web-1", Some(100)), ("web-2", Some(100))]);
        let first = inventory.engines[0].instances[1].disks[0].clone();
        let second = Disk { name: "data".into(), boot: false, ..first };
        inventory.engines[0].instances[1].disks.push(second);
        let images = |inventory: &Inventory| {
            let totals = steady_totals(&policies, inventory, NOW.parse().unwrap());
            totals[&("memory".to_owned(), String::new(), ImageKind::Snapshot)].images
        };
        assert_eq!(images(&inventory), 2 * 7);
        inventory.engines[0].capabilities.per_disk_kinds = vec![ImageKind::Snapshot];
        assert_eq!(images(&inventory), 3 * 7);
    }

    #[test]
    fn what_stays_of_sources_that_are_gone_counts() {
        let nightly = |gone: &str| {
            format!(
                "{}  retention: {{days: 14, atLeast: 3}}\n",
                NIGHTLY.replace("grace: 48h", &format!("grace: 48h, onSourceGone: {gone}"))
            )
        };
        let prices = "  prices: {currency: USD, asOf: 2026-11-01, perGibMonth: [{location: near, price: 0.05}]}\n";
        for (gone, stay) in [("rules", 3), ("keep", 8), ("expire", 1)] {
            let policies = policies(prices, &[("nightly", &nightly(gone))]);
            let slots = policies.policies[0].schedule.last_slots(NOW.parse().unwrap(), 8);
            let mut inventory = inventory(&[]);
            inventory.engines[0].images = slots
                .into_iter()
                .map(|slot| {
                    let policy = policies.policies[0].name.clone();
                    let key = Key { policy, source: SourceId::parse("web-1").unwrap(), slot };
                    let at = slot.instant();
                    let kind = ImageKind::MachineImage;
                    let near = "near".to_owned();
                    let mut image =
                        super::super::state::simulated(kind, near, ImageState::Ready, slot, at);
                    image.labels = key.labels();
                    image.stored_bytes = Some(GIB);
                    image
                })
                .collect();
            let totals = steady_totals(&policies, &inventory, NOW.parse().unwrap());
            let total = &totals[&("memory".to_owned(), String::new(), ImageKind::MachineImage)];
            assert_eq!((total.series, total.images, total.bytes), (0, stay, stay * GIB), "{gone}");
            assert_eq!(total.amount, Amount::of(stay * GIB, 50_000), "{gone}");
        }
    }

    #[test]
    fn what_has_no_end_and_what_has_no_price_is_said() {
        let kept = format!("{NIGHTLY}  retention: {{}}\n");
        let other = NIGHTLY.replace("machine-image", "snapshot").replace("web-*", "db");
        let other = format!("{other}  retention: {{last: 1}}\n  storage: {{copies: [far]}}\n");
        let prices = "  prices: {currency: USD, asOf: 2026-11-01, perGibMonth: [{location: near, price: 0.05}]}\n";
        let policies = policies(prices, &[("endless", &kept), ("other", &other)]);
        let inventory = inventory(&[("web-1", Some(100)), ("db", Some(100))]);
        let totals = steady_totals(&policies, &inventory, NOW.parse().unwrap());
        let endless = &totals[&("memory".to_owned(), String::new(), ImageKind::MachineImage)];
        assert_eq!((endless.series, endless.images, endless.endless_series), (0, 0, 1));
        let snapshots = &totals[&("memory".to_owned(), String::new(), ImageKind::Snapshot)];
        assert_eq!((snapshots.images, snapshots.unpriced_images), (6, 3));
        assert_eq!(snapshots.amount, Amount::of(snapshots.bytes / 2, 50_000));
    }

    #[test]
    fn blackouts_that_return_leave_slots_out() {
        let weekdays = format!(
            "{NIGHTLY}  retention: {{days: 14}}\n  blackouts: [{{cron: \"0 0 * * sat,sun\", duration: 26h, reason: rest}}, {{from: 2026-11-01, until: 2026-11-20, reason: move}}]\n"
        );
        let policies = policies("", &[("nightly", &weekdays)]);
        let inventory = inventory(&[("web-1", Some(1))]);
        let totals = steady_totals(&policies, &inventory, NOW.parse().unwrap());
        // It is a Saturday. Of fourteen days ten are weekdays; one slot of the two days before that
        // was one.
        let total = &totals[&("memory".to_owned(), String::new(), ImageKind::MachineImage)];
        assert_eq!(total.images, 10 + 1);
    }
}
