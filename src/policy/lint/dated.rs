//! What has ended, and what ends soon.

use jiff::Timestamp;

use super::about;
use crate::elapsed::Elapsed;
use crate::policy::finding::{Code, Finding};
use crate::policy::meant::{Policies, Window};

/// An exemption that ends within this time is worth a word.
const SOON: Elapsed = Elapsed::days(14);

pub(super) fn lint(policies: &Policies, now: Timestamp) -> Vec<Finding> {
    let has_ended = |until: Timestamp| until <= now;
    let mut findings = Vec::new();
    for policy in &policies.policies {
        let pause = policy.paused.as_ref().and_then(|pause| pause.until);
        if let Some(until) = pause.filter(|until| has_ended(*until)) {
            let message = format!("the pause of `{}` ended {}", policy.name, date(until));
            findings.push(
                about(policy, Code::HasEnded, "paused.until", message)
                    .hint("take it out, or say anew until when"),
            );
        }
        for hold in &policy.holds {
            if let Some(until) = hold.until.filter(|until| has_ended(*until)) {
                let message = format!("this hold ended {}: it holds nothing", date(until));
                findings.push(
                    Finding::new(Code::HasEnded, hold.place.clone(), message)
                        .of(&policy.name)
                        .hint("take it out, or say anew until when"),
                );
            }
        }
        for blackout in &policy.blackouts {
            let Window::Once { until, .. } = blackout.window else { continue };
            if has_ended(until) {
                let message = format!("this blackout ended {}", date(until));
                let finding = Finding::new(Code::HasEnded, blackout.place.clone(), message)
                    .hint("take it out: it stops nothing any more");
                // One of the configuration holds for all policies, and is said once.
                let is_shared = blackout.place.file.path == policies.config.file;
                findings.push(if is_shared { finding } else { finding.of(&policy.name) });
            }
        }
    }
    let soon = SOON.after(now);
    for exemption in &policies.config.exemptions {
        if !exemption.has_ended(now) && exemption.until <= soon {
            let message = format!(
                "the exemption of `{}` ends {}; {} answers for it",
                exemption.source,
                date(exemption.until),
                exemption.owner
            );
            findings.push(
                Finding::new(Code::EndsSoon, exemption.place.clone(), message)
                    .hint("from then on it is an error: protect the source until then, or say anew until when"),
            );
        }
    }
    findings
}

/// The instant, and where it is a midnight the day alone.
fn date(instant: Timestamp) -> String {
    let text = instant.strftime("on %Y-%m-%d at %H:%M UTC").to_string();
    text.strip_suffix(" at 00:00 UTC").map(str::to_owned).unwrap_or(text)
}
