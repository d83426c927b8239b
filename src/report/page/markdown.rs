//! For pull requests: GitHub's and GitLab's Markdown.

use super::super::{clean, count};
use super::{Page, Part, Text, Weight, Words};

/// The first line of a comment, by which the next run finds it and puts a new one in its place.
pub const MARKER: &str = "<!-- stillframe -->";
/// The most characters of a comment on GitHub; GitLab takes more.
const LENGTH_MAX: usize = 65_535;
/// So many rows of a part are shown at first.
const ROWS_FIRST: usize = 1_000;
/// So many rows of the parts in which nothing is lost are left before others give way.
const ROWS_LEAST: usize = 20;
/// What folds away.
const FOLD_FROM: usize = 10;

/// The page with as many rows as fit. Where not all do, parts in which nothing is lost give way
/// first, and each part says how many are left out.
pub(super) fn write(page: &Page) -> String {
    let mut rows = [ROWS_FIRST, ROWS_FIRST];
    loop {
        let text = with_rows(page, rows);
        if text.chars().count() <= LENGTH_MAX || rows == [0, 0] {
            return cut(text);
        }
        // The second are of the parts in which nothing is lost.
        match rows {
            [_, aside] if aside > ROWS_LEAST => rows[1] /= 2,
            [danger, _] if danger > ROWS_LEAST => rows[0] /= 2,
            [danger, aside] => rows = [danger / 2, aside / 2],
        }
    }
}

pub(super) fn write_whole(page: &Page) -> String {
    with_rows(page, [usize::MAX, usize::MAX])
}

/// Notes may be longer than anybody thought.
fn cut(text: String) -> String {
    if text.chars().count() <= LENGTH_MAX {
        return text;
    }
    let end = "\n\n… and more than a comment holds.\n";
    let keep = LENGTH_MAX - end.chars().count();
    let mut text: String = text.chars().take(keep).collect();
    text.push_str(end);
    text
}

fn with_rows(page: &Page, rows: [usize; 2]) -> String {
    let mut text = format!("{MARKER}\n## {}\n\n", escape(&page.title));
    for (weight, line) in &page.verdict {
        let mark = match weight {
            Weight::Danger => "🔴 ",
            Weight::Notice => "🟡 ",
            Weight::Change | Weight::Aside => "",
        };
        let line = inline(line);
        let line = if *weight == Weight::Danger { format!("**{line}**") } else { line };
        text.push_str(&format!("{mark}{line}  \n"));
    }
    for part in page.parts.iter().filter(|part| !part.is_empty()) {
        let is_heavy = matches!(part.weight, Weight::Danger);
        self::part(part, rows[usize::from(!is_heavy)], &mut text);
    }
    if !page.footer.is_empty() {
        text.push_str("\n---\n");
        for line in &page.footer {
            text.push_str(&format!("<sub>{}</sub>  \n", inline(line)));
        }
    }
    text
}

fn part(part: &Part, rows: usize, text: &mut String) {
    let is_open = matches!(part.weight, Weight::Danger | Weight::Notice)
        || part.rows.len() + part.notes.len() <= FOLD_FROM;
    if is_open {
        text.push_str(&format!("\n### {}\n\n", escape(&part.title)));
    } else {
        let title = escape(&part.title);
        text.push_str(&format!("\n<details><summary>{title}</summary>\n\n"));
    }
    let shown = part.rows.len().min(rows);
    if shown > 0 {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        text.push_str(&line(part.columns.iter().map(|column| escape(column)).collect()));
        text.push_str(&line(part.columns.iter().map(|_| "--".to_owned()).collect()));
        for row in &part.rows[..shown] {
            text.push_str(&line(row.iter().map(inline).collect()));
        }
    }
    if shown < part.rows.len() {
        let more = count(part.rows.len() - shown, "more row");
        text.push_str(&format!("\n… and {more}, left out because a comment holds no more.\n"));
    }
    if !part.notes.is_empty() {
        text.push('\n');
        for note in &part.notes {
            text.push_str(&format!("- {}\n", inline(note)));
        }
    }
    if !is_open {
        text.push_str("\n</details>\n");
    }
}

fn inline(text: &Text) -> String {
    let words = text.0.iter().map(|words| match words {
        Words::Own(text) => escape(text),
        Words::Foreign(text) => format!("<code>{}</code>", entities(&clean(text))),
    });
    words.collect()
}

/// Our own words: what Markdown would take for a mark is none.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '#' => {
                escaped.push('\\');
                escaped.push(character);
            }
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\n' | '\r' => escaped.push(' '),
            other => escaped.push(other),
        }
        escaped
    })
}

/// Foreign text: whatever is no letter, digit, blank or hyphen is a number, which nothing acts on:
/// no table, no tag, no link, no mention, no picture.
fn entities(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, character| {
        if character.is_alphanumeric() || matches!(character, ' ' | '-') {
            safe.push(character);
        } else {
            safe.push_str(&format!("&#{};", u32::from(character)));
        }
        safe
    })
}
