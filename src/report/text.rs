//! Words, numbers and columns for terminals.

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::inventory::QuotaUnit;
use crate::plan::guard::{Guard, Refusal};

/// The style of a word used in views.
pub(super) fn style(word: &str) -> Style {
    match word {
        "create" => AnsiColor::Green.on_default(),
        "delete" => AnsiColor::Red.on_default(),
        "change" => AnsiColor::Yellow.on_default(),
        "back" => AnsiColor::Cyan.on_default(),
        "held" => AnsiColor::Magenta.on_default(),
        "heading" => Style::new().bold(),
        "dim" => Style::new().dimmed(),
        _ => Style::new(),
    }
}

/// What a refusal keeps from happening: `31 images not deleted`.
pub(super) fn withheld(refusal: &Refusal) -> String {
    let images = count(refusal.images.len(), "image");
    match refusal.guard {
        Guard::Check => format!("nothing is taken from {images}"),
        _ => format!("{images} not deleted"),
    }
}

/// Text that does nothing to a terminal: control characters and those that change the direction of
/// writing are shown as what they are.
pub fn clean(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut clean, character| {
        let is_harmful = character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if is_harmful {
            clean.extend(character.escape_unicode());
        } else {
            clean.push(character);
        }
        clean
    })
}

/// Bytes for people: `41.0 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while unit + 1 < UNITS.len() && count / scale >= 1024 {
        scale = scale.saturating_mul(1024);
        unit += 1;
    }
    if unit == 0 {
        return format!("{count} B");
    }
    // One digit behind the point, without the rounding of floats.
    let tenths = u128::from(count) * 10 / u128::from(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// `2026-11-21 02:00Z`.
pub fn minute(instant: Timestamp) -> String {
    let civil = TimeZone::UTC.to_datetime(instant);
    format!("{} {:02}:{:02}Z", civil.date(), civil.hour(), civil.minute())
}

/// `2026-11-21 02:00:07Z`.
pub fn second(instant: Timestamp) -> String {
    let civil = TimeZone::UTC.to_datetime(instant);
    format!("{} {:02}:{:02}:{:02}Z", civil.date(), civil.hour(), civil.minute(), civil.second())
}

/// Rows of cells as lines with aligned columns; the last column is as wide as it likes.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width - cell.chars().count() + 2));
            }
            line.trim_end().to_owned()
        })
        .collect()
}

/// `1 image`, `2 images`.
pub fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {word}{plural}", grouped(number))
}

/// `8,816`.
/// What a quota counts, as people read it.
pub(super) fn amount(number: u64, unit: QuotaUnit) -> String {
    match unit {
        QuotaUnit::Images => grouped(usize::try_from(number).unwrap_or(usize::MAX)),
        QuotaUnit::Bytes => bytes(number),
    }
}

pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_digit_behind_the_point() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (43 << 20, "43.0 MiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn nothing_reaches_a_terminal_that_acts_on_it() {
        assert_eq!(clean("a\x1b[31mb\u{202e}c\nd"), "a\\u{1b}[31mb\\u{202e}c\\u{a}d");
        assert_eq!(clean("naïve · ok"), "naïve · ok");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&rows), ["a    bb", "ccc  d"]);
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
