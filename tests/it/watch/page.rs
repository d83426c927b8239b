//! The page: what it may do, who sees what it shows, and that no name is ever markup.

use std::sync::Arc;

use serde_json::Value;
use stillframe::apply::{Ending, Outcome};
use stillframe::clock::{Clock, SystemClock};
use stillframe::coverage::coverage;
use stillframe::engine::Engine;
use stillframe::inventory::{Inventory, LABEL_HOLD};
use stillframe::policy::{Policies, SourceFile, load};
use stillframe::report::overview::{
    CONTENT_POLICY, Overview, carried_out, engine_overview, page, policy_rows, shell,
};
use stillframe::watch::{Access, Pace, Post, Token, listen, serve};
use tempfile::{NamedTempFile, TempDir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::memory::{MemoryEngine, image, instance};
use super::super::schemas::{assert_holds, validator};
use super::super::support::{has_ended, silent};
use super::{Running, Script, kind, text};

const ODD: &str = "</script><script>alert(1)</script>\u{202e}<img src=x>";
const DAILY: &str = "  source: {match: [{labels: {backup: daily}}]}\n  schedule: {cron: \"0 2 * * *\"}\n  \
                     retention: {daily: 7, weekly: 4, atLeast: 2}\n  objectives: {rpo: 26h}\n";

fn engine(clock: Arc<dyn Clock>) -> Arc<MemoryEngine> {
    let engine = MemoryEngine::named("one", clock);
    for name in ["web-1", "web-2"] {
        engine.add(instance(name, &[("backup", "daily")]));
    }
    let mut odd = instance("odd", &[("backup", "daily")]);
    ODD.clone_into(&mut odd.name);
    engine.add(odd);
    engine.add(instance("alone", &[]));
    engine
}

/// A watch whose page is asked for.
struct Site {
    _directory: TempDir,
    address: String,
    running: Running,
}

impl Site {
    async fn start(access: Access) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let directory = tempfile::tempdir().unwrap();
        let script = Script::new(
            &text(&["one"], "", &[("daily", "one", DAILY)]),
            vec![engine(Arc::clone(&clock))],
            directory.path(),
        );
        let courier = Arc::new(Post::new(|_| None));
        let running = Running::with(script, Arc::clone(&clock), Pace::default(), courier);
        running.status.keep_page();
        let listener = listen("127.0.0.1:0".parse().unwrap(), &access).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (status, bell) = (Arc::clone(&running.status), running.bell.clone());
        tokio::spawn(serve(listener, status, clock, access, bell));
        running
            .status
            .until(|snapshot| snapshot.engines.values().any(|engine| engine.overview.is_some()))
            .await;
        Self { _directory: directory, address, running }
    }

    async fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let host = if headers.contains("Host:") {
            String::new()
        } else {
            format!("Host: {}\r\n", self.address)
        };
        let request = format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| *found == name).map_or("", |(_, value)| value)
}

#[tokio::test]
async fn the_page_says_what_is_protected_and_is_sent_once() {
    let site = Site::start(Access::Loopback).await;
    let (status, head, body) = site.get("/", "").await;
    assert_eq!((status, body.as_str()), (200, shell().as_str()));
    let policy = header(&head, "content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe"), "{policy}");
    let tag = header(&head, "etag").to_owned();
    assert_eq!(site.get("/", &format!("If-None-Match: {tag}\r\n")).await.0, 304);
    let (status, head, body) = site.get("/page.json", "").await;
    assert_eq!(status, 200, "{body}");
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_holds(&validator("page"), &document, "the page");
    let one = &document["engines"][0];
    assert_eq!((&one["sources"].as_array().unwrap().len(), &one["instances"]), (&3, &4.into()));
    assert_eq!(one["unprotected"][0]["name"], "alone");
    assert_eq!(document["rounds"][0]["engine"], "one");
    assert_eq!(one["plan"]["carried_out"], true);
    assert_eq!(document["policies"][0]["schedule"], "0 2 * * * UTC");
    // A name that would turn the writing is shown as what it is.
    assert!(!body.contains('\u{202e}') && body.contains("u{202e}"), "{body}");
    let tag = header(&head, "etag").to_owned();
    let again = site.get("/page.json", &format!("If-None-Match: \"x\", {tag}\r\n")).await;
    assert_eq!((again.0, again.2.as_str()), (304, ""));
    // A round that follows changes it.
    let before = site.running.status.snapshot().page_version;
    site.running.bell.reload();
    site.running.status.until(|snapshot| snapshot.page_version > before).await;
    assert_eq!(site.get("/page.json", &format!("If-None-Match: {tag}\r\n")).await.0, 200);
    // A page of another site, under a name of its own.
    let (status, _, body) = site.get("/page.json", "Host: evil.example\r\n").await;
    assert_eq!((status, body.as_str()), (403, "not from here\n"));
    assert_eq!(site.get("/nothing", "").await.0, 404);
}

