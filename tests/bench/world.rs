//! A large installation, the same on every run: its policy files and its inventory.

use std::collections::BTreeMap;

use jiff::Timestamp;
use stillframe::inventory::{
    Capabilities, Disk, EngineInventory, FORMAT_VERSION, Image, ImageKind, ImageSource, ImageState,
    Instance, Inventory, LABEL_LET_GO, LABEL_STAGED, Stage,
};
use stillframe::name::{Key, PolicyName, Slot, SourceId, stamp};
use stillframe::policy::{EngineKind, Policies, SourceFile, load};

/// Images of each instance.
pub const IMAGES: usize = 10;
/// Instances of each policy.
const SOURCES: usize = 100;
const GIB: u64 = 1 << 30;
const DAY: i64 = 86_400;
/// 2027-01-15, noon in UTC.
const NOON: i64 = 1_800_014_400;
const ZONES: [&str; 8] = [
    "us-central1-a",
    "us-central1-b",
    "us-east1-b",
    "us-east1-c",
    "europe-west1-b",
    "europe-west1-d",
    "asia-east1-a",
    "asia-east1-b",
];

/// The instant of the plan.
pub fn now() -> Timestamp {
    Timestamp::from_second(NOON).unwrap()
}

/// What the installation's engine takes and can do.
pub fn kind() -> EngineKind {
    EngineKind {
        check: |_| Vec::new(),
        name: "memory",
        settings_schema: serde_json::json!({"type": "object"}),
        capabilities: |_| Capabilities::default(),
    }
}

/// The hour of a policy's daily slot.
fn hour(policy: usize) -> usize {
    // Not in an hour that a clock change touches.
    if is_due(policy) { 10 } else { 4 + policy % 8 }
}

/// Today's run of one policy in a hundred has not been yet.
fn is_due(policy: usize) -> bool {
    policy % 100 == 7
}

/// How policies say what they mean: one label, the beginning of a name, several labels with a
/// zone, names one by one.
fn source(policy: usize) -> String {
    match policy % 10 {
        0..=4 => format!(
            "    match:\n      - labels: {{service: service-{policy}, env: production}}\n    exclude:\n      - labels: {{backup: \"false\"}}\n"
        ),
        5..=7 => format!("    match:\n      - names: [\"service-{policy}-*\"]\n"),
        8 => format!(
            "    match:\n      - labels: {{service: [service-{policy}, service-{policy}-canary], env: production}}\n        zones: [\"us-*\", \"europe-*\", \"asia-*\"]\n"
        ),
        _ => {
            let names: Vec<String> =
                (0..SOURCES).map(|source| format!("\"service-{policy}-{source:03}\"")).collect();
            format!("    match:\n      - names: [{}]\n", names.join(", "))
        }
    }
}

fn retention(policy: usize) -> &'static str {
    match policy % 10 {
        0..=5 => "{days: 14, weekly: 4, monthly: 6, atLeast: 2}",
        6..=8 => "{daily: 14, weekly: 8, monthly: 12, yearly: 2}",
        _ => "{daily: 9, weekly: 3, atLeast: 3}",
    }
}

/// One policy as a team writes it.
pub fn policy_text(policy: usize) -> String {
    let zone = ["UTC", "America/New_York", "Europe/Berlin"][policy % 3];
    format!(
        "# yaml-language-server: $schema=../schemas/policy.schema.json\n\
         apiVersion: stillframe/v1\n\
         kind: BackupPolicy\n\
         metadata:\n\
         \x20 name: service-{policy}-nightly\n\
         \x20 owner: team-{}\n\
         \x20 description: Every night, for service {policy}\n\
         spec:\n\
         \x20 source:\n\
         {}\
         \x20 schedule:\n\
         \x20   cron: \"{} {} * * *\"\n\
         \x20   timeZone: {zone}\n\
         \x20   deadline: 4h\n\
         \x20 retention: {}\n\
         \x20 lifecycle:\n\
         \x20   grace: 24h\n\
         \x20 labels: {{service: service-{policy}, cost-center: \"{}\"}}\n",
        policy % 50,
        source(policy),
        policy % 5,
        hour(policy),
        retention(policy),
        4_700 + policy % 50,
    )
}

/// The configuration and so many policies, a file each.
pub fn files(policies: usize) -> Vec<SourceFile> {
    let config = SourceFile {
        path: "policies/stillframe.yaml".to_owned(),
        text: "apiVersion: stillframe/v1\nkind: Config\n\
               metadata: {allow: [{code: same-minute, reason: generated}]}\n\
               spec:\n  engines: {memory: {memory: {}}}\n\
               \x20 defaults:\n    labels: {managed-in: git}\n"
            .to_owned(),
    };
    let policies = (0..policies).map(|policy| SourceFile {
        path: format!("policies/service-{policy:05}.yaml"),
        text: policy_text(policy),
    });
    std::iter::once(config).chain(policies).collect()
}

