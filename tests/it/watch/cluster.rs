//! A lease of Kubernetes through the program: an API server on this machine that keeps leases as the
//! real one does, with versions.

use std::fs;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::program::{Program, web};

/// The one lease there is.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<Option<Value>>>);

fn answer(code: u16, value: &Value) -> Response {
    let kind = [(CONTENT_TYPE, "application/json")];
    (StatusCode::from_u16(code).unwrap(), kind, value.to_string()).into_response()
}

fn refusal(code: u16, reason: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": reason, "reason": reason, "code": code});
    answer(code, &status)
}

async fn read(State(cluster): State<Cluster>, Path(name): Path<String>) -> Response {
    assert_eq!(name, "stillframe");
    match &*cluster.0.lock().unwrap() {
        Some(lease) => answer(200, lease),
        None => refusal(404, "NotFound"),
    }
}

async fn create(State(cluster): State<Cluster>, body: Bytes) -> Response {
    let mut lease = cluster.0.lock().unwrap();
    if lease.is_some() {
        return refusal(409, "AlreadyExists");
    }
    kept(&mut lease, serde_json::from_slice(&body).unwrap(), 1)
}

async fn replace(State(cluster): State<Cluster>, body: Bytes) -> Response {
    let mut lease = cluster.0.lock().unwrap();
    let new: Value = serde_json::from_slice(&body).unwrap();
    let Some(before) = lease.clone() else { return refusal(404, "NotFound") };
    let version = |lease: &Value| lease["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    if version(&new) != version(&before) {
        return refusal(409, "Conflict");
    }
    let next = version(&before).unwrap().parse::<u64>().unwrap() + 1;
    kept(&mut lease, new, next)
}

fn kept(lease: &mut Option<Value>, mut new: Value, version: u64) -> Response {
    new["metadata"]["resourceVersion"] = json!(version.to_string());
    *lease = Some(new.clone());
    answer(200, &new)
}

impl Cluster {
    /// Answers on a thread of its own; back comes where.
    fn start() -> (Self, String) {
        let cluster = Self::default();
        let (sender, address) = std::sync::mpsc::channel();
        let kept = cluster.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let path = "/apis/coordination.k8s.io/v1/namespaces/backups/leases";
                let routes = Router::new()
                    .route(path, post(create))
                    .route(&format!("{path}/{{name}}"), get(read).put(replace))
                    .with_state(kept);
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap().to_string()).unwrap();
                axum::serve(listener, routes).await.unwrap();
            });
        });
        (cluster, address.recv().unwrap())
    }

    fn holder(&self) -> String {
        let lease = self.0.lock().unwrap();
        let holder = lease.as_ref().map(|lease| lease["spec"]["holderIdentity"].clone());
        holder.and_then(|holder| holder.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

#[test]
fn of_two_with_a_lease_of_a_cluster_one_works_until_it_is_told_to_stop_or_loses_it() {
    let (cluster, address) = Cluster::start();
    let datacenter = web(1);
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         clusters: [{{name: here, cluster: {{server: \"http://{address}\"}}}}]\n\
         users: [{{name: me, user: {{}}}}]\n\
         contexts: [{{name: here, context: {{cluster: here, user: me, namespace: backups}}}}]\n"
    );
    let file = datacenter.path("kubeconfig");
    fs::write(&file, config).unwrap();
    let environment = [("KUBECONFIG", file.to_str().unwrap())];
    let start = || Program::with(&datacenter, &["--lease", "kubernetes:stillframe"], &environment);
    let mut first = start();
    first.says("holding the lease");
    first.says("round ended");
    let held = cluster.holder();
    assert!(!held.is_empty());
    let mut second = start();
    let line = second.says("standing by");
    assert!(line.contains(&held), "{line}");
    first.stop();
    // Told to look, it does so at once.
    second.signal(Signal::HUP);
    second.says("holding the lease");
    second.says("in force");
    assert!(cluster.holder() != held && !cluster.holder().is_empty());
    // Somebody else has taken it.
    if let Some(lease) = &mut *cluster.0.lock().unwrap() {
        lease["spec"]["holderIdentity"] = json!("another");
        lease["metadata"]["resourceVersion"] = json!("1000");
    }
    second.signal(Signal::HUP);
    let (code, said) = second.ends();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another holds it") && said.contains("was lost"), "{said}");
    assert_eq!(cluster.holder(), "another", "what is not ours is not given back");
}
