//! What goes wrong between the engine for TWCC and its service. Each case ends with a round that has
//! nothing to do.

mod begun;
mod bound;
mod queue;
mod sight;
mod twins;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use serde_json::{Value, json};
use stillframe::apply::{Ending, Stop};
use stillframe::clock::Clock;
use stillframe::engine::http::Pause;
use stillframe::engine::twcc::TwccEngine;
use stillframe::engine::{
    Created, Engine, EngineError, Progress, Topic, Unwatched, Verdict, Wanted, Watcher,
};
use stillframe::inventory::{GapScope, Image, ImageState, LABEL_HOLD};
use stillframe::name::Ownership;
use stillframe::plan::ImageRef;
use stillframe::reconcile::Round;

use super::super::{Bench, Case, Quiet, Yes, clock, key_of, noon, room};
use super::{Served, Trouble};

const PLATFORM: &str = "openstack-taichung-default-2";

/// What goes wrong, each on a day on which two points are made, two let go and two deleted.
macro_rules! troubles {
    ($($name:ident($script:expr))*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let trouble = Trouble::over(Served::twcc()).await;
                trouble.case.round(2).await;
                trouble.day(3, &[$script]).await;
                trouble.ends_well(3).await;
            }
        )*
    };
}

troubles! {
    an_answer_about_a_new_image_is_lost(json!({"fault": "reply-lost", "method": "PUT", "times": 2}))
    an_answer_about_a_new_snapshot_is_lost(json!({"fault": "reply-lost", "method": "POST", "times": 3}))
    answers_about_deleted_images_are_lost(json!({"fault": "reply-lost", "method": "DELETE", "times": 2}))
    answers_about_descriptions_are_lost(json!({"fault": "reply-lost", "method": "PATCH", "times": 2}))
    the_gateway_answers_with_pages_of_html(json!({"fault": "bad-gateway", "times": 3}))
    new_images_meet_a_page_of_html(json!({"fault": "bad-gateway", "method": "PUT", "times": 2}))
    there_were_too_many_requests(json!({"fault": "too-many-requests", "times": 6}))
    new_images_were_too_many(json!({"fault": "too-many-requests", "method": "PUT", "times": 2}))
    new_images_end_with_an_error(json!({"fault": "failed-job", "method": "PUT", "times": 2}))
    new_snapshots_end_with_an_error(json!({"fault": "failed-job", "method": "POST", "times": 1}))
    new_images_vanish(json!({"fault": "vanishing", "method": "PUT", "times": 2}))
    new_images_are_sent_to_the_login_page(json!({"fault": "login", "method": "PUT", "times": 2}))
}

/// What happens while an engine waits: something at each pause, counted from 0.
struct Meanwhile<F> {
    count: AtomicUsize,
    act: F,
    patient: Arc<dyn Pause>,
}

#[async_trait]
impl<F, A> Pause for Meanwhile<F>
where
    F: Fn(usize, Duration) -> A + Send + Sync,
    A: Future<Output = ()> + Send,
{
    async fn pause(&self, time: Duration) {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        (self.act)(number, time).await;
        self.patient.pause(time).await;
    }
}

/// Hears what is waited for, and has enough then if it is to.
#[derive(Default)]
struct Hears {
    heard: Mutex<Vec<String>>,
    has_enough: bool,
    is_over: AtomicBool,
}

impl Hears {
    fn and_has_enough() -> Self {
        Self { has_enough: true, ..Self::default() }
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().join("\n")
    }
}

impl Watcher for Hears {
    fn progress(&self, _: Progress) {}

    fn waits(&self, why: &str) {
        self.heard.lock().unwrap().push(why.to_owned());
        self.is_over.fetch_or(self.has_enough, Ordering::SeqCst);
    }

