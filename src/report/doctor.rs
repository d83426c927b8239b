//! What examining the engines has found, for people and as JSON.

use schemars::JsonSchema;
use serde::Serialize;

use super::text::{clean, count, style, table};
use crate::engine::{Examined, Verdict};

/// The version of the document. The first number changes when a reader must change.
const FORMAT_VERSION: &str = "1.0";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Diagnosis {
    /// The version of this document.
    pub format_version: String,
    /// Whether nothing is wrong and everything could be looked at.
    pub well: bool,
    /// What belongs to no engine.
    pub examined: Vec<Examined>,
    /// Each engine, in the order of their names.
    pub engines: Vec<EngineDiagnosis>,
}

/// What was found of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EngineDiagnosis {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Whether nothing is wrong and everything could be looked at.
    pub well: bool,
    /// What was found.
    pub examined: Vec<Examined>,
}

fn is_well(examined: &[Examined]) -> bool {
    examined.iter().all(|one| matches!(one.verdict, Verdict::Well | Verdict::Note))
}

impl EngineDiagnosis {
    /// What was found of an engine.
    pub fn new(name: &str, kind: &str, examined: Vec<Examined>) -> Self {
        let well = is_well(&examined) && !examined.is_empty();
        Self { name: name.to_owned(), kind: kind.to_owned(), well, examined }
    }
}

impl Diagnosis {
    /// What was found of the engines, and beside them.
    pub fn new(examined: Vec<Examined>, engines: Vec<EngineDiagnosis>) -> Self {
        let well = is_well(&examined) && engines.iter().all(|engine| engine.well);
        Self { format_version: FORMAT_VERSION.to_owned(), well, examined, engines }
    }

    fn count(&self, verdict: Verdict) -> usize {
        let engines = self.engines.iter().flat_map(|engine| &engine.examined);
        engines.chain(&self.examined).filter(|one| one.verdict == verdict).count()
    }
}

/// Everything in lines, engine by engine, and how much of what.
pub fn diagnosis_text(diagnosis: &Diagnosis) -> String {
    let heading = style("heading");
    let mut text = String::new();
    if !diagnosis.examined.is_empty() {
        text.push_str(&lines(&diagnosis.examined));
        text.push('\n');
    }
    for engine in &diagnosis.engines {
        text.push_str(&format!(
            "{}{}{} ({})\n",
            heading.render(),
            clean(&engine.name),
            heading.render_reset(),
            clean(&engine.kind),
        ));
        text.push_str(&lines(&engine.examined));
        text.push('\n');
    }
    let found = [
        (Verdict::Wrong, "wrong"),
        (Verdict::Unknown, "unknown"),
        (Verdict::Note, "worth knowing"),
    ];
    let found: Vec<String> = found
        .into_iter()
        .map(|(verdict, word)| (diagnosis.count(verdict), word))
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{number} {word}"))
        .collect();
    let well = diagnosis.engines.iter().filter(|engine| engine.well).count();
    text.push_str(&format!("{}, {well} well", count(diagnosis.engines.len(), "engine")));
    if !found.is_empty() {
        text.push_str(&format!("; {}", found.join(", ")));
    }
    text.push('\n');
    text
}

/// A line for each thing, and one below it with what to do.
fn lines(examined: &[Examined]) -> String {
    let mut rows = Vec::new();
    let mut colours = Vec::new();
    for one in examined {
        let colour = match one.verdict {
            Verdict::Well => "create",
            Verdict::Note => "back",
            Verdict::Unknown => "change",
            Verdict::Wrong => "delete",
        };
        rows.push(vec![
            one.verdict.word().to_owned(),
            one.topic.word().to_owned(),
            clean(&one.message),
        ]);
        colours.push(colour);
        if let Some(remedy) = &one.remedy {
            rows.push(vec![String::new(), String::new(), format!("→ {}", clean(remedy))]);
            colours.push("dim");
        }
    }
    let lines = table(&rows).into_iter().zip(colours).map(|(line, colour)| {
        let style = style(colour);
        // The first word has the colour; the line below it has it whole.
        let word = line.find(' ').filter(|at| *at > 0).unwrap_or(line.len());
        let (word, rest) = line.split_at(word);
        format!("  {}{word}{}{rest}\n", style.render(), style.render_reset())
    });
    lines.collect()
}
