//! What belongs to one engine alone, as far as the settings of all of them say it.

use std::collections::BTreeMap;

use super::Loader;
use crate::inventory::Capabilities;
use crate::policy::effective::Layers;
use crate::policy::finding::{Code, Finding};
use crate::policy::meant::EngineConfig;
use crate::policy::yaml::escape;

impl Loader<'_> {
    /// Two engines would each take the images of the other for its own: none of them would be opened.
    pub(super) fn claimed_once(
        &mut self,
        engine: &str,
        capabilities: &Capabilities,
        others: &BTreeMap<String, EngineConfig>,
        layers: &Layers<'_>,
    ) {
        let claims =
            |other: &&EngineConfig, place: &String| other.capabilities.claims.contains(place);
        for (name, other) in others {
            let Some(place) = capabilities.claims.iter().find(|place| claims(&other, place)) else {
                continue;
            };
            let message = format!("{place} belongs to the engine `{name}` as well");
            let at = layers.place(&format!("/engines/{}", escape(engine)));
            self.findings.push(
                Finding::new(Code::BadSettings, at, message)
                    .hint("what holds images goes into one engine: each would take the images of the other for its own"),
            );
        }
    }
}
