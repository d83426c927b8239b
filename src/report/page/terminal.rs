//! For a terminal.

use super::super::{Row, Section, clean, render, table};
use super::{Page, Text, Weight, Words};
use serde::Serialize;

/// What the template sees.
#[derive(Debug, Serialize)]
struct View {
    title: String,
    counts: Vec<Row>,
    sections: Vec<Section>,
    footer: Vec<String>,
}

pub(super) fn write(page: &Page) -> String {
    let sections = page.parts.iter().filter(|part| !part.is_empty()).map(|part| {
        let mut cells: Vec<Vec<String>> = Vec::new();
        if !part.rows.is_empty() && part.columns.len() > 1 {
            let names = part.columns.iter().map(|column| column.to_uppercase());
            cells.push(names.collect());
        }
        let has_names = !cells.is_empty();
        cells.extend(part.rows.iter().map(|row| row.iter().map(plain).collect()));
        let lines = table(&cells).into_iter().enumerate();
        let mut rows: Vec<Row> = lines
            .map(|(index, line)| {
                let is_name = has_names && index == 0;
                Row::new(if is_name { "dim" } else { style(part.weight) }, line)
            })
            .collect();
        rows.extend(part.notes.iter().map(|note| Row::new("plain", plain(note))));
        Section { title: part.title.clone(), style: style(part.weight), rows }
    });
    let view = View {
        title: page.title.clone(),
        counts: page
            .verdict
            .iter()
            .map(|(weight, text)| Row::new(style(*weight), plain(text)))
            .collect(),
        sections: sections.collect(),
        footer: page.footer.iter().map(plain).collect(),
    };
    render(include_str!("../templates/page.txt.hbs"), &view)
}

fn style(weight: Weight) -> &'static str {
    match weight {
        Weight::Danger => "delete",
        Weight::Notice => "held",
        Weight::Change => "change",
        Weight::Aside => "plain",
    }
}

fn plain(text: &Text) -> String {
    let words = text.0.iter().map(|words| match words {
        Words::Own(text) => text.clone(),
        Words::Foreign(text) => clean(text),
    });
    words.collect()
}
