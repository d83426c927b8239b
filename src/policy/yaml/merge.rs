//! Merge keys: `<<` puts entries of other mappings beside those that are written out.

use super::{Entry, Node, Value};

/// Puts what `<<` refers to beside the entries that are written out, which win.
pub(super) fn merged(mut entries: Vec<Entry>) -> Vec<Entry> {
    let Some(position) = entries.iter().position(|entry| entry.key == "<<") else {
        return entries;
    };
    let is_mapping = |node: &Node| matches!(node.value, Value::Map(_));
    let merge = &entries[position].value;
    let mergeable = match &merge.value {
        Value::List(items) => items.iter().all(is_mapping),
        _ => is_mapping(merge),
    };
    if !mergeable {
        return entries;
    }
    let merge = entries.remove(position).value;
    let sources = match merge.value {
        Value::List(items) => items,
        value => vec![Node { span: merge.span, value }],
    };
    for source in sources {
        let Value::Map(inherited) = source.value else {
            continue;
        };
        for entry in inherited {
            if !entries.iter().any(|own| own.key == entry.key) {
                entries.push(entry);
            }
        }
    }
    entries
}
