//! A lease that is a Lease of Kubernetes (`coordination.k8s.io/v1`). Credentials and address are
//! those of every client: the service account of the pod, or what `KUBECONFIG` names.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Error};

use super::election::{self, Record};
use crate::policy::meant::KubernetesLease;

/// Where it is, and what was read of it last.
pub(super) struct Store {
    api: Api<Lease>,
    name: String,
    read: Mutex<Option<Lease>>,
}

impl Store {
    /// Finds credentials and address. Nothing is asked yet.
    pub(super) async fn open(lease: &KubernetesLease) -> Result<Self, String> {
        // An engine may have set it up already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_default().await.map_err(|error| said(&error))?;
        Ok(Self::over(client, lease))
    }

    fn over(client: Client, lease: &KubernetesLease) -> Self {
        let api = match &lease.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::default_namespaced(client),
        };
        Self { api, name: lease.name.clone(), read: Mutex::default() }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Lease>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl election::Store for Store {
    async fn read(&self) -> Result<Option<Record>, String> {
        let lease = self.api.get_opt(&self.name).await.map_err(|error| said(&error))?;
        let record = lease.as_ref().map(record_of);
        *self.last() = lease;
        Ok(record)
    }

    async fn replace(&self, record: &Record) -> Result<bool, String> {
        let before = self.last().clone();
        let is_new = before.is_none();
        // What else it holds stays; its version is the one that was read.
        let mut lease = before.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        let spec = lease.spec.take().unwrap_or_default();
        lease.spec = Some(written(record, spec));
        let how = PostParams::default();
        let came = if is_new {
            self.api.create(&how, &lease).await
        } else {
            self.api.replace(&self.name, &how, &lease).await
        };
        match came {
            Ok(lease) => {
                *self.last() = Some(lease);
                Ok(true)
            }
            // Taken meanwhile, changed meanwhile, or gone meanwhile.
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) && !is_new => Ok(false),
            Err(Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(said(&error)),
        }
    }
}

fn record_of(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: seconds.map_or(election::Times::default().duration, Duration::from_secs),
        acquired: spec.acquire_time.map(|MicroTime(time)| time),
        renewed: spec.renew_time.map(|MicroTime(time)| time),
        transitions: spec
            .lease_transitions
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(0),
    }
}

fn written(record: &Record, spec: LeaseSpec) -> LeaseSpec {
    let seconds = i32::try_from(record.duration.as_secs()).unwrap_or(i32::MAX);
    LeaseSpec {
        holder_identity: Some(record.holder.clone()),
        lease_duration_seconds: Some(seconds.max(1)),
        acquire_time: record.acquired.map(MicroTime),
        renew_time: record.renewed.map(MicroTime),
        lease_transitions: Some(i32::try_from(record.transitions).unwrap_or(i32::MAX)),
        ..spec
    }
}

/// What went wrong, in one line.
fn said(error: &Error) -> String {
    match error {
        Error::Api(status) if status.code == 403 => format!(
            "{}; the service account needs get, create and update of leases in coordination.k8s.io",
            status.message
        ),
        Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Bytes;
    use axum::extract::{Path, State};
    use axum::http::StatusCode;
    use axum::http::header::CONTENT_TYPE;
    use axum::response::{IntoResponse, Response};
    use axum::routing::{get, post};
    use jiff::Timestamp;
    use kube::Config;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::election::Store as _;
    use super::*;

    /// The leases of one namespace, as an API server keeps them.
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
        let lease = cluster.0.lock().unwrap().clone();
        match lease.filter(|lease| lease["metadata"]["name"] == name) {
            Some(lease) => answer(200, &lease),
            None => refusal(404, "NotFound"),
        }
    }

    fn kept(lease: &mut Option<Value>, mut new: Value, version: u64) -> Response {
        assert_eq!(new["kind"], "Lease");
        assert_eq!(new["apiVersion"], "coordination.k8s.io/v1");
        new["metadata"]["resourceVersion"] = json!(version.to_string());
        *lease = Some(new.clone());
        answer(200, &new)
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
        if new["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
            return refusal(409, "Conflict");
        }
        let version = before["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>();
        kept(&mut lease, new, version.unwrap() + 1)
    }

    async fn cluster() -> (Cluster, Client) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = Cluster::default();
        let path = "/apis/coordination.k8s.io/v1/namespaces/backups/leases";
        let routes = Router::new()
            .route(path, post(create))
            .route(&format!("{path}/{{name}}"), get(read).put(replace))
            .with_state(cluster.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (cluster, Client::try_from(Config::new(url.parse().unwrap())).unwrap())
    }

    fn place() -> KubernetesLease {
        let namespace = Some("backups".to_owned());
        KubernetesLease { namespace, name: "stillframe".to_owned() }
    }

    fn record(holder: &str) -> Record {
        let at = Timestamp::from_second(1_800_000_000).ok();
        Record {
            holder: holder.to_owned(),
            duration: Duration::from_secs(15),
            acquired: at,
            renewed: at,
            transitions: 1,
        }
    }

    #[tokio::test]
    async fn a_record_is_a_lease() {
        let (cluster, client) = cluster().await;
        let store = Store::over(client, &place());
        assert_eq!(store.read().await, Ok(None));
        assert_eq!(store.replace(&record("a")).await, Ok(true));
        let spec = cluster.0.lock().unwrap().clone().unwrap()["spec"].clone();
        assert_eq!(
            spec,
            json!({"holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 1,
                "acquireTime": "2027-01-15T08:00:00.000000Z", "renewTime": "2027-01-15T08:00:00.000000Z"})
        );
        assert_eq!(store.read().await, Ok(Some(record("a"))));
        assert_eq!(store.replace(&record("")).await, Ok(true));
        assert_eq!(store.read().await, Ok(Some(record(""))));
    }

    #[tokio::test]
    async fn what_another_one_has_written_meanwhile_is_not_overwritten() {
        let (cluster, client) = cluster().await;
        let (first, second) =
            (Store::over(client.clone(), &place()), Store::over(client, &place()));
        assert_eq!((first.read().await, second.read().await), (Ok(None), Ok(None)));
        assert_eq!(first.replace(&record("a")).await, Ok(true));
        assert_eq!(second.replace(&record("b")).await, Ok(false), "it exists");
        second.read().await.unwrap();
        assert_eq!(first.replace(&record("a")).await, Ok(true));
        assert_eq!(second.replace(&record("b")).await, Ok(false), "it has changed");
        // What others note on it stays.
        cluster.0.lock().unwrap().as_mut().unwrap()["metadata"]["labels"] = json!({"team": "x"});
        second.read().await.unwrap();
        assert_eq!(second.replace(&record("b")).await, Ok(true));
        let lease = cluster.0.lock().unwrap().clone().unwrap();
        assert_eq!(lease["metadata"]["labels"]["team"], "x");
        assert_eq!(lease["spec"]["holderIdentity"], "b");
        // Gone meanwhile: it is made anew after the next look.
        *cluster.0.lock().unwrap() = None;
        assert_eq!(second.replace(&record("b")).await, Ok(false));
        assert_eq!(second.read().await, Ok(None));
        assert_eq!(second.replace(&record("b")).await, Ok(true));
    }

    #[tokio::test]
    async fn who_cannot_be_asked_says_why() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
        assert!(Store::over(client, &place()).read().await.is_err());
    }
}