    fn is_cancelled(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

impl Served {
    /// Asks the service itself, as a person would with a program of their own.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.answer(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status}");
        answer
    }

    async fn answer(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/api/v3/{PLATFORM}/{path}/", self.address);
        let mut request = client.request(method.parse().unwrap(), url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    /// The images that are there and stay.
    async fn images(&self) -> Vec<Value> {
        self.of("images").await
    }

    async fn of(&self, collection: &str) -> Vec<Value> {
        let mut all = self.ask("GET", collection, None).await.as_array().unwrap().clone();
        all.retain(|one| one["status"] != "DELETING");
        all
    }

    async fn desc(&self, path: &str) -> String {
        self.ask("GET", path, None).await["desc"].as_str().unwrap().to_owned()
    }

    async fn describe(&self, path: &str, desc: &str) {
        self.ask("PATCH", path, Some(json!({"desc": desc}))).await;
    }

    /// Lets time pass for the service, and for engines that are opened with [`Served::engine`].
    fn pass(&self, time: Duration) {
        let mut now = self.clock.0.lock().unwrap();
        *now += SignedDuration::try_from(time).unwrap();
    }

    fn engine_of(&self, more: &Value, pause: Arc<dyn Pause>) -> TwccEngine {
        let mut settings =
            json!({"project": "GOV000001", "endpoint": format!("http://{}", self.address)});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        TwccEngine::open("memory", &settings, Path::new("/nowhere"), self.clock.clone(), pause)
            .unwrap()
    }

    /// An engine that has the clock of the service, and has something done at its pauses.
    fn engine<F, A>(&self, act: F) -> TwccEngine
    where
        F: Fn(usize, Duration) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        self.engine_of(&json!({}), self.meanwhile(act))
    }

    /// Has something done at each pause.
    fn meanwhile<F, A>(&self, act: F) -> Arc<dyn Pause>
    where
        F: Fn(usize, Duration) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        Arc::new(Meanwhile { count: AtomicUsize::new(0), act, patient: self.patient() })
    }
}

/// The path of an image or a snapshot by its id.
fn path(id: &str) -> String {
    let own = id.rsplit_once('/').unwrap().1;
    let collection = if own.starts_with('i') { "images" } else { "snapshots" };
    format!("{collection}/{}", &own[1..])
}

/// The paths of the members of a restore point, that of its image first.
fn paths(id: &str) -> Vec<String> {
    stillframe::engine::set::member_ids(id).iter().map(|id| path(id)).collect()
}

/// A case over restore points of system disks.
fn case(service: &Arc<Served>, spec: &'static str) -> Case {
    let bench = Box::new(Arc::clone(service));
    Case { bench, directory: tempfile::tempdir().unwrap(), spec }
}

fn failures(round: &Round) -> Vec<&str> {
    round
        .outcomes
        .iter()
        .filter_map(|outcome| match &outcome.ending {
            Ending::Failed { message } => Some(message.as_str()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_job_that_never_begins_is_told_and_not_asked_for_again() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "  retention: {last: 1}\n  lifecycle: {grace: 0}\n");
    case.round(0).await;
    service.fault(json!({"fault": "stuck", "method": "PUT"})).await;
    let round = case.round(1).await;
    let [message] = failures(&round)[..] else { panic!("{:?}", round.outcomes) };
    let images = service.images().await;
    let stuck = images.iter().find(|image| image["status"] == "QUEUED").unwrap();
    let (image, server) = (stuck["id"].to_string(), stuck["server"]["id"].clone());
    for part in [
        "isupport@twcc.ai",
        "site 700",
        &format!("server {server}"),
        &format!("image {image}"),
        "QUEUED since 2026-11-22T12:00:00Z",
    ] {
        assert!(message.contains(part), "{message}");
    }
    // The slot is taken: the same day asks for nothing more, and nothing was let go for it.
    case.round(1).await;
    case.nothing_to_do(1).await;
    assert_eq!(service.images().await.len(), 3);
    let seen = case.observe(2).await.images;
    let seen = seen.iter().find(|one| one.id.ends_with(&image)).unwrap();
    assert_eq!(seen.state, ImageState::Creating);
    assert!(seen.message.as_ref().unwrap().contains("isupport@twcc.ai"));
    // The next day nothing is asked of that site, and the other one goes on.
    let round = case.round(2).await;
    let [message] = failures(&round)[..] else { panic!("{:?}", round.outcomes) };
    assert!(message.contains(&format!("image {image}")), "{message}");
    let of_server =
        |images: &[Value]| images.iter().filter(|one| one["server"]["id"] == server).count();
    assert_eq!(of_server(&service.images().await), 2);
    // Somebody takes it away, and the day is made up for.
    service.ask("DELETE", &format!("images/{image}"), None).await;
    for _ in 0..2 {
        case.round(2).await;
    }
    case.nothing_to_do(2).await;
    let images = case.observe(2).await.images;
    assert!(images.iter().all(|image| image.state == ImageState::Ready), "{images:#?}");
    assert_eq!(images.len(), 2);
}

#[tokio::test]
async fn of_two_images_of_one_name_each_is_what_it_is() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "  retention: {last: 1}\n  lifecycle: {grace: 0}\n");
    service.fault(json!({"fault": "duplicate", "method": "PUT"})).await;
    case.round(0).await;
    let images = case.observe(0).await.images;
    assert_eq!(images.len(), 3);
    // One of the two is more than the rule keeps: it is let go, and deleted by its number.
    let round = case.round(0).await;
    assert_eq!((round.plan.summary.create, round.plan.summary.deprecate), (0, 1));
    case.round(0).await;
    case.nothing_to_do(0).await;
    let left = case.observe(0).await.images;
    assert_eq!(left.len(), 2);
    let sources: Vec<_> = left.iter().map(|image| key_of(image).source).collect();
    assert_ne!(sources[0], sources[1], "each machine has kept one");
}

#[tokio::test]
async fn an_image_of_the_same_name_by_somebody_else_is_left_alone() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    let request = case.request(0);
    let server = service.ask("GET", "servers", None).await[0]["id"].to_string();
    let body = json!({"name": request.name, "desc": "by hand", "os": "Linux", "os_version": "1"});
    service.ask("PUT", &format!("images/{server}/save"), Some(body)).await;
    let engine = service.open(clock(0));
    let refused = engine.create(request.clone(), Arc::new(Unwatched)).await;
    assert_eq!(refused, Err(EngineError::NameTaken(request.name)));
    assert_eq!(service.images().await.len(), 1);
}

