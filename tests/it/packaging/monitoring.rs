//! The alert rules and the dashboard name metrics and labels that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use stillframe::elapsed::Elapsed;
use stillframe::engine::Calls;
use stillframe::name::{PolicyName, Slot, SourceId};
use stillframe::plan::guard::Guard;
use stillframe::plan::{Action, Summary};
use stillframe::watch::metrics::{self, METRICS};
use stillframe::watch::{
    EngineFacts, PolicyFacts, Role, RoundFacts, Snapshot, SourceFacts, Tally, Validity,
};

use super::{example, yaml};
use crate::watch::metrics::parse;

type Names = BTreeSet<String>;

/// One of everything that can be seen.
fn everything() -> Snapshot {
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let policy = PolicyName::parse("web").unwrap();
    let id = SourceId::parse("1").unwrap();
    let source = SourceFacts {
        policy: policy.clone(),
        id: id.clone(),
        name: "web-1".to_owned(),
        newest: Some(Slot::at(now)),
        rpo: Some(Elapsed::hours(2)),
        next: Some(now),
    };
    let round = RoundFacts {
        plan: "plan".to_owned(),
        now,
        ended_at: now,
        summary: Summary::default(),
        results: BTreeMap::new(),
        held: Guard::ALL.iter().map(|guard| (*guard, 1)).collect(),
        missed: BTreeMap::new(),
        gaps: Vec::new(),
        is_whole: true,
        has_all_instances: true,
    };
    let mut snapshot = Snapshot {
        role: Role::Running,
        reading_since: Some(now),
        validity: Validity { is_valid: true, read_at: Some(now), ..Validity::default() },
        digest: "digest".to_owned(),
        name: "here".to_owned(),
        policy_rows: Arc::default(),
        page_version: 1,
        since: Some(now),
        policies: Arc::new(vec![PolicyFacts {
            name: policy.clone(),
            engine: "one".to_owned(),
            rpo_seconds: Some(7_200),
            paused: Some(None),
        }]),
        engines: BTreeMap::new(),
        tally: Tally {
            messages: ["sent", "failed", "dropped"]
                .map(|result| (("ops".to_owned(), result), 1))
                .into(),
            waiting: [("ops".to_owned(), 1)].into(),
            pings: [("sent", 1)].into(),
        },
    };
    let status = snapshot.engines.entry("one".to_owned()).or_default();
    let mut facts = EngineFacts {
        seen_at: Some(now),
        instances: Some(1),
        unprotected: BTreeSet::new(),
        exempt: BTreeSet::new(),
        sources: vec![source],
        stored: BTreeMap::new(),
        round,
    };
    facts.stored.entry(Some(policy.clone())).or_default().images.insert("READY", 3);
    status.facts = Some(Arc::new(facts));
    status.retry_at = Some(now);
    status.round_since = Some(now);
    status.load.count = 1;
    status.load.since = Some(now);
    status.rounds = BTreeMap::from([("well", 1)]);
    status.actions =
        BTreeMap::from([((Action::Create, "done"), 1), ((Action::Create, "failed"), 1)]);
    status.missed = BTreeMap::from([((policy, id), 1)]);
    status.calls = Some(Calls { sent: 1, throttled: 0 });
    snapshot
}