pub fn policies(count: usize) -> Policies {
    load(files(count), &[kind()]).policies.expect("the policies are valid")
}

fn instance(number: usize) -> Instance {
    let (policy, source) = (number / SOURCES, number % SOURCES);
    let mut labels = BTreeMap::from([
        ("service".to_owned(), format!("service-{policy}")),
        ("env".to_owned(), "production".to_owned()),
        ("team".to_owned(), format!("team-{}", policy % 50)),
    ]);
    if source == 99 {
        labels.insert("backup".to_owned(), "false".to_owned());
    }
    Instance {
        id: id(number),
        name: format!("service-{policy}-{source:03}"),
        zone: ZONES[source % ZONES.len()].to_owned(),
        labels,
        status: "RUNNING".to_owned(),
        project: String::new(),
        machine_type: "e2-standard-4".to_owned(),
        disks: vec![Disk {
            name: "boot".to_owned(),
            boot: true,
            size_bytes: Some(50 * GIB),
            kms_key: None,
            problem: None,
        }],
    }
}

/// Ids as clouds give them: nineteen digits without any order.
fn id(number: usize) -> SourceId {
    SourceId::parse(&unordered(number as u64).to_string()).unwrap()
}

fn unordered(number: u64) -> u64 {
    1_000_000_000_000_000_000
        + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 8_000_000_000_000_000_000
}

/// The image of an instance that is so many runs old.
fn image(number: usize, age: usize) -> Image {
    let policy = number / SOURCES;
    let zone = [0, 5, -1][policy % 3];
    let mut slot = NOON - 12 * 3_600 + (hour(policy) as i64 + zone) * 3_600;
    slot += (policy % 5) as i64 * 60 - age as i64 * DAY;
    if slot > NOON || is_due(policy) {
        slot -= DAY;
    }
    let slot = Timestamp::from_second(slot).unwrap();
    let key = Key {
        policy: PolicyName::parse(&format!("service-{policy}-nightly")).unwrap(),
        source: id(number),
        slot: Slot::at(slot),
    };
    let mut labels = key.labels();
    labels.insert("service".to_owned(), format!("service-{policy}"));
    labels.insert("cost-center".to_owned(), (4_700 + policy % 50).to_string());
    labels.insert("managed-in".to_owned(), "git".to_owned());
    // What was let go and is to be deleted now, or soon.
    let is_over = policy % 10 == 9 && age + 1 == IMAGES;
    if is_over {
        let hours = if number % SOURCES < 20 { 25 } else { 12 };
        let since = stamp(Timestamp::from_second(NOON - hours * 3_600).unwrap());
        labels.insert(LABEL_LET_GO.to_owned(), since.clone());
        labels.insert(LABEL_STAGED.to_owned(), since);
    }
    let name = key.image_name(&key.default_prefix());
    Image {
        family: None,
        sharing: None,
        id: unordered((number * IMAGES + age) as u64 + 1_000_000_000).to_string(),
        name,
        kind: ImageKind::MachineImage,
        state: ImageState::Ready,
        stage: if is_over { Stage::Deprecated } else { Stage::Active },
        created_at: slot,
        location: "us".to_owned(),
        kms_key: None,
        labels,
        source: Some(ImageSource {
            id: key.source.clone(),
            name: format!("service-{policy}-{:03}", number % SOURCES),
        }),
        stored_bytes: Some(GIB + number as u64 * 4_096),
        disk_bytes: Some(50 * GIB),
        fingerprint: format!("{:016x}", unordered((number * IMAGES + age) as u64)),
        disks: None,
        project: String::new(),
        in_use_by: Vec::new(),
        message: None,
    }
}

/// So many instances and ten images of each, in the order in which they were made.
pub fn inventory(instances: usize) -> Inventory {
    let images =
        (0..IMAGES).rev().flat_map(|age| (0..instances).map(move |number| image(number, age)));
    Inventory {
        format_version: FORMAT_VERSION.to_owned(),
        observed_at: now(),
        engines: vec![EngineInventory {
            name: "memory".to_owned(),
            kind: "memory".to_owned(),
            identity: "here".to_owned(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: Capabilities::default(),
            instances: (0..instances).map(instance).collect(),
            images: images.collect(),
        }],
    }
}

/// The same with so many sources of each of so many policies, and so many images of each.
pub fn spread(policies: usize, sources: usize, images: usize) -> Inventory {
    let numbers: Vec<usize> = (0..policies)
        .flat_map(|policy| (0..sources).map(move |source| policy * SOURCES + source))
        .collect();
    let mut inventory = inventory(0);
    for engine in &mut inventory.engines {
        engine.instances = numbers.iter().copied().map(instance).collect();
        let aged =
            (0..images).rev().flat_map(|age| numbers.iter().map(move |one| image(*one, age)));
        engine.images = aged.collect();
    }
    inventory
}

/// The policies that so many instances have.
pub fn policies_of(instances: usize) -> usize {
    instances.div_ceil(SOURCES)
}