#[tokio::test]
async fn an_edited_description_never_leads_to_a_delete() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "  retention: {last: 1}\n  lifecycle: {grace: 0}\n");
    for day in 0..2 {
        case.round(day).await;
    }
    // Both old points are let go, and would be deleted in the next round.
    let images = case.observe(1).await.images;
    let old: Vec<_> = images.iter().filter(|image| image.let_go_at().is_some()).collect();
    let [damaged, kept] = old[..] else { panic!("{images:#?}") };
    let desc = |id: &str| {
        let (service, path) = (Arc::clone(&service), path(id));
        async move { service.desc(&path).await }
    };
    let cut = desc(&damaged.id).await.replace("sf1:nightly", "sf1:nightle");
    service.describe(&path(&damaged.id), &cut).await;
    let hold = format!("請保留{LABEL_HOLD} {}", desc(&kept.id).await);
    service.describe(&path(&kept.id), &hold).await;
    for _ in 0..2 {
        case.round(2).await;
    }
    let left = case.observe(2).await.images;
    let find = |id: &str| left.iter().find(|image| image.id == id).unwrap();
    assert!(matches!(find(&damaged.id).ownership(), Ownership::Broken(_)));
    assert!(find(&damaged.id).message.as_ref().unwrap().contains("damaged"));
    assert!(find(&kept.id).is_held(noon(2)));
    assert_eq!(desc(&damaged.id).await, cut, "it is not written over either");
    case.round(2).await;
    case.nothing_to_do(2).await;
}

#[tokio::test]
async fn what_is_made_of_an_image_keeps_it() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    case.round(0).await;
    let images = case.observe(0).await.images;
    // The servers here say that they were made of an image named so.
    assert!(images.iter().all(|image| image.in_use_by.is_empty()));
    let engine = service.open(clock(0));
    let server = service.ask("GET", "servers", None).await[0].clone();
    let name = server["image"].as_str().unwrap();
    let path = format!("images/{}/save", server["id"]);
    let body = json!({"name": name, "desc": "", "os": "Linux", "os_version": "1"});
    service.ask("PUT", &path, Some(body)).await;
    let images = case.observe(0).await.images;
    let base = images.iter().find(|image| image.name == name).unwrap();
    assert!(base.in_use_by.len() > 1, "{:?}", base.in_use_by);
    let refused = engine.delete(&ImageRef::of(base)).await;
    assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_list_that_is_not_whole_is_a_gap_and_deletes_nothing() {
    let trouble = Trouble::over(Served::twcc()).await;
    trouble.case.round(2).await;
    for (collection, scope) in [
        ("images", GapScope::Images),
        ("snapshots", GapScope::Images),
        ("sites", GapScope::Instances),
    ] {
        for fault in ["unreadable-entry", "login"] {
            let script = json!({"fault": fault, "collection": collection, "method": "GET"});
            trouble.served.fault(script.clone()).await;
            let inventory = trouble.case.observe(3).await;
            let gaps: Vec<GapScope> = inventory.gaps.iter().map(|gap| gap.scope).collect();
            assert_eq!(gaps, [scope], "{fault} of {collection}");
        }
    }
    let script = json!({"fault": "unreadable-entry", "collection": "snapshots", "times": 20});
    let round = trouble.day(3, &[script]).await;
    assert_eq!((round.plan.summary.deprecate, round.plan.summary.delete), (0, 0));
    // Until nothing is left of the fault.
    for _ in 0..20 {
        trouble.served.answer("GET", "snapshots", None).await;
    }
    trouble.ends_well(3).await;
}

#[tokio::test]
async fn no_redirection_is_followed() {
    let service = Served::twcc();
    service.fault(json!({"fault": "login", "times": 1})).await;
    let engine = service.open(clock(0));
    let inventory = engine.observe().await;
    assert!(inventory.gaps.iter().all(|gap| gap.message.contains("redirection (HTTP 302)")));
    assert_eq!(inventory.gaps.len(), 2);
    assert_eq!(engine.calls().unwrap().sent, 1);
}