/// A file with a token.
fn token(text: &str) -> (NamedTempFile, Access) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let access = Access::Token(Arc::new(Token::open(file.path().to_owned()).unwrap()));
    (file, access)
}

#[tokio::test]
async fn only_a_token_opens_what_the_page_shows() {
    let (file, access) = token("0123456789abcdef");
    let site = Site::start(access).await;
    assert_eq!(site.get("/", "").await.0, 200, "it says nothing, and asks for the token");
    for wrong in ["", "Authorization: Bearer 0123456789abcde\r\n", "Authorization: Basic x\r\n"] {
        let (status, _, body) = site.get("/page.json", wrong).await;
        assert_eq!(status, 401, "{wrong}");
        assert!(!body.contains("web-1"));
    }
    let right = "Authorization: Bearer 0123456789abcdef\r\n";
    assert!(site.get("/page.json", right).await.2.contains("web-1"));
    // It is renewed.
    std::fs::write(file.path(), "fedcba9876543210\n").unwrap();
    assert_eq!(site.get("/page.json", right).await.0, 401);
    let renewed = "Authorization: Bearer fedcba9876543210\r\n";
    assert!(site.get("/page.json", renewed).await.2.contains("web-1"));
}

#[tokio::test]
async fn who_says_nothing_takes_no_more_than_some_connections() {
    let (_file, access) = token("0123456789abcdef");
    let site = Site::start(access).await;
    // No more than the system takes for who listens: here nobody does meanwhile.
    let silent = silent(&site.address, 100);
    assert_eq!(site.get("/healthz", "").await.0, 200);
    // Who was answered had the place of one of the first.
    let open = silent.iter().filter(|stream| !has_ended(stream)).count();
    assert!(open < 64 && has_ended(&silent[0]), "{open} of {} are open", silent.len());
}

fn policies(spec: &str) -> Policies {
    let text = text(&["one"], "", &[("daily", "one", spec)]);
    let loaded = load(vec![SourceFile { path: "p.yaml".to_owned(), text }], &[kind()]);
    loaded.policies.unwrap_or_else(|| panic!("{:?}", loaded.findings))
}

/// Restore points of the last days, and one that is held.
async fn seen(policies: &Policies, days: i64) -> Inventory {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let engine = engine(clock);
    let mut inventory = Inventory {
        format_version: stillframe::inventory::FORMAT_VERSION.to_owned(),
        observed_at: "2026-11-21T12:00:00Z".parse().unwrap(),
        engines: vec![engine.observe().await],
    };
    let sources: Vec<_> =
        inventory.engines[0].instances.iter().map(|instance| instance.id.clone()).collect();
    for source in sources.into_iter().filter(|source| source.as_str() != "alone") {
        for day in 0..days {
            let slot = "2026-11-21T02:00:00Z".parse::<jiff::Timestamp>().unwrap()
                - jiff::SignedDuration::from_hours(24 * day);
            let key = stillframe::name::Key {
                policy: policies.policies[0].name.clone(),
                source: source.clone(),
                slot: stillframe::name::Slot::at(slot),
            };
            let mut image = image(&format!("{source}-{day}"), &key);
            if day == 3 {
                image.labels.insert(LABEL_HOLD.to_owned(), "forever".to_owned());
            }
            inventory.engines[0].images.push(image);
        }
    }
    inventory
}

