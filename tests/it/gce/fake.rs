//! A little of Compute Engine on a port of this machine: the few paths that the engine uses, what
//! the service does with them, and faults that can be asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use stillframe::engine::Author;

/// What goes wrong, once each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// A request to make an image is carried out, and the connection breaks.
    InsertReplyLost,
    /// A request to delete an image is carried out, and the connection breaks.
    DeleteReplyLost,
    /// A request to delete an image is taken, and not carried out.
    DeleteIgnored,
    /// An operation is not known any more when it is asked for.
    OperationForgotten,
    /// The second page of the machine images cannot be had.
    SecondPage,
    /// The second page of the machine images is the first one again, for ever.
    SamePage,
    /// Any request finds the service not available.
    Unavailable,
    /// A request to make an image fails in its operation, for the rate of its source.
    InsertFails,
    /// A request to make an image fails in its operation, for the quota.
    QuotaFails,
    /// A request to make a disk image fails in its operation, for the quota.
    ImageQuotaFails,
    /// A disk image is made and has failed.
    ImageBroken,
    /// Any request finds the quota of its minute used up: 403.
    Rate,
    /// The same in the words of another front end: 429.
    RateByStatus,
    /// Somebody changes a label of the image just before labels are set.
    LabelChanged,
    /// Somebody changes a label of stillframe just before labels are set.
    HoldChanged,
    /// A zone does not answer.
    ZoneUnreachable,
    /// A zone is named and nothing is said of it.
    ZoneSilent,
    /// The answer of a list is empty.
    EmptyAnswer,
    /// A list answers with a redirection.
    Redirection,
    /// Somebody changes who may use an image just before that is set.
    PolicyChanged,
    /// Two have changed who may use an image at once, and this one is to begin anew.
    PolicyAborted,
    /// The list of instance templates is refused.
    TemplatesRefused,
    /// There is a second page of the instance templates, which is not known.
    TemplatesSecondPage,
    /// The lists of instance templates are not known.
    TemplatesUnknown,
    /// The second page of the regions is not known.
    RegionsSecondPage,
    /// The second page of a region's snapshots is not known.
    RegionalSecondPage,
    /// A list over all zones names none.
    NoZones,
    /// A request to make an image finds the service not available.
    InsertUnavailable,
    /// No operation ever ends; as long as it is there.
    NeverEnds,
    /// A run on the host `ci-7` makes an image right before it is asked for.
    Overtaken,
    /// The same, and that image is not shown to the next three who look for it by its name.
    OvertakenUnseen,
    /// Who looks at an operation finds the quota of the minute used up: 403.
    RateAtOperation,
    /// A request to change or make something finds the quota of the minute used up: 403.
    RateAtChange,
}

/// What the fake has, and what it was asked.
#[derive(Default)]
pub struct State {
    pub now: Timestamp,
    /// By path from the project on.
    pub instances: BTreeMap<String, Value>,
    pub disks: BTreeMap<String, Value>,
    /// By collection, then number.
    pub images: BTreeMap<String, BTreeMap<u64, Value>>,
    operations: BTreeMap<String, Value>,
    /// Operations by request id.
    known: BTreeMap<String, Value>,
    last_number: u64,
    pub page_length: usize,
    pub wrong: Vec<Wrong>,
    /// So many more looks for an image by its name find none.
    unseen: u32,
    /// Requests as `METHOD path`, in order.
    pub log: Vec<String>,
    /// Bodies of requests that have one.
    pub bodies: Vec<Value>,
    /// The headers of the last request.
    pub headers: BTreeMap<String, String>,
    /// Those of each project, or of all alike.
    pub quotas: Value,
    /// The only token that is taken; any, or none, where this is empty.
    pub token: String,
    /// What whoever asks may do.
    pub granted: BTreeSet<String>,
    /// What is answered to who asks for that instead, or for the project.
    pub refusals: BTreeMap<String, (u16, Value)>,
    /// The time that the service says it is; `now` stands for its own.
    pub date: String,
    /// Holds requests against the API: method, path, query and body.
    pub check: Option<Check>,
    /// What was found by that.
    pub against_the_api: Vec<String>,
    /// So many changes are carried out yet; all that come after are refused.
    pub changes_left: Option<usize>,
    /// The request of this number is carried out and never answered: whoever waits for it is killed.
    pub frozen_at: Option<usize>,
    /// Whether that has come.
    pub is_frozen: bool,
    /// Request ids in order.
    pub ids: Vec<String>,
    pub regions: Vec<String>,
    pub templates: Vec<Value>,
    pub snapshot_settings: Value,
    /// By the path of the image.
    pub policies: BTreeMap<String, Value>,
}