/// The metrics that the program exposes: of each the labels, and of each label the values seen here.
fn exposed() -> BTreeMap<String, BTreeMap<String, Names>> {
    let now = "2026-11-21T12:00:00Z".parse().unwrap();
    let mut exposed: BTreeMap<String, BTreeMap<String, Names>> = BTreeMap::new();
    for sample in parse(&metrics::text(&everything(), now)).into_keys() {
        let (name, labels) = sample.split_once('{').unwrap_or((&sample, ""));
        let of = exposed.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap();
            of.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    for (name, ..) in METRICS {
        assert!(exposed.contains_key(name), "`everything` shows no {name}");
    }
    // What Prometheus says of its own.
    exposed.insert("up".to_owned(), BTreeMap::new());
    for labels in exposed.values_mut() {
        for target in ["job", "instance"] {
            labels.insert(target.to_owned(), Names::new());
        }
    }
    exposed
}

/// Functions and words of `PromQL` that are used, and no more: a name that is mistyped is none of them.
const WORDS: [&str; 17] = [
    "absent", "and", "bottomk", "bool", "changes", "count", "increase", "max", "min", "offset",
    "or", "rate", "sum", "time", "topk", "unless", "vector",
];
/// Labels in brackets follow them.
const GROUPINGS: [&str; 4] = ["by", "on", "group_left", "ignoring"];
/// Labels with few values, which the fixture has all of or those that are asked for.
const CLOSED: [&str; 3] = ["role", "guard", "result"];

/// What an expression names.
#[derive(Debug, Default)]
struct Named {
    /// Metrics in their order, with the labels and values of their matchers.
    metrics: Vec<(String, Vec<(String, String)>)>,
    /// Labels that are grouped by.
    by: Names,
    /// Labels that are matched on or taken over.
    on: Names,
}

/// Takes an expression apart, as far as names go.
fn named(expression: &str) -> Named {
    let mut named = Named::default();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            rest = &rest[rest.find(']').expect("an open range") + 1..];
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after.trim_start();
            if GROUPINGS.contains(&word) {
                let inner = rest.strip_prefix('(').expect("labels in brackets");
                let (labels, after) = inner.split_once(')').unwrap();
                let into = if word == "by" { &mut named.by } else { &mut named.on };
                into.extend(labels.split(',').map(|label| label.trim().to_owned()));
                rest = after;
            } else if word != "Inf" && !WORDS.contains(&word) {
                let (matchers, after) = matchers(rest);
                named.metrics.push((word.to_owned(), matchers));
                rest = after;
            }
        } else {
            assert!(!['"', '{', '$'].contains(&first), "{rest} in {expression}");
            rest = &rest[first.len_utf8()..];
        }
    }
    named
}

/// The labels and values of matchers in braces, and what follows.
fn matchers(text: &str) -> (Vec<(String, String)>, &str) {
    let Some(inner) = text.strip_prefix('{') else { return (Vec::new(), text) };
    let (inner, after) = inner.split_once('}').expect("open braces");
    let matchers = inner.split(',').map(|matcher| {
        let (label, value) = matcher.split_once('"').expect("a value in quotes");
        let label = label.trim().trim_end_matches(['=', '!', '~']);
        (label.to_owned(), value.trim_end_matches('"').to_owned())
    });
    (matchers.collect(), after)
}

/// Labels that a text between braces names: `{{ $labels.engine }}`, `{{engine}}`.
fn in_template(text: &str) -> Names {
    let inner = text.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0);
    let words = inner.flat_map(|inner| inner.split_whitespace());
    let ours = |word: &str| match word.strip_prefix("$labels.") {
        Some(label) => Some(label.to_owned()),
        None if ["if", "else", "end", "$value", "|", "humanizeDuration"].contains(&word) => None,
        None => Some(word.to_owned()),
    };
    words.filter_map(ours).collect()
}

