//! Faults on purpose, for tests of clients: whoever starts the server with `--faults` may ask for
//! them with `POST /faults`, one after the other. What can go wrong is the affair of each API.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Which requests go wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Script<F> {
    fault: F,
    /// How many requests.
    #[serde(default = "once")]
    times: u32,
    /// After so many that go well.
    #[serde(default)]
    after: u32,
    /// Only those with this method.
    #[serde(default)]
    method: Option<String>,
    /// Only those for this collection.
    #[serde(default)]
    collection: Option<String>,
}

fn once() -> u32 {
    1
}

/// The faults that are still to come.
#[derive(Debug)]
pub struct Faults<F> {
    scripts: Mutex<Vec<Script<F>>>,
}

impl<F> Default for Faults<F> {
    fn default() -> Self {
        Self { scripts: Mutex::default() }
    }
}

impl<F: Copy + DeserializeOwned> Faults<F> {
    /// Adds what a body asks for; an error where that is no fault.
    pub fn add(&self, body: &[u8]) -> Result<(), String> {
        let script =
            serde_json::from_slice(body).map_err(|error| format!("this is no fault: {error}"))?;
        self.lock().push(script);
        Ok(())
    }

    /// The fault of a request for a collection, if one is due that can befall it.
    pub fn take(&self, method: &str, collection: &str, can_be: impl Fn(F) -> bool) -> Option<F> {
        let is = |asked: &Option<String>, is: &str| asked.as_ref().is_none_or(|one| one == is);
        let mut scripts = self.lock();
        let is_it = |script: &Script<F>| {
            script.times > 0
                && is(&script.method, method)
                && is(&script.collection, collection)
                && can_be(script.fault)
        };
        let found = scripts.iter().position(is_it)?;
        if scripts[found].after > 0 {
            scripts[found].after -= 1;
            return None;
        }
        let fault = scripts[found].fault;
        scripts[found].times -= 1;
        scripts.retain(|script| script.times > 0);
        Some(fault)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Script<F>>> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Fault {
        One,
        Other,
    }

    #[test]
    fn a_fault_befalls_what_it_was_asked_for_and_as_often() {
        let faults = Faults::default();
        faults.add(br#"{"fault": "one", "times": 2, "method": "PUT"}"#).unwrap();
        faults.add(br#"{"fault": "other", "collection": "images"}"#).unwrap();
        assert_eq!(faults.take("GET", "sites", |_| true), None);
        assert_eq!(faults.take("PUT", "images", |fault| fault == Fault::Other), Some(Fault::Other));
        assert_eq!(faults.take("PUT", "images", |_| true), Some(Fault::One));
        assert_eq!(faults.take("PUT", "sites", |_| true), Some(Fault::One));
        assert_eq!(faults.take("PUT", "sites", |_| true), None);
        faults.add(br#"{"fault": "one", "after": 2}"#).unwrap();
        let taken: Vec<_> = (0..4).map(|_| faults.take("GET", "sites", |_| true)).collect();
        assert_eq!(taken, [None, None, Some(Fault::One), None]);
        assert!(faults.add(br#"{"fault": "third"}"#).unwrap_err().contains("no fault"));
    }
}
