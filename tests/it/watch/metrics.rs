//! Reads metrics in the text format of Prometheus, strictly, as its documentation describes it.

use std::collections::{BTreeMap, BTreeSet};

/// Every sample by its name with its labels. Whatever is not as the format says stops.
pub fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families: BTreeSet<&str> = BTreeSet::new();
    let (mut family, mut is_typed) = ("", false);
    assert!(text.ends_with('\n'), "the last line ends");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(families.insert(name), "{name} stands in two places");
            assert!(!help.is_empty());
            (family, is_typed) = (name, false);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family, "{line}");
            assert!(!is_typed && ["counter", "gauge"].contains(&kind), "{line}");
            is_typed = true;
            continue;
        }
        assert!(is_typed, "no type before {line}");
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        assert_eq!(name, family, "{line}");
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest),
            None => (Vec::new(), rest),
        };
        let names: BTreeSet<&String> = labels.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), labels.len(), "a label stands twice: {line}");
        let value = value.strip_prefix(' ').unwrap();
        let value = match value {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            number => number.parse().unwrap_or_else(|_| panic!("no number: {line}")),
        };
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let key = if labels.is_empty() {
            name.to_owned()
        } else {
            format!("{name}{{{}}}", labels.join(","))
        };
        assert!(samples.insert(key, value).is_none(), "twice: {line}");
    }
    samples
}

/// The labels behind an opening brace, and what follows the closing one.
fn labels(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut labels = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => match characters.next().unwrap().1 {
                    'n' => value.push('\n'),
                    escaped @ ('\\' | '"') => value.push(escaped),
                    other => panic!("\\{other} is no escape"),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (labels, rest.strip_prefix('}').unwrap()),
        }
    }
}

mod world {
    use std::time::Duration;

    use super::super::super::memory::{MemoryEngine, instance};
    use super::super::{Running, Script, VirtualClock, text};
    use super::parse;
    use stillframe::clock::Clock;
    use stillframe::watch::metrics::METRICS;

    /// Whatever instances are called, what is written can be read.
    #[tokio::test(start_paused = true)]
    async fn names_from_outside_break_no_line() {
        let clock = VirtualClock::from("2026-11-20T00:10:00Z");
        let engine = MemoryEngine::named("one", clock.clone());
        let mut odd = instance("web-1", &[]);
        odd.name = "web-\"1\"\\\n# TYPE x counter\nx 1".to_owned();
        engine.add(odd);
        engine.add(instance("db-1", &[]));
        let rest = "  source: {match: [{names: [\"web-*\"]}]}\n  schedule: {cron: \"0 * * * *\"}\n  \
                    retention: {last: 3}\n  objectives: {rpo: 90m}\n";
        let paused = "  source: {match: [{names: [db-1]}]}\n  schedule: {cron: \"0 * * * *\"}\n  retention: \
                      {last: 3}\n  paused: {creates: true, until: 2026-12-01, reason: moving}\n";
        let text = text(&["one"], "", &[("hourly", "one", rest), ("other", "one", paused)]);
        let directory = tempfile::tempdir().unwrap();
        let script = Script::new(&text, vec![engine], directory.path());
        let running = Running::start(script, clock.clone(), Duration::from_mins(1));
        tokio::time::sleep(Duration::from_hours(3)).await;
        let written = stillframe::watch::metrics::text(&running.status.snapshot(), clock.now());
        let metrics = parse(&written);
        let of = |begin: &str| -> Vec<f64> {
            let found = metrics.iter().filter(|(name, _)| name.starts_with(begin));
            found.map(|(_, value)| *value).collect()
        };
        assert_eq!(of("stillframe_source_newest_ready_age_seconds{"), [600.0]);
        assert_eq!(of("stillframe_source_rpo_breach_seconds{"), [80.0 * 60.0]);
        assert_eq!(of("stillframe_policy_rpo_seconds{"), [5_400.0]);
        assert_eq!(of("stillframe_policy_paused{"), [1.0]);
        assert_eq!(of("stillframe_policy_paused_until_timestamp_seconds{"), [1_796_083_200.0]);
        assert_eq!(of("stillframe_instances{"), [2.0]);
        // A pause that has ended is none.
        let at = |text: &str| text.parse().unwrap();
        let count = |now: jiff::Timestamp| {
            let written = stillframe::watch::metrics::text(&running.status.snapshot(), now);
            parse(&written).keys().filter(|name| name.contains("policy_paused")).count()
        };
        assert_eq!(count(at("2026-11-30T23:59:59Z")), 2);
        assert_eq!(count(at("2026-12-01T00:00:00Z")), 0);
        // Whatever is written is listed.
        for name in metrics.keys() {
            let name = name.split('{').next().unwrap();
            assert!(METRICS.iter().any(|(known, ..)| *known == name), "{name}");
        }
        running.stop().await;
    }
}