#[tokio::test]
async fn no_name_ends_the_data_in_a_file() {
    let policies = policies(DAILY);
    let inventory = seen(&policies, 10).await;
    let now = inventory.observed_at;
    let plan = stillframe::plan::plan(&policies, &inventory, now);
    let mut overview = Overview::new(now, "</title><script>", &policies.digest);
    overview.policies = policy_rows(&policies, now);
    overview.engines =
        engine_overview(&policies, &inventory, "one", &plan, None, now).into_iter().collect();
    let written = page(&overview).unwrap();
    // Two scripts: the data, and the program.
    assert_eq!(written.matches("<script").count(), 2);
    assert_eq!(written.matches("</script>").count(), 2);
    assert!(written.contains(CONTENT_POLICY.as_str()));
    let data = written.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let read: Overview = serde_json::from_str(data).unwrap();
    assert_eq!(read, overview);
    assert!(read.engines[0].sources.iter().any(|row| row.name.contains("<script>alert(1)")));
    for elsewhere in ["http://", "https://", "@import", "url(", "src="] {
        let own = shell().replace("http://www.w3.org/2000/svg", "");
        assert!(!own.contains(elsewhere), "{elsewhere}");
    }
}

#[tokio::test]
async fn a_plan_says_what_came_of_its_changes_and_whether_anything_could() {
    let policies = policies(DAILY);
    let mut inventory = seen(&policies, 40).await;
    // Without the newest of each source there is something to create as well.
    inventory.engines[0].images.retain(|image| !image.id.ends_with("-0"));
    let now = inventory.observed_at;
    let plan = stillframe::plan::plan(&policies, &inventory, now);
    let creates: Vec<usize> = (0..plan.changes.len())
        .filter(|change| plan.changes[*change].action == stillframe::plan::Action::Create)
        .collect();
    assert!(creates.len() == 3 && plan.changes.len() > 3, "{creates:?}");
    let failed = Ending::Failed { message: "no \u{202e}room".to_owned() };
    let outcomes = [
        Outcome { change: creates[2], ending: failed },
        Outcome { change: creates[0], ending: Ending::Done { image: None } },
    ];
    let row = carried_out(&plan, &outcomes, "one");
    assert!(row.carried_out && row.at == now && row.count == plan.changes.len());
    let counts: Vec<(&str, usize)> =
        row.results.iter().map(|(word, count)| (word.as_str(), *count)).collect();
    assert_eq!(counts, [("done", 1), ("failed", 1)]);
    // Listed in another order than they stand in the plan: each has what is its own.
    assert_ne!(row.changes[0].action, "create");
    for change in &row.changes {
        let is = |number: usize| change.image == plan.changes[creates[number]].image.name;
        let came = (change.result.as_deref(), change.message.as_deref());
        let wanted = match (is(0), is(2)) {
            (true, _) => (Some("done"), None),
            (_, true) => (Some("failed"), Some("no \\u{202e}room")),
            _ => (None, None),
        };
        assert_eq!(came, wanted, "{change:?}");
    }
    let only = engine_overview(&policies, &inventory, "one", &plan, None, now).unwrap().plan;
    assert!(!only.carried_out && only.results.is_empty() && only.count == row.count);
    assert!(only.changes.iter().all(|change| change.result.is_none()));
}

