//! Tokens: where they come from, how they are renewed, and which way they go.

use std::process::{Command, Stdio};

use jiff::SignedDuration;

use super::super::*;
use super::gate::Gate;
use super::world::World;
use crate::support::project as root;

/// Settings of an engine that asks a door for tokens, for an authorised key.
fn with_key(world: &World, gate: &Gate) -> Value {
    let key = std::fs::read_to_string(root().join("tests/data/gce/key-for-tests.pem")).unwrap();
    let file = json!({"id": "k1", "service_account_id": "a1", "private_key": key});
    std::fs::write(world.served.datacenter.path("key.json"), file.to_string()).unwrap();
    json!({"folders": ["p"], "keyFile": "key.json", "endpoint": gate.url(), "endpoints": services(gate)})
}

/// Each at an address of its own, none of which the list of services tells.
fn services(gate: &Gate) -> Value {
    json!({"compute": gate.url(), "iam": gate.url(), "operation": gate.url()})
}

fn bearers(gate: &Gate) -> Vec<String> {
    let asked = gate.asked("/compute/");
    let mut bearers: Vec<String> =
        asked.iter().map(|asked| asked.bearer().unwrap_or("none").to_owned()).collect();
    bearers.dedup();
    gate.state().asked.clear();
    bearers
}

#[tokio::test]
async fn a_key_is_shown_for_a_token_and_that_is_sent() {
    let world = World::new();
    let gate = Gate::new(world.served.address);
    gate.state().until = Some(noon(0) + SignedDuration::from_hours(12));
    let engine = world.engine_with(with_key(&world, &gate));
    assert!(engine.observe().await.is_complete());
    assert_eq!((gate.asked("/iam/v1/tokens").len(), bearers(&gate)), (1, vec!["t1.1".to_owned()]));
    // It is kept until ten minutes before its end.
    world.pass(11 * 60);
    assert!(engine.observe().await.is_complete());
    assert_eq!(bearers(&gate), ["t1.1"]);
    world.pass(51);
    gate.state().until = Some(noon(1));
    assert!(engine.observe().await.is_complete());
    assert_eq!(bearers(&gate), ["t1.2"]);
}

#[tokio::test]
async fn a_good_token_is_used_while_there_is_no_other() {
    let world = World::new();
    let gate = Gate::new(world.served.address);
    gate.state().until = Some(noon(0) + SignedDuration::from_hours(1));
    let engine = world.engine_with(with_key(&world, &gate));
    assert!(engine.observe().await.is_complete());
    gate.state().asked.clear();
    gate.state().is_away = true;
    world.pass(55);
    let inventory = engine.observe().await;
    assert!(inventory.is_complete(), "{:?}", inventory.gaps);
    // Not every request asks anew, and waits for that.
    let asked = gate.asked("/iam/v1/tokens").len();
    assert!((1..=6).contains(&asked), "{asked}");
    assert_eq!(bearers(&gate), ["t1.1"]);
    world.pass(6);
    assert!(!engine.observe().await.is_complete());
    gate.state().is_away = false;
    gate.state().until = Some(noon(1));
    assert!(engine.observe().await.is_complete());
}

#[tokio::test]
async fn a_token_that_is_not_taken_is_had_anew_once() {
    let world = World::new();
    let gate = Gate::new(world.served.address);
    gate.state().taken = ["t1.2".to_owned()].into();
    let engine = world.engine_with(with_key(&world, &gate));
    let created = engine.create(world.request(0), Arc::new(stillframe::engine::Unwatched)).await;
    assert_eq!(created.unwrap().image().state, ImageState::Ready);
    assert_eq!(bearers(&gate), ["t1.1", "t1.2"]);
    gate.state().taken = ["another".to_owned()].into();
    let inventory = engine.observe().await;
    assert!(!inventory.is_complete());
    let tokens = gate.state().given;
    assert!(tokens < 12, "a token is asked for again and again: {tokens}");
}

#[tokio::test]
async fn services_have_addresses_of_their_own() {
    let world = World::new();
    let [compute, iam, operation] = [0; 3].map(|_| Gate::new(world.served.address));
    let mut settings = with_key(&world, &iam);
    settings["endpoints"] =
        json!({"compute": compute.url(), "iam": iam.url(), "operation": operation.url()});
    world.fault(json!({"fault": "slow-operation", "times": 2})).await;
    let engine = world.engine_with(settings);
    engine.create(world.request(0), Arc::new(stillframe::engine::Unwatched)).await.unwrap();
    for (gate, part) in
        [(&compute, "/compute/v1/"), (&iam, "/iam/v1/tokens"), (&operation, "/operations/")]
    {
        let asked = gate.state().asked.clone();
        assert!(
            !asked.is_empty() && asked.iter().all(|one| one.line.contains(part)),
            "{part}: {asked:?}"
        );
    }
    // The list of services knows the others, where the settings name only one.
    let one = json!({"folders": ["p"], "endpoints": {"operation": operation.url()}});
    assert!(world.engine_with(one).observe().await.is_complete());
}

/// What goes to this machine is asked of no proxy, and least of all its token.
#[test]
fn no_proxy_sees_what_goes_to_this_machine() {
    let world = World::new();
    let gate = Gate::new(world.served.address);
    let proxy = Gate::new(world.served.address);
    let directory = world.served.datacenter.path("front");
    std::fs::create_dir_all(&directory).unwrap();
    // The list of services would be elsewhere.
    let config = json!({
        "apiVersion": "stillframe/v1", "kind": "Config",
        "spec": {"engines": {"cloud": {"yandex": {
            "folders": ["p"], "credentials": "metadata", "endpoints": services(&gate),
        }}}},
    });
    std::fs::write(directory.join("stillframe.yaml"), config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stillframe"));
    command.args(["inventory", "--json", "--policies", "."]).current_dir(&directory);
    let home = directory.display().to_string();
    let environment = [
        ("HOME", home.as_str()),
        ("YC_METADATA_ADDR", &gate.address.to_string()),
        ("HTTP_PROXY", &proxy.url()),
        ("http_proxy", &proxy.url()),
        ("ALL_PROXY", &proxy.url()),
    ];
    let output = command.env_clear().envs(environment).stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{} {shown}{error}", output.status);
    let asked = proxy.state().asked.iter().map(|asked| asked.line.clone()).collect::<Vec<_>>();
    assert!(asked.is_empty(), "{asked:?}");
    assert_eq!(gate.asked("/computeMetadata/").len(), 1);
    assert_eq!(bearers(&gate), ["t1.1"]);
}
