//! The firings of a real cron, recorded: 300 rows, six zones, clock changes included.

use jiff::Timestamp;
use stillframe::elapsed::Elapsed;
use stillframe::schedule::{Crontab, Firings, Zone};

/// The recording stops after this many firings.
const FIRINGS_MAX: usize = 40;

#[test]
fn a_real_cron_fires_as_recorded() {
    let recording = include_str!("../data/cron/vixie.tsv");
    let mut rows = 0;
    let mut wrong = Vec::new();
    for line in recording.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [zone, expression, from, firings, days] = columns[..] else {
            panic!("not a row of five columns: {line}");
        };
        rows += 1;
        let recorded: Vec<i64> = firings
            .split(',')
            .filter(|text| !text.is_empty())
            .map(|text| text.parse().unwrap())
            .collect();
        let crontab = match Crontab::parse(expression) {
            Ok(crontab) => crontab,
            Err(errors) => {
                wrong.push(format!("{expression}: {errors:?}"));
                continue;
            }
        };
        let zone = Zone::find(zone).unwrap();
        let from = Timestamp::from_second(from.parse().unwrap()).unwrap();
        let until = Elapsed::days(days.parse().unwrap()).after(from);
        let found: Vec<i64> = Firings::new(&crontab, &zone, from, until)
            .map(Timestamp::as_second)
            .take(FIRINGS_MAX)
            .collect();
        if found != recorded {
            wrong.push(format!("{line}\n  found    {found:?}"));
        }
    }
    assert_eq!(rows, 300);
    assert!(wrong.is_empty(), "{} of {rows} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}
