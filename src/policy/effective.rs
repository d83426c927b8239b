//! The effective policy: what is written, over the defaults, over what is built in.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::finding::{Place, SourceFile};
use super::meant::{self, Origin};
use super::naming;
use super::written::PolicySpec;
use super::yaml::{Node, unescape};
use crate::inventory::Capabilities;

/// These are inherited as a whole or not at all.
const WHOLE: [&str; 1] = ["retention"];

/// A layer of values and the document they are written in.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    /// The values, without what is wrong in them.
    pub(super) json: &'a Value,
    /// The document.
    pub(super) document: &'a Node,
    /// Where in the document the values stand.
    pub(super) prefix: &'a str,
    /// The file of the document.
    pub(super) file: &'a Arc<SourceFile>,
}

impl Layer<'_> {
    fn has(&self, pointer: &str) -> bool {
        self.json.pointer(pointer).is_some()
    }

    /// Whether the value at a pointer is this layer's affair: it stands here, or what stands here
    /// in its place is no mapping and hides whatever lies under it.
    fn decides(&self, pointer: &str) -> bool {
        let mut value = self.json;
        for token in pointer.split('/').skip(1) {
            let Value::Object(entries) = value else { return true };
            match entries.get(&unescape(token)) {
                Some(inner) => value = inner,
                None => return false,
            }
        }
        true
    }

    /// Where a value stands, or the innermost mapping around it that is written.
    pub(super) fn place(&self, pointer: &str) -> Place {
        let mut pointer = format!("{}{pointer}", self.prefix);
        loop {
            if let Some(node) = self.document.at(&pointer) {
                let (parent, token) = pointer.rsplit_once('/').unwrap_or(("", ""));
                let key =
                    self.document.at(parent).and_then(|parent| parent.entry(&unescape(token)));
                let is_scalar = matches!(node.value, super::yaml::Value::Scalar(_));
                let span = match key {
                    Some(entry) if !is_scalar || node.span.is_empty() => entry.key_span.clone(),
                    _ => node.span.clone(),
                };
                return Place { file: Arc::clone(self.file), span };
            }
            match pointer.rfind('/') {
                Some(slash) => pointer.truncate(slash),
                None => {
                    return Place { file: Arc::clone(self.file), span: 0..0 };
                }
            }
        }
    }
}

impl Layer<'_> {
    /// Where the key of a value stands.
    pub(super) fn key_place(&self, pointer: &str) -> Place {
        let whole = format!("{}{pointer}", self.prefix);
        let (parent, token) = whole.rsplit_once('/').unwrap_or(("", ""));
        match self.document.at(parent).and_then(|parent| parent.entry(&unescape(token))) {
            Some(entry) => Place { file: Arc::clone(self.file), span: entry.key_span.clone() },
            None => self.place(pointer),
        }
    }
}

/// What a layer is to a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// What is different in the environment.
    Overlay,
    /// The document itself.
    Own,
    /// The defaults of the configuration.
    Defaults,
}

/// All layers of one document, put together.
pub(super) struct Layers<'a> {
    /// The document itself: what is missing would be written there.
    pub(super) own: Layer<'a>,
    /// From the one that wins to the one that gives way.
    stack: Vec<(Level, Layer<'a>)>,
    /// The values that hold.
    pub(super) json: Value,
}

impl<'a> Layers<'a> {
    /// `overlays` go over the document, the first over the others; `defaults` go under it, the
    /// first over the others.
    pub(super) fn new(
        overlays: Vec<Layer<'a>>,
        own: Layer<'a>,
        defaults: Vec<Layer<'a>>,
        built_in: &Value,
    ) -> Self {
        let overlays = overlays.into_iter().map(|layer| (Level::Overlay, layer));
        let defaults = defaults.into_iter().map(|layer| (Level::Defaults, layer));
        let stack: Vec<_> = overlays.chain([(Level::Own, own)]).chain(defaults).collect();
        let mut json = json!({});
        for (_, layer) in &stack {
            inherit(&mut json, layer.json, true);
        }
        inherit(&mut json, built_in, false);
        Self { own, stack, json }
    }