/// Whether all that an expression and the texts beside it name is there.
fn mistakes(expression: &str, templates: &[&str]) -> Vec<String> {
    let exposed = exposed();
    let named = named(expression);
    let mut mistakes = Vec::new();
    let mut all = Names::new();
    for (metric, matchers) in &named.metrics {
        let Some(labels) = exposed.get(metric) else {
            mistakes.push(format!("no metric {metric}"));
            continue;
        };
        all.extend(labels.keys().cloned());
        for (label, value) in matchers {
            match labels.get(label) {
                None => mistakes.push(format!("{metric} has no label {label}")),
                Some(values) if CLOSED.contains(&label.as_str()) && !values.contains(value) => {
                    mistakes.push(format!("{metric} has no {label}=\"{value}\""));
                }
                Some(_) => {}
            }
        }
    }
    if named.metrics.is_empty() {
        mistakes.push("it looks at nothing".to_owned());
    }
    let grouped = named.by.union(&named.on);
    mistakes.extend(grouped.filter(|l| !all.contains(*l)).map(|l| format!("no label {l}")));
    // What is left of it has the labels of its first metric, or those it is grouped by.
    let first = named.metrics.first().and_then(|(metric, _)| exposed.get(metric));
    let mut left = named.by;
    if left.is_empty() {
        left = first.map(|labels| labels.keys().cloned().collect()).unwrap_or_default();
    }
    for label in templates.iter().flat_map(|text| in_template(text)) {
        if !left.contains(&label) {
            mistakes.push(format!("its result has no label {label}"));
        }
    }
    mistakes
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

#[test]
fn what_is_not_there_is_found() {
    let of = |expression: &str| mistakes(expression, &[]).join(", ");
    assert_eq!(of("stillframe_rolls"), "no metric stillframe_rolls");
    assert_eq!(of("summ(up)"), "no metric summ");
    assert_eq!(of("up{zone=\"a\"}"), "up has no label zone");
    assert_eq!(of("stillframe_role{role=\"runs\"}"), "stillframe_role has no role=\"runs\"");
    assert_eq!(of("sum by (guard) (rate(stillframe_rounds_total[1h]))"), "no label guard");
    assert_eq!(of("1 > time()"), "it looks at nothing");
    assert_eq!(of("stillframe_engine_gaps and on (engine) stillframe_instances > 3"), "");
    let lost =
        mistakes("sum by (engine) (stillframe_images)", &["{{ $labels.state }}", "{{engine}}"]);
    assert_eq!(lost, ["its result has no label state"]);
}

#[test]
fn alert_rules_name_what_is_there() {
    let rules = yaml("monitoring/alerts.yml");
    let tests = yaml("monitoring/alerts-test.yml");
    let cases: Vec<&Value> = tests["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap())
        .collect();
    let mut names = Names::new();
    for rule in
        rules["groups"].as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap())
    {
        let name = text(rule, "/alert");
        assert!(names.insert(name.to_owned()), "{name} stands twice");
        let told = [text(rule, "/annotations/summary"), text(rule, "/annotations/description")];
        assert_eq!(mistakes(text(rule, "/expr"), &told), [""; 0], "{name}");
        assert!(["critical", "warning", "info"].contains(&text(rule, "/labels/severity")));
        for fires in [true, false] {
            let is_one = |case: &&&Value| {
                case["alertname"] == name
                    && case["exp_alerts"].as_array().unwrap().is_empty() != fires
            };
            assert!(cases.iter().any(|case| is_one(&case)), "{name}: no test, fires: {fires}");
        }
    }
    for case in cases {
        assert!(names.contains(text(case, "/alertname")), "{case}");
    }
    // Nothing is tried with what is not there.
    for test in tests["tests"].as_array().unwrap() {
        for series in test["input_series"].as_array().into_iter().flatten() {
            assert_eq!(mistakes(text(series, "/series"), &[]), [""; 0], "{series}");
        }
    }
    // What is asked to be told is: each of these has an alert.
    for metric in [
        "up",
        "stillframe_config_valid",
        "stillframe_held_images",
        "stillframe_round_ended_timestamp_seconds",
        "stillframe_source_missed_slots_total",
        "stillframe_source_rpo_breach_seconds",
    ] {
        assert!(example("monitoring/alerts.yml").contains(metric), "no alert looks at {metric}");
    }
}

#[test]
fn the_dashboard_names_what_is_there() {
    let dashboard: Value = serde_json::from_str(&example("monitoring/dashboard.json")).unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = text(panel, "/title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id stands twice");
        let of = |what: &str| panel["gridPos"][what].as_u64().unwrap();
        for place in (of("x")..of("x") + of("w"))
            .flat_map(|x| (of("y")..of("y") + of("h")).map(move |y| (x, y)))
        {
            assert!(place.0 < 24 && taken.insert(place), "{title} stands over another one");
        }
        for target in panel["targets"].as_array().unwrap() {
            let expression = text(target, "/expr");
            let found = mistakes(expression, &[text(target, "/legendFormat")]);
            assert_eq!(found, [""; 0], "{title}: {expression}");
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        assert_eq!(mistakes(text(annotation, "/expr"), &[]), [""; 0]);
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: BTreeMap<&str, &str> =
        variables.iter().map(|v| (text(v, "/name"), text(v, "/query"))).collect();
    let inner = variables["engine"].strip_prefix("label_values(").unwrap().trim_end_matches(')');
    let (metric, label) = inner.split_once(", ").unwrap();
    assert!(exposed()[metric].contains_key(label), "{inner}");
    // Every variable that is used is one.
    for rest in example("monitoring/dashboard.json").split('$').skip(1) {
        let rest = rest.trim_start_matches('{');
        let used = rest.split(|c: char| !c.is_ascii_alphabetic() && c != '_').next().unwrap();
        assert!(used == "__all" || variables.contains_key(used), "no variable {used}");
    }
}
