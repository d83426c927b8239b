//! What `doctor` finds out: who asks, whether the services answer, and how full the folders are.

use super::YandexEngine;
use super::call::CallError;
use super::credentials::Credentials;
use super::image::Collection;
use super::service::Service;
use super::settings::GIB;
use super::wire::Page;
use crate::engine::http::Call;
use crate::engine::{Examined, Topic, Verdict, Wanted};
use crate::inventory::{LABEL_RESTART, QuotaUnit, is_over};

/// A quota that is used by more than so many of ten is told.
const NEARLY_FULL: u64 = 9;

impl YandexEngine {
    pub(super) async fn look_into(&self, _: &Wanted) -> Vec<Examined> {
        let mut found = vec![self.discovery().await];
        if found[0].verdict == Verdict::Wrong {
            return found;
        }
        found.push(self.who().await);
        if found[1].verdict == Verdict::Wrong {
            let message = "nothing more can be asked without a token";
            found.push(Examined::new(Topic::Endpoint, Verdict::Unknown, message));
            return found;
        }
        for folder in self.settings.image_folders() {
            found.extend(self.folder(folder).await);
        }
        for folder in &self.settings.folders {
            found.extend(self.standing(folder).await);
        }
        found.extend(self.services.ahead_seconds().map(Examined::clock));
        let message = "the service does not say what somebody may do without doing it: stillframe needs `compute.viewer` to plan, `compute.editor` to make and delete images, and `compute.admin` to share them or to stop machines";
        found.push(Examined::new(Topic::Permissions, Verdict::Note, message));
        found
    }

    /// Machines of a folder that were stopped for a capture and should run again by now. That it does
    /// not answer was told before.
    async fn standing(&self, folder: &str) -> Vec<Examined> {
        let now = self.clock.now();
        let call = Call::get("compute/v1/instances").with("folderId", folder);
        let (pages, _) = self.services.pages(&call).await;
        let instances = pages.into_iter().flat_map(|page| page.instances);
        let overdue = instances.filter(|instance| {
            let until = instance.labels.get(LABEL_RESTART);
            instance.status != "RUNNING" && until.is_some_and(|until| is_over(until, now))
        });
        let overdue = overdue.map(|instance| {
            let message = format!(
                "{} is {}: it was stopped for a capture and should run again by now",
                instance.called(),
                instance.status
            );
            Examined::new(Topic::Instances, Verdict::Wrong, message).with_remedy(
                "`stillframe apply` starts it, and says what is in the way where it cannot",
            )
        });
        overdue.collect()
    }

    async fn discovery(&self) -> Examined {
        match self.services.way(Service::Compute).await {
            Ok(way) => {
                let message = format!("compute is at {}", way.endpoint());
                Examined::new(Topic::Endpoint, Verdict::Well, message)
            }
            Err(error) => {
                let message = format!("where the services are cannot be asked: {error}");
                Examined::new(Topic::Endpoint, Verdict::Wrong, message).with_remedy(format!(
                    "can this machine reach {}? `endpoints` names services in place of it",
                    self.endpoint
                ))
            }
        }
    }

    async fn who(&self) -> Examined {
        let credentials = &self.services.tokens.credentials;
        if matches!(credentials, Credentials::None) {
            return Examined::new(Topic::Credentials, Verdict::Note, credentials.place());
        }
        if let Err(error) = self.services.ready().await {
            let mut examined = Examined::new(Topic::Credentials, Verdict::Wrong, error.to_string());
            if matches!(credentials, Credentials::Machine { .. }) {
                examined = examined.with_remedy("give the machine a service account, or name a key with `keyFile` or a token with `tokenEnv`");
            }
            return examined;
        }
        let account = credentials.account().unwrap_or("an account that the token does not name");
        let message = format!("{account}, by {}", credentials.place());
        Examined::new(Topic::Credentials, Verdict::Well, message)
    }

    async fn folder(&self, folder: &str) -> Vec<Examined> {
        // Who has roles where copies are need have none on instances.
        let is_of_copies = self.settings.is_of_copies(folder);
        let looked_at = if is_of_copies { "images" } else { "instances" };
        let call = Call::get(&format!("compute/v1/{looked_at}"));
        let call = call.with("folderId", folder).with("pageSize", "1");
        if let Err(error) = self.services.get::<Page>(&call).await {
            return vec![unreachable(folder, &error)];
        }
        let message = format!("{folder} answers");
        let mut found = vec![Examined::new(Topic::Endpoint, Verdict::Well, message)];
        let limits = self.settings.capabilities().limits;
        for collection in Collection::ALL {
            let (images, gaps) = self.images_of(folder, collection, None).await;
            if let Some(gap) = gaps.first() {
                let message = format!("{folder}: {}", gap.message);
                found.push(Examined::new(Topic::Quota, Verdict::Unknown, message));
                continue;
            }
            // Other folders of the cloud count as well.
            for quota in limits.quotas().filter(|quota| quota.kind == collection.kind()) {
                let (there, message) = match quota.unit {
                    QuotaUnit::Images => {
                        let there = images.len() as u64;
                        (there, format!("{there} of {} {}", quota.most, collection.word()))
                    }
                    QuotaUnit::Bytes => {
                        let there =
                            images.iter().filter_map(|found| found.image.stored_bytes).sum();
                        let [used, most] = [there, quota.most].map(|bytes| bytes.div_ceil(GIB));
                        (there, format!("{used} of {most} GiB of {}", collection.word()))
                    }
                };
                let message = format!("{folder}: {message} of the cloud");
                found.push(if there >= quota.most {
                    Examined::new(Topic::Quota, Verdict::Wrong, message).with_remedy(
                        "nothing more can be made: ask for more and set `quota`, or keep less",
                    )
                } else if there.saturating_mul(10) >= quota.most.saturating_mul(NEARLY_FULL) {
                    Examined::new(Topic::Quota, Verdict::Note, message)
                } else {
                    Examined::new(Topic::Quota, Verdict::Well, message)
                });
            }
        }
        found
    }
}

fn unreachable(folder: &str, error: &CallError) -> Examined {
    let wrong = |topic, remedy: String| {
        Examined::new(topic, Verdict::Wrong, format!("{folder}: {error}")).with_remedy(remedy)
    };
    if error.is_unknown_to() {
        let remedy = "the token is not taken: make a new one, or look at who it is of";
        return wrong(Topic::Credentials, remedy.to_owned());
    }
    if error.is_gone() {
        return wrong(
            Topic::Settings,
            format!("is `{folder}` the id of a folder, and not its name?"),
        );
    }
    if error.is_forbidden() {
        return wrong(
            Topic::Permissions,
            format!(
                "who asks needs a role: yc resource-manager folder add-access-binding {folder} --role compute.editor --service-account-id ID"
            ),
        );
    }
    wrong(Topic::Endpoint, "is the service well?".to_owned())
}
