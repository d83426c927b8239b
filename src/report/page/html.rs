//! For a browser: one document without anything from elsewhere. It has no scripts, and says so to
//! the browser as well.

use handlebars::Handlebars;
use serde::Serialize;

use super::super::clean;
use super::{Page, Text, Weight, Words};

#[derive(Debug, Serialize)]
struct View {
    title: String,
    verdict: Vec<Line>,
    parts: Vec<Section>,
    footer: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Section {
    title: String,
    weight: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Line>>,
    notes: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    weight: &'static str,
    words: Vec<Piece>,
}

#[derive(Debug, Serialize)]
struct Piece {
    text: String,
    is_name: bool,
}

pub(super) fn write(page: &Page) -> String {
    let lines = |texts: &[Text]| -> Vec<Line> {
        texts.iter().map(|text| line(Weight::Aside, text)).collect()
    };
    let view = View {
        title: page.title.clone(),
        verdict: page.verdict.iter().map(|(weight, text)| line(*weight, text)).collect(),
        parts: page
            .parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| Section {
                title: part.title.clone(),
                weight: word(part.weight),
                columns: part.columns.clone(),
                rows: part.rows.iter().map(|row| lines(row)).collect(),
                notes: lines(&part.notes),
            })
            .collect(),
        footer: lines(&page.footer),
    };
    // Escapes all that is put in, which is the default of this engine.
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry
        .render_template(include_str!("../templates/page.html.hbs"), &view)
        .unwrap_or_else(|error| format!("the report could not be written: {error}\n"))
}

fn word(weight: Weight) -> &'static str {
    match weight {
        Weight::Danger => "danger",
        Weight::Notice => "notice",
        Weight::Change => "change",
        Weight::Aside => "aside",
    }
}

fn line(weight: Weight, text: &Text) -> Line {
    let words = text.0.iter().map(|words| match words {
        Words::Own(text) => Piece { text: text.clone(), is_name: false },
        Words::Foreign(text) => Piece { text: clean(text), is_name: true },
    });
    Line { weight: word(weight), words: words.collect() }
}
