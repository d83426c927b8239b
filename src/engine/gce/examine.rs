//! What `doctor` finds out: who asks, whether the service answers, and what it lets them do.

use std::collections::BTreeSet;

use reqwest::Url;
use serde_json::json;

use super::call::CallError;
use super::credentials::Credentials;
use super::permission;
use super::wire::{Permissions, Project};
use super::{GceEngine, image::Collection};
use crate::engine::http::Call;
use crate::engine::{Examined, Task, Topic, Verdict, Wanted};
use crate::inventory::ImageKind;

/// Where it is asked what somebody may do in a project.
const RESOURCE_MANAGER: &str = "https://cloudresourcemanager.googleapis.com/";
/// How the hosts of Google's services end.
const GOOGLE: &str = ".googleapis.com";
/// The right to have requests counted for a project.
const USE_SERVICES: &str = "serviceusage.services.use";
/// A quota that is used by more than this share of ten is told.
const NEARLY_FULL: f64 = 0.9;

impl GceEngine {
    pub(super) async fn look_into(&self, wanted: &Wanted) -> Vec<Examined> {
        let mut found = vec![self.credentials().await];
        if found[0].verdict == Verdict::Wrong {
            let message = "nothing more can be asked without a token";
            found.push(Examined::new(Topic::Endpoint, Verdict::Unknown, message));
            return found;
        }
        for project in self.settings.image_projects() {
            let call = Call::get(&format!("projects/{project}"))
                .with("fields", "quotas(metric,limit,usage)");
            match self.http.send::<Project>(&call).await {
                Ok(answer) => {
                    let message = format!("{project} answers at {}", self.endpoint);
                    found.push(Examined::new(Topic::Endpoint, Verdict::Well, message));
                    // How full a project is in which nothing is made matters to nobody.
                    if self.settings.made_in().any(|made_in| made_in == project) {
                        found.extend(quotas(project, &answer));
                    }
                }
                Err(error) => found.push(self.unreachable(project, &error)),
            }
        }
        found.extend(self.http.ahead_seconds().map(Examined::clock));
        found.extend(self.permissions(wanted).await);
        found
    }

    async fn credentials(&self) -> Examined {
        let credentials = &self.http.credentials;
        if matches!(**credentials, Credentials::None) {
            return Examined::new(Topic::Credentials, Verdict::Note, credentials.place());
        }
        if let Err(error) = self.http.ready().await {
            return Examined::new(Topic::Credentials, Verdict::Wrong, error.to_string());
        }
        let account = match credentials.account() {
            Some(account) => Some(account),
            None => credentials.machine_account().await,
        };
        let account =
            account.unwrap_or_else(|| "an account that the token does not name".to_owned());
        let message = format!("{account}, by {}", credentials.place());
        Examined::new(Topic::Credentials, Verdict::Well, message)
    }

    fn unreachable(&self, project: &str, error: &CallError) -> Examined {
        let wrong = |topic, remedy: String| {
            let message = format!("{project}: {error}");
            Examined::new(topic, Verdict::Wrong, message).with_remedy(remedy)
        };
        if error.is_switched_off() {
            let remedy =
                format!("gcloud services enable compute.googleapis.com --project={project}");
            return wrong(Topic::Services, remedy);
        }
        if error.is_unknown_to() {
            return wrong(
                Topic::Credentials,
                "the token is not taken: log in again, or look at who it is of".to_owned(),
            );
        }
        if error.is_gone() {
            return wrong(
                Topic::Settings,
                format!("is `{project}` the id of a project, and not its name?"),
            );
        }
        if error.is_forbidden() {
            return wrong(
                Topic::Permissions,
                format!(
                    "who asks needs the role of a planner in {project}: stillframe doctor --roles"
                ),
            );
        }
        wrong(Topic::Endpoint, format!("can this machine reach {}?", self.endpoint))
    }

    async fn permissions(&self, wanted: &Wanted) -> Vec<Examined> {
        if matches!(*self.http.credentials, Credentials::None) {
            let message = "nobody asks, so there is nothing that anybody may do";
            return vec![Examined::new(Topic::Permissions, Verdict::Note, message)];
        }
        let Some(manager) = resource_manager(&self.endpoint) else { return Vec::new() };
        let manager = self.http.to(manager);
        let mut found = Vec::new();
        for project in self.settings.image_projects() {
            let is_source = self.settings.projects.contains(project);
            let mut asked: Vec<&str> =
                permission::PERMISSIONS.iter().map(|permission| permission.name).collect();
            asked.sort_unstable();
            asked.dedup();
            match granted(&manager, project, &asked).await {
                Ok(granted) => {
                    let tasks =
                        Task::ALL.into_iter().filter(|task| !permission::of(*task).is_empty());
                    let told = |task| told(project, is_source, task, &granted, wanted);
                    found.extend(tasks.map(told));
                }
                Err(error) => found.push(unasked(project, &error)),
            }
        }
        if let Some(project) = &self.quota_project {
            found.push(match granted(&manager, project, &[USE_SERVICES]).await {
                Ok(granted) if granted.contains(USE_SERVICES) => {
                    let message = format!("requests may be counted for {project}");
                    Examined::new(Topic::Permissions, Verdict::Well, message)
                }
                Ok(_) => Examined::new(
                    Topic::Permissions,
                    Verdict::Wrong,
                    format!(
                        "{project}: {USE_SERVICES} is missing, so requests cannot be counted for it"
                    ),
                )
                .with_remedy(format!("grant roles/serviceusage.serviceUsageConsumer in {project}")),
                Err(error) => unasked(project, &error),
            });
        }
        found
    }
}

