//! Image names and ownership labels are functions of (policy, source id, slot), and back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use stillframe::name::{
    Key, Ownership, PolicyName, Slot, SourceId, is_label_key, is_label_value, is_rfc1035_label,
};

use super::law;

fn keys() -> impl Strategy<Value = Key> {
    let slots =
        (0_i64..4_000_000_000).prop_map(|second| Slot::at(Timestamp::from_second(second).unwrap()));
    ("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", "[-_a-z0-9]{1,63}", slots).prop_map(
        |(policy, source, slot)| Key {
            policy: PolicyName::parse(&policy).unwrap(),
            source: SourceId::parse(&source).unwrap(),
            slot,
        },
    )
}

#[test]
fn labels_read_back_to_their_key() {
    law(
        (keys(), proptest::collection::btree_map("[a-z]{1,9}", "[a-z]{0,9}", 0..4)),
        |(key, others)| {
            let mut labels: BTreeMap<String, String> = key.labels();
            for (label, value) in &labels {
                prop_assert!(is_label_key(label) && is_label_value(value), "{label}={value}");
            }
            labels.extend(others);
            prop_assert_eq!(Key::from_labels(&labels), Ownership::Ours(key));
            Ok(())
        },
    );
}

#[test]
fn one_changed_label_is_never_another_key() {
    law((keys(), keys(), 0_usize..4), |(key, other, which)| {
        let mut labels = key.labels();
        let (label, value) = other.labels().into_iter().nth(which).unwrap();
        let is_same = labels.insert(label, value.clone()).as_ref() == Some(&value);
        prop_assert_eq!(matches!(Key::from_labels(&labels), Ownership::Ours(_)), is_same);
        Ok(())
    });
}

#[test]
fn names_are_rfc_1035_labels_whatever_the_prefix() {
    law((keys(), "\\PC{0,80}"), |(key, prefix)| {
        for prefix in [prefix, key.default_prefix()] {
            let name = key.image_name(&prefix);
            prop_assert!(is_rfc1035_label(&name), "{name}");
        }
        Ok(())
    });
}

#[test]
fn two_keys_never_share_a_name() {
    // Policies and sources whose texts run together, and slots that differ by seconds: what the
    // readable part of a name cannot tell apart.
    let alike =
        ("a(-a){0,31}", "a(-a){0,31}", 0_i64..120).prop_map(|(policy, source, second)| Key {
            policy: PolicyName::parse(&policy).unwrap(),
            source: SourceId::parse(&source).unwrap(),
            slot: Slot::at(Timestamp::from_second(second).unwrap()),
        });
    law(proptest::collection::btree_set(alike, 2..40), |keys| {
        let names: std::collections::BTreeSet<String> =
            keys.iter().map(|key| key.image_name(&key.default_prefix())).collect();
        prop_assert_eq!(names.len(), keys.len());
        Ok(())
    });
}