/// Panics at a request that the API does not have.
pub type Check = fn(&str, &str, &[(String, String)], &Value);

impl State {
    fn strike(&mut self, wrong: Wrong) -> bool {
        let position = self.wrong.iter().position(|scripted| *scripted == wrong);
        position.map(|position| self.wrong.remove(position)).is_some()
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// How often a request was made whose `METHOD path` begins like this.
    pub fn asked(&self, begin: &str) -> usize {
        self.log.iter().filter(|line| line.starts_with(begin)).count()
    }

    /// Puts an instance with disks of 10 and 20 GB into a zone.
    pub fn add_instance(&mut self, project: &str, zone: &str, name: &str, id: &str) {
        let base = format!("projects/{project}/zones/{zone}");
        let url = |path: &str| format!("https://www.googleapis.com/compute/v1/{path}");
        let mut disks = Vec::new();
        for (device, size) in [("boot", 10), ("data", 20)] {
            let path = format!("{base}/disks/{name}-{device}");
            self.disks
                .insert(path.clone(), json!({"selfLink": url(&path), "sizeGb": size.to_string()}));
            disks.push(json!({"deviceName": device, "boot": device == "boot", "source": url(&path), "type": "PERSISTENT"}));
        }
        // The boot disk need not be the first one.
        disks.reverse();
        let instance = json!({
            "id": id, "name": name, "zone": url(&base), "status": "RUNNING", "disks": disks,
            "labels": {"role": "web"}, "machineType": url(&format!("{base}/machineTypes/e2-small")),
        });
        self.instances.insert(format!("{base}/instances/{name}"), instance);
    }

    /// Puts the disk that an instance calls so into a region, in the place of one in a zone.
    pub fn make_regional(&mut self, instance: &str, region: &str, device: &str) -> String {
        let project = instance.split('/').nth(1).unwrap();
        let disks = self.instances.get_mut(instance).unwrap()["disks"].as_array_mut().unwrap();
        let disk = disks.iter_mut().find(|disk| disk["deviceName"] == device).unwrap();
        let url = disk["source"].as_str().unwrap().to_owned();
        let zonal = url.strip_prefix("https://www.googleapis.com/compute/v1/").unwrap();
        let name = zonal.rsplit('/').next().unwrap();
        let path = format!("projects/{project}/regions/{region}/disks/{name}");
        let link = url.replace(zonal, &path);
        disk["source"] = json!(link);
        let mut moved = self.disks.remove(zonal).unwrap();
        moved["selfLink"] = json!(link);
        self.disks.insert(path.clone(), moved);
        path
    }
}

/// A service on a port of its own. Its threads end with the test.
pub struct Fake {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub fn new(now: Timestamp) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { now, page_length: 500, last_number: 7_000, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What it has, for whoever outlives a borrow.
    pub fn shared(&self) -> Arc<Mutex<State>> {
        Arc::clone(&self.state)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let found = &self.state().against_the_api;
            assert!(found.is_empty(), "requests that the API does not have: {found:#?}");
        }
    }
}

/// Looks at a request before anything is done about it.
fn look(state: &mut State, request: &Request) {
    let Some(check) = state.check else { return };
    let query: Vec<(String, String)> =
        request.query.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let looked = std::panic::catch_unwind(|| {
        check(&request.method, &request.path, &query, &request.body);
    });
    if let Err(panic) = looked {
        let text = panic.downcast_ref::<String>().cloned();
        state.against_the_api.push(text.unwrap_or_else(|| "it panicked".to_owned()));
    }
}

/// A request as it came.
#[derive(Clone)]
struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Value,
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let url = reqwest::Url::parse(&format!("http://fake{target}")).ok()?;
    Some(Request {
        method,
        path: url.path().strip_prefix("/compute/v1/").unwrap_or(url.path()).to_owned(),
        query: url.query_pairs().into_owned().collect(),
        headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let answer = {
            let mut state = state.lock().unwrap();
            state.log.push(format!("{} {}", request.method, request.path));
            state.headers.clone_from(&request.headers);
            look(&mut state, &request);
            if !request.body.is_null() {
                state.bodies.push(request.body.clone());
            }
            state.ids.extend(request.query.get("requestId").cloned());
            (answer(&mut state, &request), rfc2822::to_string(&state.now.to_zoned(TimeZone::UTC)))
        };
        let is_frozen = {
            let mut state = state.lock().unwrap();
            state.is_frozen |= state.frozen_at.is_some_and(|at| state.log.len() >= at);
            state.is_frozen && state.frozen_at.is_some()
        };
        if is_frozen {
            // Nobody wakes it.
            loop {
                std::thread::park();
            }
        }
        let (answer, now) = answer;
        let date = state.lock().unwrap().date.clone();
        let date = match date.as_str() {
            "" => String::new(),
            "now" => format!("Date: {}\r\n", now.unwrap()),
            date => format!("Date: {date}\r\n"),
        };
        let (status, body) = answer;
        if status == HANG_UP.0 {
            return;
        }
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\n{date}Content-Type: application/json\r\nLocation: /elsewhere\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if writer.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// A status and a body.
type Answer = (u16, Value);

/// Where the connection breaks instead.
const HANG_UP: Answer = (0, Value::Null);

fn refusal(status: u16, reason: &str, message: &str) -> Answer {
    let error = json!({"code": status, "message": message, "errors": [{"reason": reason, "message": message, "domain": "global"}]});
    (status, json!({"error": error}))
}

fn not_found(path: &str) -> Answer {
    refusal(404, "notFound", &format!("The resource '{path}' was not found"))
}

/// What goes wrong with any request.
fn refused(state: &mut State, request: &Request) -> Option<Answer> {
    let bearer = request.headers.get("authorization").map(String::as_str).unwrap_or_default();
    if !state.token.is_empty() && bearer.strip_prefix("Bearer ") != Some(&state.token) {
        return Some(refusal(401, "authError", "Invalid Credentials"));
    }
    if state.strike(Wrong::Unavailable) {
        return Some(refusal(503, "backendError", "try again"));
    }
    if state.strike(Wrong::Rate) {
        return Some(refusal(403, "rateLimitExceeded", "Quota exceeded for quota metric"));
    }
    if state.strike(Wrong::RateByStatus) {
        return Some((429, json!("slow down")));
    }
    if request.method != "GET" && state.strike(Wrong::RateAtChange) {
        return Some(refusal(403, "rateLimitExceeded", "Quota exceeded for quota metric"));
    }
    if let Some(refusal) = state.refusals.get(&request.path) {
        return Some(refusal.clone());
    }
    if request.method != "GET" {
        match &mut state.changes_left {
            Some(0) => return Some(refusal(403, "forbidden", "no more changes")),
            Some(left) => *left -= 1,
            None => {}
        }
    }
    None
}

fn answer(state: &mut State, request: &Request) -> Answer {
    if let Some(refusal) = refused(state, request) {
        return refusal;
    }
    let parts: Vec<&str> = request.path.split('/').collect();
    match (request.method.as_str(), &parts[..]) {
        ("POST", ["", "v3", "projects", _]) => granted(state, request),
        ("GET", ["projects", project]) => {
            let quotas = state.quotas.get(*project).unwrap_or(&state.quotas);
            (200, json!({"id": number_of(project), "quotas": quotas}))
        }
        ("GET", ["projects", project, "aggregated", what]) => {
            aggregated(state, project, what, request)
        }
        ("GET", ["projects", _, "global", "operations", name])
            if state.strike(Wrong::OperationForgotten) =>
        {
            not_found(name)
        }
        ("GET", ["projects", _, scope @ .., "operations", name])
            if scope.len() == 2 || *scope == ["global"] =>
        {
            look_at_operation(state, scope, name)
        }
        ("GET", ["projects", project, "zones", zone, "instances", wanted]) => {
            let begin = format!("projects/{project}/zones/{zone}/instances/");
            let mut there = state.instances.iter().filter(|(path, _)| path.starts_with(&begin));
            let found = there.find(|(_, one)| one["id"] == **wanted || one["name"] == **wanted);
            found.map_or_else(|| not_found(wanted), |(_, instance)| (200, instance.clone()))
        }
        ("GET", ["projects", project, "global", collection])
            if *collection != "snapshotSettings" =>
        {
            list(state, project, collection, request)
        }
        ("POST", ["projects", project, "global", collection]) => {
            insert(state, project, collection, request)
        }
        ("GET", ["projects", _, "global", _, wanted])
            if state.unseen > 0 && wanted.parse::<u64>().is_err() =>
        {
            state.unseen -= 1;
            not_found(wanted)
        }
        (method, ["projects", project, "global", collection, wanted, rest @ ..]) => {
            match find(state, (project, None), collection, wanted) {
                Some(number) => one(state, collection, number, (method, rest), request),
                None => not_found(wanted),
            }
        }
        (method, ["projects", project, "regions", region, "snapshots", wanted, rest @ ..]) => {
            match find(state, (project, Some(region)), "snapshots", wanted) {
                Some(number) => one(state, "snapshots", number, (method, rest), request),
                None => not_found(wanted),
            }
        }
        (method, parts) => around(state, method, parts, request),
    }
}

/// An operation where it is looked for: there, and nowhere else.
fn look_at_operation(state: &mut State, scope: &[&str], name: &str) -> Answer {
    if state.strike(Wrong::RateAtOperation) {
        return refusal(403, "rateLimitExceeded", "Quota exceeded for quota metric");
    }
    let never_ends = state.wrong.contains(&Wrong::NeverEnds);
    let Some(operation) = state.operations.get_mut(name) else { return not_found(name) };
    let own = operation["zone"].as_str().or(operation["region"].as_str());
    let own = own.map_or("global", |url| url.split_once("/v1/projects/").unwrap().1);
    if own.split_once('/').map_or(own, |(_, scope)| scope) != scope.join("/") {
        return not_found(name);
    }
    let answer = operation.clone();
    if !never_ends {
        operation["status"] = json!("DONE");
    }
    (200, answer)
}

/// A request about one image.
fn one(
    state: &mut State,
    collection: &str,
    number: u64,
    what: (&str, &[&str]),
    request: &Request,
) -> Answer {
    match what {
        ("GET", []) => (200, state.images[collection][&number].clone()),
        ("GET", ["getIamPolicy"]) => (200, policy(state, number).clone()),
        ("POST", ["setIamPolicy"]) => set_policy(state, number, &request.body),
        ("DELETE", []) => delete(state, collection, number, request),
        ("POST", ["setLabels"]) => set_labels(state, collection, number, request),
        ("POST", ["deprecate"]) => {
            image(state, collection, number)["deprecated"] = request.body.clone();
            (200, operation(state, request))
        }
        _ => not_found(&request.path),
    }
}

/// What is not an image of a project.
fn around(state: &mut State, method: &str, parts: &[&str], request: &Request) -> Answer {
    match (method, parts) {
        ("GET", ["projects", _, "regions"]) => {
            let items: Vec<Value> =
                state.regions.iter().map(|region| json!({"name": region})).collect();
            if request.query.contains_key("pageToken") {
                return not_found("regions");
            }
            let mut page = json!({"kind": "compute#regionList", "items": items});
            if state.strike(Wrong::RegionsSecondPage) {
                page["nextPageToken"] = json!("2");
            }
            (200, page)
        }
        ("GET", ["projects", _, "global", "snapshotSettings"]) => {
            (200, state.snapshot_settings.clone())
        }
        ("GET", ["projects", project, "regions", _, "snapshots"]) => {
            list(state, project, "snapshots", request)
        }
        ("POST", ["projects", project, "zones" | "regions", _, "disks", _, "createSnapshot"]) => {
            insert(state, project, "snapshots", request)
        }
        _ => not_found(&request.path),
    }
}

/// Which of the permissions that were asked for there are.
fn granted(state: &State, request: &Request) -> Answer {
    let asked = request.body["permissions"].as_array().unwrap().iter();
    let granted: Vec<&Value> =
        asked.filter(|asked| state.granted.contains(asked.as_str().unwrap())).collect();
    (200, json!({"permissions": granted}))
}

/// The number of a project, made of its name.
pub fn number_of(project: &str) -> String {
    project.bytes().map(|byte| byte.to_string()).collect()
}

/// Who may use an image.
fn policy(state: &mut State, number: u64) -> &mut Value {
    let policy = state.policies.entry(number.to_string()).or_default();
    if policy.is_null() {
        *policy = json!({"version": 1, "etag": "ACAB"});
    }
    policy
}

fn set_policy(state: &mut State, number: u64, body: &Value) -> Answer {
    let etag = format!("e{}", state.number());
    if state.strike(Wrong::PolicyChanged) {
        let owner = json!({"role": "roles/owner", "members": ["user:theirs@x"]});
        *policy(state, number) = json!({"version": 1, "etag": etag, "bindings": [owner]});
    }
    if state.strike(Wrong::PolicyAborted) {
        return refusal(409, "aborted", "There were concurrent policy changes.");
    }
    let known = policy(state, number);
    if known["etag"] != body["policy"]["etag"] {
        return refusal(412, "conditionNotMet", "Invalid etag");
    }
    *known = body["policy"].clone();
    known["etag"] = json!(etag);
    (200, known.clone())
}

fn image<'a>(state: &'a mut State, collection: &str, number: u64) -> &'a mut Value {
    state.images.get_mut(collection).unwrap().get_mut(&number).unwrap()
}

fn find(
    state: &State,
    (project, region): (&str, Option<&str>),
    collection: &str,
    wanted: &str,
) -> Option<u64> {
    let images = state.images.get(collection)?;
    let is_it = |image: &Value| {
        image["project"] == project
            && region_of_image(image) == region
            && (image["name"] == wanted || image["id"] == wanted)
    };
    images.iter().find(|(_, image)| is_it(image)).map(|(number, _)| *number)
}

/// The region of an image of a region.
fn region_of_image(image: &Value) -> Option<&str> {
    image["region"].as_str().and_then(|url| url.rsplit('/').next())
}

/// An operation that is running when it is first heard of. It is where the request is.
fn operation(state: &mut State, request: &Request) -> Value {
    let name = format!("operation-{}", state.number());
    let mut operation = json!({"kind": "compute#operation", "name": name, "status": "RUNNING", "progress": 50,
            "insertTime": state.now.to_string()});
    let parts: Vec<&str> = request.path.split('/').collect();
    if let [projects, project, scope @ ("zones" | "regions"), place, ..] = parts[..] {
        let field = scope.trim_end_matches('s');
        operation[field] = json!(format!(
            "https://www.googleapis.com/compute/v1/{projects}/{project}/{scope}/{place}"
        ));
    }
    state.operations.insert(name, operation.clone());
    operation
}

fn aggregated(state: &mut State, project: &str, what: &str, request: &Request) -> Answer {
    let begin = format!("projects/{project}/");
    if what == "instanceTemplates" {
        if state.strike(Wrong::TemplatesRefused) {
            return refusal(
                403,
                "forbidden",
                "Required 'compute.instanceTemplates.list' permission",
            );
        }
        if state.strike(Wrong::TemplatesUnknown) || request.query.contains_key("pageToken") {
            return not_found(what);
        }
        let items = json!({"global": {"instanceTemplates": state.templates}});
        let mut page = json!({"kind": "compute#instanceTemplateAggregatedList", "items": items});
        if state.strike(Wrong::TemplatesSecondPage) {
            page["nextPageToken"] = json!("2");
        }
        return (200, page);
    }
    let resources = if what == "disks" { &state.disks } else { &state.instances };
    let there =
        resources.iter().filter(|(_, one)| passes(one, request)).filter_map(|(path, resource)| {
            let place = path.strip_prefix(&begin)?;
            let (scope, place) = place.split_once('/')?;
            Some((format!("{scope}/{}", place.split('/').next()?), resource))
        });
    let there: Vec<(String, &Value)> = there.collect();
    let from: usize = request.query.get("pageToken").map_or(0, |token| token.parse().unwrap());
    // Every zone is on every page.
    let nothing = json!({"warning": {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for scope."}});
    let mut items = Map::from_iter([("zones/europe-a".to_owned(), nothing.clone())]);
    items.extend(there.iter().map(|(zone, _)| (zone.clone(), nothing.clone())));
    let mut zones: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (zone, resource) in there.iter().skip(from).take(state.page_length) {
        zones.entry(zone.clone()).or_default().push((*resource).clone());
    }
    items.extend(zones.into_iter().map(|(zone, there)| (zone, json!({what: there}))));
    let next = from + state.page_length;
    let next = (next < there.len()).then(|| next.to_string());
    let kind = format!("compute#{}AggregatedList", what.trim_end_matches('s'));
    let mut page = json!({"kind": kind, "items": items});
    if let Some(next) = next {
        page["nextPageToken"] = json!(next);
    }
    if what == "instances" && state.strike(Wrong::ZoneUnreachable) {
        page["items"].as_object_mut().unwrap().remove("zones/us-a");
        page["unreachables"] = json!(["projects/p/zones/us-a"]);
    }
    if what == "instances" && state.strike(Wrong::NoZones) {
        page["items"] = json!({});
    }
    if what == "instances" && state.strike(Wrong::ZoneSilent) {
        page["items"]["zones/us-a"] = json!({});
    }
    (200, page)
}

/// Whether something passes the filter of a request: one field that is equal, or has an end.
fn passes(resource: &Value, request: &Request) -> bool {
    let Some(filter) = request.query.get("filter") else { return true };
    if let Some((field, end)) = filter.split_once(" eq \".*") {
        let (begin, ends) = end.trim_end_matches('"').split_once('(').unwrap_or((end, ")"));
        let ends = ends.trim_end_matches(')').split('|').map(|end| format!("{begin}{end}"));
        let text = resource[field].as_str().unwrap_or_default();
        return ends.into_iter().any(|end| text.ends_with(end.trim_end_matches('"')));
    }
    let (field, value) = filter.split_once('=').unwrap();
    let found = match field.strip_prefix("labels.") {
        Some(label) => &resource["labels"][label],
        None => &resource[field],
    };
    found == value
}

fn region_of(request: &Request) -> Option<&str> {
    request.path.split_once("/regions/").and_then(|(_, rest)| rest.split('/').next())
}

fn list(state: &mut State, project: &str, collection: &str, request: &Request) -> Answer {
    if collection == "machineImages" && state.strike(Wrong::EmptyAnswer) {
        return (200, json!({}));
    }
    if collection == "machineImages" && state.strike(Wrong::Redirection) {
        return (302, json!({}));
    }
    let from: usize = request.query.get("pageToken").map_or(0, |token| token.parse().unwrap());
    if collection == "machineImages" && from > 0 && state.strike(Wrong::SecondPage) {
        return refusal(403, "forbidden", "Required permission");
    }
    if from > 0 && region_of(request).is_some() && state.strike(Wrong::RegionalSecondPage) {
        return not_found(collection);
    }
    let kind = format!("compute#{}List", collection.trim_end_matches('s'));
    let mut page = json!({"kind": kind});
    let images = state.images.get(collection).into_iter().flat_map(BTreeMap::values);
    let region = region_of(request);
    let is_there = |image: &&Value| {
        image["project"] == project && region_of_image(image) == region && passes(image, request)
    };
    let of_project: Vec<&Value> = images.filter(is_there).collect();
    let items: Vec<&Value> =
        of_project.iter().skip(from).take(state.page_length).copied().collect();
    let next = from + items.len();
    if !items.is_empty() {
        page["items"] = json!(items);
    }
    if next < of_project.len() {
        page["nextPageToken"] = json!(next.to_string());
    }
    if from > 0 && state.wrong.contains(&Wrong::SamePage) {
        page["nextPageToken"] = json!(from.to_string());
    }
    (200, page)
}

/// Says of a new image which disk, snapshot or image it is made of, and how large that is.
fn made_of(
    state: &State,
    project: &str,
    request: &Request,
    image: &mut Value,
) -> Result<(), Answer> {
    if request.path.ends_with("/createSnapshot") {
        image["sourceDisk"] = json!(request.path.trim_end_matches("/createSnapshot"));
    }
    if let Some(path) = request.body["sourceImage"].as_str() {
        let number: u64 = path.rsplit('/').next().unwrap().parse().unwrap();
        let Some(original) = state.images.get("images").and_then(|images| images.get(&number))
        else {
            return Err(not_found(path));
        };
        image["sourceImageId"] = json!(number.to_string());
        image["diskSizeGb"] = original["diskSizeGb"].clone();
    }
    if let Some(path) = request.body["sourceSnapshot"].as_str() {
        let name = path.rsplit('/').next().unwrap();
        let Some(number) = find(state, (project, None), "snapshots", name) else {
            return Err(not_found(path));
        };
        image["sourceSnapshotId"] = json!(number.to_string());
        image["diskSizeGb"] = state.images["snapshots"][&number]["diskSizeGb"].clone();
    }
    Ok(())
}

fn insert(state: &mut State, project: &str, collection: &str, request: &Request) -> Answer {
    let Some(id) = request.query.get("requestId") else {
        return refusal(400, "required", "no request id");
    };
    if state.strike(Wrong::InsertUnavailable) {
        return refusal(503, "backendError", "try again");
    }
    if let Some(known) = state.known.get(id) {
        let name = known["name"].as_str().unwrap();
        return (200, state.operations.get(name).unwrap_or(known).clone());
    }
    overtake(state, project, collection, request);
    let is_late =
        [Wrong::InsertFails, Wrong::QuotaFails].iter().any(|one| state.wrong.contains(one));
    let name = request.body["name"].as_str().unwrap();
    if !is_late && find(state, (project, None), collection, name).is_some() {
        return refusal(409, "alreadyExists", &format!("The resource '{name}' already exists"));
    }
    let mut done = operation(state, request);
    for (wrong, code) in [
        (Wrong::InsertFails, "RESOURCE_OPERATION_RATE_EXCEEDED"),
        (Wrong::QuotaFails, "QUOTA_EXCEEDED"),
        (Wrong::ImageQuotaFails, "QUOTA_EXCEEDED"),
    ] {
        let is_it = wrong != Wrong::ImageQuotaFails || collection == "images";
        if is_it && state.strike(wrong) {
            done["status"] = json!("DONE");
            done["error"] =
                json!({"errors": [{"code": code, "message": "Operation rate exceeded."}]});
            state.known.insert(id.clone(), done.clone());
            state.operations.insert(done["name"].as_str().unwrap().to_owned(), done.clone());
            return (200, done);
        }
    }
    let number = state.number();
    let mut image = request.body.clone();
    image["id"] = json!(number.to_string());
    image["project"] = json!(project);
    image["creationTimestamp"] = json!(state.now.to_string());
    image["status"] = json!("READY");
    if collection == "images" && state.strike(Wrong::ImageBroken) {
        image["status"] = json!("FAILED");
    }
    image["labelFingerprint"] = json!(format!("f{number}"));
    image["totalStorageBytes"] = json!("1048576");
    if let Err(refusal) = made_of(state, project, request, &mut image) {
        return refusal;
    }
    if let Some(instance) = image["sourceInstance"].as_str().map(str::to_owned) {
        let chosen = image["params"]["includedDisks"].as_array().cloned();
        let disks = state.instances.get(&instance).map(|instance| instance["disks"].clone());
        let disks = disks.as_ref().and_then(Value::as_array).into_iter().flatten();
        let is_chosen = |disk: &&Value| {
            chosen.as_ref().is_none_or(|chosen| chosen.contains(&disk["deviceName"]))
        };
        let saved = disks.filter(is_chosen);
        image["savedDisks"] = saved.map(|disk| json!({"sourceDisk": disk["source"]})).collect();
    }
    for source in ["sourceInstance", "sourceDisk", "sourceSnapshot"] {
        if let Some(path) = image[source].as_str().map(str::to_owned) {
            image[source] = json!(format!("https://www.googleapis.com/compute/v1/{path}"));
        }
    }
    state.images.entry(collection.to_owned()).or_default().insert(number, image);
    state.known.insert(id.clone(), done.clone());
    if state.strike(Wrong::InsertReplyLost) {
        return HANG_UP;
    }
    (200, done)
}

/// Has a run on another host ask for the same, where one does.
fn overtake(state: &mut State, project: &str, collection: &str, request: &Request) {
    let is_unseen = state.strike(Wrong::OvertakenUnseen);
    if !is_unseen && !state.strike(Wrong::Overtaken) {
        return;
    }
    state.unseen = if is_unseen { 3 } else { 0 };
    let wrong = std::mem::take(&mut state.wrong);
    let mut others = request.clone();
    others.query.insert("requestId".to_owned(), format!("of-another-{}", state.number()));
    let described = others.body["description"].as_str().unwrap_or_default();
    others.body["description"] =
        json!(Author::new("ci-7").unwrap().sign(Author::without(described), 2048));
    let answer = insert(state, project, collection, &others);
    assert_eq!(answer.0, 200, "{:?}", answer.1);
    state.wrong = wrong;
}

fn delete(state: &mut State, collection: &str, number: u64, request: &Request) -> Answer {
    if !state.strike(Wrong::DeleteIgnored) {
        state.images.get_mut(collection).unwrap().remove(&number);
    }
    if state.strike(Wrong::DeleteReplyLost) {
        return HANG_UP;
    }
    (200, operation(state, request))
}

fn set_labels(state: &mut State, collection: &str, number: u64, request: &Request) -> Answer {
    let body = &request.body;
    for (wrong, label) in [(Wrong::LabelChanged, "team"), (Wrong::HoldChanged, "stillframe-hold")] {
        if state.strike(wrong) {
            let fingerprint = format!("f{}", state.number());
            let image = image(state, collection, number);
            image["labels"][label] = json!("theirs");
            image["labelFingerprint"] = json!(fingerprint);
        }
    }
    let fingerprint = format!("f{}", state.number());
    let image = image(state, collection, number);
    if image["labelFingerprint"] != body["labelFingerprint"] {
        return refusal(
            412,
            "conditionNotMet",
            "Labels fingerprint either invalid or resource labels have changed",
        );
    }
    image["labels"] = body["labels"].clone();
    image["labelFingerprint"] = json!(fingerprint);
    (200, operation(state, request))
}