#[tokio::test]
async fn predictions_are_those_of_the_forecast_and_hold_until_something_changes() {
    let policies = policies(DAILY);
    let inventory = seen(&policies, 40).await;
    let now = inventory.observed_at;
    let plan = stillframe::plan::plan(&policies, &inventory, now);
    let fresh = engine_overview(&policies, &inventory, "one", &plan, None, now).unwrap();
    let row = fresh.sources.iter().find(|row| row.id == "web-1").unwrap();
    assert_eq!(row.points.len(), 40);
    assert!(row.deletes.len() > 20, "{:?}", row.deletes);
    for (slot, at) in &row.deletes {
        let slot = jiff::Timestamp::from_second(i64::from(*slot) * 60).unwrap();
        let images = inventory.engines[0].images.iter();
        let image = images
            .filter(|image| image.id.starts_with("web-1-"))
            .find(|image| image.created_at == slot)
            .unwrap();
        let forecast =
            stillframe::simulate::forecast::of_image(&policies, &inventory, "one", &image.id, now);
        let deleted = forecast.unwrap().deleted_at.unwrap();
        assert_eq!(i64::from(*at), deleted.as_second() / 60, "{}", image.id);
    }
    // Held, whatever the rules say.
    assert!(row.deletes.iter().all(|(slot, _)| *slot != row.points[36].0));
    let bits: Vec<&str> = Overview::new(now, "", "")
        .bits
        .iter()
        .enumerate()
        .filter(|(bit, _)| row.points[36].1 >> bit & 1 == 1)
        .map(|(_, word)| &*word.clone().leak())
        .collect();
    assert_eq!(bits, ["held"], "what is held fills no rule");
    let covers = coverage(&policies, &inventory, now);
    let cover = covers.iter().find(|cover| cover.instance.id.as_str() == "web-1").unwrap();
    assert_eq!((row.state.as_str(), row.next), (cover.rpo.word(), Some(cover.next[0].at)));
    // 26 hours after the newest.
    assert_eq!(row.breach_at, Some("2026-11-22T04:00:00Z".parse().unwrap()));
    let longer = self::policies(&DAILY.replace("rpo: 26h", "rpo: 72h"));
    let met = engine_overview(&longer, &inventory, "one", &plan, None, now).unwrap();
    let met = met.sources.iter().find(|row| row.id == "web-1").unwrap();
    let until = "2026-11-24T02:00:00Z".parse().unwrap();
    assert_eq!((met.state.as_str(), met.breach_at), ("met", Some(until)));
    // What was let go and is not marked yet is looked at again each time.
    let later = now + jiff::SignedDuration::from_mins(30);
    let known = engine_overview(&policies, &inventory, "one", &plan, Some(&fresh), later).unwrap();
    let anew = engine_overview(&policies, &inventory, "one", &plan, None, later).unwrap();
    assert!(known == anew && known.sources != fresh.sources);
    // Other policies say something else.
    let other = self::policies(&DAILY.replace("daily: 7", "daily: 3"));
    let plan = stillframe::plan::plan(&other, &inventory, now);
    let changed = engine_overview(&other, &inventory, "one", &plan, Some(&fresh), now).unwrap();
    assert!(changed == engine_overview(&other, &inventory, "one", &plan, None, now).unwrap());
    assert!(changed.sources != fresh.sources);
}

#[tokio::test]
async fn what_was_predicted_is_worked_out_again_when_something_changes() {
    let policies = policies(DAILY);
    let inventory = seen(&policies, 7).await;
    let now = inventory.observed_at;
    let plan = stillframe::plan::plan(&policies, &inventory, now);
    let overview = |inventory: &Inventory, before: Option<&_>, minutes| {
        let now = now + jiff::SignedDuration::from_mins(minutes);
        engine_overview(&policies, inventory, "one", &plan, before, now).unwrap()
    };
    let fresh = overview(&inventory, None, 0);
    assert!(!fresh.sources[0].deletes.is_empty(), "{fresh:?}");
    assert!(overview(&inventory, Some(&fresh), 30) == overview(&inventory, None, 30));
    // What is taken over is taken over as it is.
    let mut told = fresh.clone();
    told.sources[0].deletes[0].1 += 1;
    let kept = overview(&inventory, Some(&told), 30);
    assert!(kept.sources[0].deletes == told.sources[0].deletes);
    let mut fewer = inventory.clone();
    let first = format!("{}-6", told.sources[0].id);
    fewer.engines[0].images.retain(|image| image.id != first);
    let rows = overview(&fewer, Some(&told), 30);
    assert_eq!(rows.sources[0].points.len(), 6);
    assert!(rows == overview(&fewer, None, 30));
    // When its time has come it is looked at again.
    let late = i64::from(told.sources[0].deletes[0].1) - now.as_second() / 60 + 1;
    assert!(overview(&inventory, Some(&told), late) == overview(&inventory, None, late));
}