#[tokio::test]
async fn a_set_is_begun_with_its_image_and_ends_with_it() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    let engine = service.open(clock(0));
    let created = engine.create(case.request(0), Arc::new(Unwatched)).await.unwrap();
    assert!(matches!(created, Created::Made(_)));
    let image = created.image().clone();
    assert_eq!((image.members(), image.state), (2, ImageState::Ready));
    let own = &case.observe(0).await.images;
    assert_eq!(own, std::slice::from_ref(&image));
    // All carry the name of the restore point, and the disk in their record.
    let snapshots = service.ask("GET", "snapshots", None).await;
    for snapshot in snapshots.as_array().unwrap() {
        assert_eq!(snapshot["name"], image.name);
        let disk = format!(";m=2.{};", snapshot["volume"]["id"].as_str().unwrap());
        assert!(snapshot["desc"].as_str().unwrap().contains(&disk), "{snapshot}");
    }
    // The image cannot be deleted: then the marks are there as long as anything is.
    let refusal = json!({"fault": "login", "method": "DELETE", "collection": "images", "times": 9});
    service.fault(refusal).await;
    assert!(engine.delete(&ImageRef::of(&image)).await.is_err());
    assert_eq!(service.images().await.len(), 1);
    assert_eq!(service.ask("GET", "snapshots", None).await, json!([]));
    let seen = case.observe(0).await.images;
    assert_eq!((seen.len(), seen[0].ownership()), (1, image.ownership()));
    assert_ne!(seen[0].state, ImageState::Ready);
}

#[tokio::test]
async fn a_site_that_is_neither_up_nor_down_waits() {
    let service = Served::twcc_with_system_disks();
    service.datacenter.edit("examples/datacenter/instances/web-1.yaml", |text| {
        text.replace("status: RUNNING", "status: SUSPENDED")
    });
    let case = case(&Arc::new(service), "");
    let engine = case.bench.open(clock(0));
    let refused = engine.create(case.request(0), Arc::new(Unwatched)).await;
    let Err(EngineError::Busy(message)) = refused else { panic!("{refused:?}") };
    assert!(message.contains("Ready or NotReady"), "{message}");
}

#[tokio::test]
async fn all_is_there_after_a_restart() {
    let service = Served::twcc();
    {
        let engine = service.open(clock(0));
        let case = Case {
            bench: Box::new(Served::twcc()),
            directory: tempfile::tempdir().unwrap(),
            spec: "",
        };
        engine.create(case.request(0), Arc::new(Unwatched)).await.unwrap();
    }
    let before = service.open(clock(0)).observe().await.images;
    assert_eq!(before.len(), 1);
    let service = service.restarted();
    assert_eq!(service.open(clock(0)).observe().await.images, before);
}

#[tokio::test]
async fn what_is_wrong_is_told_and_no_key() {
    let service = Served::twcc();
    let engine = service.open(clock(0));
    let verdicts = |found: &[stillframe::engine::Examined]| {
        found.iter().map(|one| (one.topic, one.verdict)).collect::<Vec<_>>()
    };
    let found = engine.examine(&Wanted::default()).await;
    assert!(found.iter().all(|one| one.verdict != Verdict::Wrong), "{found:?}");
    assert!(verdicts(&found).contains(&(Topic::Instances, Verdict::Well)));
    let directory = tempfile::tempdir().unwrap();
    let secret = "12345678-1234-1234-1234-12345678901X";
    std::fs::write(directory.path().join("key"), secret).unwrap();
    let of = |fields: Value| {
        let mut settings =
            json!({"project": "GOV000001", "endpoint": format!("http://{}", service.address)});
        settings.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let pause = service.patient();
        TwccEngine::open("e", &settings, directory.path(), clock(0), pause).unwrap()
    };
    let bad = of(json!({"apiKeyFile": "key"}));
    let told = format!("{:?}", bad.examine(&Wanted::default()).await);
    assert!(told.contains("8-4-4-4-12") && !told.contains(secret), "{told}");
    let gaps = format!("{:?}", bad.observe().await.gaps);
    assert!(gaps.contains("8-4-4-4-12") && !gaps.contains(secret), "{gaps}");
    let missing = of(json!({"apiKeyFile": "nowhere"})).examine(&Wanted::default()).await;
    assert_eq!(verdicts(&missing)[0], (Topic::Credentials, Verdict::Wrong));
    let other = of(json!({"project": "GOV999999"})).examine(&Wanted::default()).await;
    assert!(verdicts(&other).contains(&(Topic::Settings, Verdict::Wrong)), "{other:?}");
}
