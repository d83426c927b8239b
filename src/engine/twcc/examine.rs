//! What `doctor` finds out: whether there is a key, whether the service takes it, and what it lets
//! see.

use super::TwccEngine;
use super::call::CallError;
use crate::engine::{Examined, Topic, Verdict};
use crate::inventory::{Gap, GapScope, ImageState};

/// The lists of a round.
const LISTS: [&str; 5] = ["sites", "servers", "volumes", "images", "snapshots"];

impl TwccEngine {
    pub(super) async fn look_into(&self) -> Vec<Examined> {
        let mut found = vec![self.credentials()];
        if found[0].verdict == Verdict::Wrong {
            let message = "nothing more can be asked without a key";
            found.push(Examined::new(Topic::Endpoint, Verdict::Unknown, message));
            return found;
        }
        match self.service.project().await {
            Ok(number) => {
                let project = &self.settings.project;
                let message = format!("{project} is the project {number} at {}", self.endpoint);
                found.push(Examined::new(Topic::Endpoint, Verdict::Well, message));
            }
            Err(error) => {
                found.push(self.unreachable(&error));
                return found;
            }
        }
        found.extend(self.service.ahead_seconds().map(Examined::clock));
        // What a round will see, and no other questions than it asks.
        let inventory = self.look().await;
        let message = format!("{} sites are seen", inventory.instances.len());
        let has_gap = inventory.gaps.iter().any(|gap| gap.scope == GapScope::Instances);
        let verdict = if has_gap { Verdict::Note } else { Verdict::Well };
        found.push(Examined::new(Topic::Instances, verdict, message));
        // What is being made and has something said of it does not end.
        let made = inventory.images.iter().filter(|image| image.state == ImageState::Creating);
        let stuck = made.filter_map(|image| image.message.clone());
        found.extend(stuck.map(|why| Examined::new(Topic::Instances, Verdict::Wrong, why)));
        for list in LISTS {
            let place = self.place_of(list);
            let of_list = inventory.gaps.iter().filter(|gap| gap.place == place);
            let wrong: Vec<Examined> = of_list.map(|gap| unseen(list, gap)).collect();
            if wrong.is_empty() {
                let message = format!("{list} may be listed");
                found.push(Examined::new(Topic::Permissions, Verdict::Well, message));
            }
            found.extend(wrong);
        }
        let message = "the service does not say which images a key may make, change or delete: a user those of their own, a tenant administrator all";
        found.push(Examined::new(Topic::Permissions, Verdict::Note, message));
        found
    }

    fn credentials(&self) -> Examined {
        let Some(place) = self.service.key_place() else {
            let message = "no key is sent: the endpoint is on this machine";
            return Examined::new(Topic::Credentials, Verdict::Note, message);
        };
        match self.service.key() {
            Ok(_) => Examined::new(
                Topic::Credentials,
                Verdict::Well,
                format!("there is an API key in {place}"),
            ),
            Err(error) => Examined::new(Topic::Credentials, Verdict::Wrong, error.to_string())
                .with_remedy("take the key from the user portal, API key management"),
        }
    }

    fn unreachable(&self, error: &CallError) -> Examined {
        let project = &self.settings.project;
        let wrong = |topic, remedy: String| {
            Examined::new(topic, Verdict::Wrong, format!("{project}: {error}")).with_remedy(remedy)
        };
        if error.is_unknown_to() {
            let remedy = "the key is not taken: is it still valid in the user portal?";
            wrong(Topic::Credentials, remedy.to_owned())
        } else if error.is_gone() {
            let remedy = format!("is `{project}` the code of the project, and the key one of it?");
            wrong(Topic::Settings, remedy)
        } else if error.is_forbidden() {
            let remedy = "the key may not see the project: take one of a member of it";
            wrong(Topic::Permissions, remedy.to_owned())
        } else {
            wrong(Topic::Endpoint, format!("can this machine reach {}?", self.endpoint))
        }
    }
}

/// What a list leaves unseen.
fn unseen(list: &str, gap: &Gap) -> Examined {
    let message = format!("not all of the {list} can be seen: {}", gap.message);
    Examined::new(Topic::Permissions, Verdict::Wrong, message)
        .with_remedy("as long as that is so, nothing is deleted: ask a tenant administrator")
}