/// Where it is asked what somebody may do: where all else is asked, unless that is a service of
/// Google's. A token that is meant for one host is shown to no other.
fn resource_manager(endpoint: &str) -> Option<Url> {
    let mut url: Url = endpoint.parse().ok()?;
    if url.host_str().is_some_and(|host| host.ends_with(GOOGLE)) {
        return RESOURCE_MANAGER.parse().ok();
    }
    url.set_path("/");
    Some(url)
}

/// Which of these permissions there are in a project.
async fn granted(
    manager: &super::http::Http,
    project: &str,
    asked: &[&str],
) -> Result<BTreeSet<String>, CallError> {
    let call = Call::post(&format!("v3/projects/{project}:testIamPermissions"))
        .with_body(&json!({"permissions": asked}))?;
    Ok(manager.send::<Permissions>(&call).await?.permissions.into_iter().collect())
}

/// What is said of the permissions of a task in a project, which may hold images alone.
fn told(
    project: &str,
    is_source: bool,
    task: Task,
    granted: &BTreeSet<String>,
    wanted: &Wanted,
) -> Examined {
    let mut needed = permission::of(task);
    needed.retain(|permission| is_source || !permission::is_of_source(permission));
    let missing: Vec<&str> =
        needed.iter().copied().filter(|permission| !granted.contains(*permission)).collect();
    let word = task.word();
    if missing.is_empty() {
        let message = format!("{project}: all {} to {word}", needed.len());
        return Examined::new(Topic::Permissions, Verdict::Well, message);
    }
    let message = format!(
        "{project}: {} of {} to {word} are missing: {}",
        missing.len(),
        needed.len(),
        missing.join(", ")
    );
    let verdict = if wanted.tasks.contains(&task) { Verdict::Wrong } else { Verdict::Note };
    let examined = Examined::new(Topic::Permissions, verdict, message);
    if verdict == Verdict::Note {
        return examined;
    }
    examined.with_remedy(format!("stillframe doctor --roles {word} prints the smallest role"))
}

/// What is said where it cannot be asked what somebody may do.
fn unasked(project: &str, error: &CallError) -> Examined {
    let message = format!("{project}: which permissions there are cannot be asked: {error}");
    let examined = Examined::new(Topic::Permissions, Verdict::Unknown, message);
    if !error.is_switched_off() {
        return examined;
    }
    examined.with_remedy(format!(
        "gcloud services enable cloudresourcemanager.googleapis.com --project={project}"
    ))
}

/// How full the quotas of a project are.
fn quotas(project: &str, answer: &Project) -> Vec<Examined> {
    let kinds = [ImageKind::MachineImage, ImageKind::DiskImage, ImageKind::Snapshot];
    let of = |kind: ImageKind| {
        let metric = Collection::of(kind).metric();
        let quota = answer.quotas.iter().find(|quota| quota.metric == metric)?;
        let message = format!("{project}: {} of {} {metric}", quota.usage, quota.limit);
        Some(if quota.usage >= quota.limit {
            Examined::new(Topic::Quota, Verdict::Wrong, message)
                .with_remedy("nothing more can be made: ask for more, or keep less")
        } else if quota.usage >= quota.limit * NEARLY_FULL {
            Examined::new(Topic::Quota, Verdict::Note, message)
        } else {
            Examined::new(Topic::Quota, Verdict::Well, message)
        })
    };
    kinds.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_for_one_host_is_shown_to_no_other() {
        for (endpoint, asked) in [
            ("https://compute.googleapis.com/compute/v1/", RESOURCE_MANAGER),
            ("https://compute-private.p.googleapis.com/compute/v1/", RESOURCE_MANAGER),
            ("http://127.0.0.1:8470/compute/v1/", "http://127.0.0.1:8470/"),
            ("https://backup.example.com:8470/compute/v1/", "https://backup.example.com:8470/"),
            ("https://googleapis.com.example.com/", "https://googleapis.com.example.com/"),
        ] {
            assert_eq!(resource_manager(endpoint).unwrap().as_str(), asked);
        }
    }
}