    /// The layer that a value comes from; `None` where it is built in.
    fn layer(&self, pointer: &str) -> Option<(Level, Layer<'a>)> {
        let block = WHOLE.iter().find_map(|block| {
            let at = format!("{pointer}/").find(&format!("/{block}/"))?;
            pointer.get(..at + 1 + block.len())
        });
        let decides = |(_, layer): &&(Level, Layer<'a>)| {
            let is_whole = block.is_some_and(|block| layer.has(block));
            is_whole || layer.decides(pointer)
        };
        let found = self.stack.iter().find(decides).copied()?;
        found.1.decides(pointer).then_some(found)
    }

    /// Where a value stands; for a value that is built in, where it would be written.
    pub(super) fn place(&self, pointer: &str) -> Place {
        self.layer(pointer).map_or(self.own, |(_, layer)| layer).place(pointer)
    }

    /// Where the key of a value stands.
    pub(super) fn key_place(&self, pointer: &str) -> Place {
        self.layer(pointer).map_or(self.own, |(_, layer)| layer).key_place(pointer)
    }

    /// A place of the document itself, by a pointer from its beginning.
    pub(super) fn document_place(&self, pointer: &str) -> Place {
        Layer { prefix: "", ..self.own }.place(pointer)
    }

    pub(super) fn origin(&self, pointer: &str) -> Origin {
        match self.layer(pointer) {
            Some((Level::Own, layer)) => Origin::Policy(layer.place(pointer)),
            Some((Level::Overlay, layer)) => Origin::Overlay(layer.place(pointer)),
            Some((Level::Defaults, layer)) => Origin::Defaults(layer.place(pointer)),
            None => Origin::BuiltIn,
        }
    }

    /// Every value that holds, with where it comes from, in the order of the language.
    pub(super) fn list(&self) -> Vec<meant::Effective> {
        let mut list = Vec::new();
        let spec = PolicySpec::deserialize(&self.json).ok();
        if let Some(ordered) = spec.and_then(|spec| serde_yaml::to_value(spec).ok()) {
            self.flatten(&ordered, "", "", &mut list);
        }
        list
    }

    fn flatten(
        &self,
        value: &serde_yaml::Value,
        path: &str,
        pointer: &str,
        list: &mut Vec<meant::Effective>,
    ) {
        if let serde_yaml::Value::Mapping(entries) = value {
            for (key, value) in entries {
                let key = key.as_str().unwrap_or_default();
                let dot = if path.is_empty() { "" } else { "." };
                let token = super::yaml::escape(key);
                self.flatten(
                    value,
                    &format!("{path}{dot}{key}"),
                    &format!("{pointer}/{token}"),
                    list,
                );
            }
            return;
        }
        list.push(meant::Effective {
            path: path.to_owned(),
            value: self.json.pointer(pointer).cloned().unwrap_or_default(),
            origin: self.origin(pointer),
        });
    }
}

/// Adds what is not there yet, mapping by mapping; some only as a whole.
fn inherit(over: &mut Value, under: &Value, keeps_whole: bool) {
    let (Value::Object(over), Value::Object(under)) = (over, under) else {
        return;
    };
    for (key, value) in under {
        match over.get_mut(key) {
            None => {
                over.insert(key.clone(), value.clone());
            }
            Some(_) if keeps_whole && WHOLE.contains(&key.as_str()) => {}
            Some(inner) => inherit(inner, value, keeps_whole),
        }
    }
}

/// What holds where nobody says anything.
pub(super) fn built_in(engine: Option<&str>, capabilities: Option<&Capabilities>) -> Value {
    let mut values = json!({
        "capture": {"disks": "all", "consistency": "crash"},
        "schedule": {"timeZone": "UTC", "jitter": "0"},
        "retention": {"atLeast": 1},
        "lifecycle": {"grace": "24h", "sourceGoneGrace": "14d"},
        "naming": {"name": naming::NAME_DEFAULT, "description": naming::DESCRIPTION_DEFAULT},
    });
    if let Some(engine) = engine {
        values["engine"] = Value::from(engine);
    }
    if let Some(capabilities) = capabilities {
        if let Some(kind) = capabilities.kinds.first() {
            values["capture"]["kind"] = Value::from(kind.word());
        }
        if let Some(location) = capabilities.locations.first() {
            values["storage"] = json!({"location": location});
        }
    }
    values
}
