//! What adopting leaves alone, and what the next plan makes of what it takes.

use super::text::{clean, count, style, table};
use crate::adopt::Adoption;

/// What the plan does not say, in lines.
pub fn adoption_text(adoption: &Adoption) -> String {
    let mut text = String::new();
    if !adoption.left_alone.is_empty() {
        let style = style("held");
        let title = format!("! left alone ({})", adoption.left_alone.len());
        text.push_str(&format!("\n{}{title}{}\n", style.render(), style.render_reset()));
        let rows: Vec<Vec<String>> = adoption
            .left_alone
            .iter()
            .map(|one| vec![format!("! {}", clean(&one.name)), clean(&one.reason)])
            .collect();
        for line in table(&rows) {
            text.push_str(&format!("{line}\n"));
        }
    }
    let adopted = adoption.plan.changes.len();
    if adoption.already > 0 {
        let is = if adoption.already == 1 { "belongs" } else { "belong" };
        text.push_str(&format!(
            "\n{} {is} to the policy already.\n",
            count(adoption.already, "image")
        ));
    }
    if adopted > 0 {
        let next = match adoption.let_go {
            0 if adopted == 1 => "keeps it".to_owned(),
            0 => "keeps them all".to_owned(),
            1 if adopted == 1 => "lets go of it, by its retention".to_owned(),
            number if number == adopted => "lets go of all of them, by its retention".to_owned(),
            number => format!("lets go of {number} of them, by its retention"),
        };
        text.push_str(&format!("\nThe next plan {next}; it deletes nothing for this.\n"));
    }
    text
}
