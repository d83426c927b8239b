use super::*;

/// Everything that one of the places would act on.
const WICKED: [&str; 9] = [
    "a | b",
    "<script>alert(1)</script>",
    "\u{202e}gpj.exe",
    "\u{1b}[2J\u{1b}[31mred",
    "](https://evil.example) ![x](https://evil.example/x.png)",
    "`code` *bold* _soft_ ~~gone~~ # heading",
    "line\r\n## another",
    "@everyone #1 www.evil.example https://evil.example <https://evil.example>",
    "&lt;b&gt; &#124; {{title}} {{{title}}}",
];

fn page(names: &[&str]) -> Page {
    let mut part = Part::table("Lost", Weight::Danger, &["name", "why"]);
    part.rows = names.iter().map(|name| vec![Text::foreign(*name), Text::own("a rule")]).collect();
    part.notes = names.iter().map(|name| Text::own("see ").name(*name)).collect();
    Page {
        title: "Plan".to_owned(),
        verdict: names.iter().map(|name| (Weight::Danger, Text::foreign(*name))).collect(),
        parts: vec![part],
        footer: names.iter().map(|name| Text::foreign(*name)).collect(),
    }
}

#[test]
fn nothing_in_a_name_acts_on_a_terminal() {
    let harmless = page(&["a"; WICKED.len()]).to_terminal().lines().count();
    let text = anstream::adapter::strip_str(&page(&WICKED).to_terminal()).to_string();
    // The colours are ours, and the number of lines is what it is with harmless names.
    assert_eq!(text.lines().count(), harmless);
    for character in text.chars() {
        let is_harmful = character.is_control() && character != '\n';
        assert!(!is_harmful && character != '\u{202e}', "{character:?}");
    }
    assert!(text.contains("\\u{1b}[2J") && text.contains("\\u{202e}gpj.exe"), "{text}");
}

#[test]
fn nothing_in_a_name_is_markdown() {
    let harmless = page(&["a"; WICKED.len()]).to_markdown();
    let text = page(&WICKED).to_markdown();
    assert_eq!(text.lines().count(), harmless.lines().count());
    for (line, plain) in text.lines().zip(harmless.lines()) {
        // As many cells, tags and marks as there are with harmless names.
        for mark in ["|", "<", "`", "[", "](", "*", "_", "~~", "@", "://", "www."] {
            assert_eq!(line.matches(mark).count(), plain.matches(mark).count(), "{mark} {line}");
        }
        assert_eq!(line.starts_with('#'), plain.starts_with('#'), "{line}");
    }
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    assert!(text.contains("&#60;script&#62;alert&#40;1&#41;"), "{text}");
}

#[test]
fn nothing_in_a_name_is_html() {
    let harmless = page(&["a"; WICKED.len()]).to_html();
    let text = page(&WICKED).to_html();
    assert_eq!(text.matches('<').count(), harmless.matches('<').count());
    assert!(!text.contains("<script") && !text.contains('\u{1b}') && !text.contains('\u{202e}'));
    assert!(text.contains("&lt;script&gt;"), "{text}");
    // What looks like a template is text.
    assert!(text.contains("{{title}}") || text.contains("&#x7B;"), "{text}");
}

#[test]
fn a_comment_is_never_too_long_and_loses_last_what_is_lost() {
    let rows = |prefix: &str, count: usize| -> Vec<Vec<Text>> {
        (0..count)
            .map(|row| vec![Text::foreign(format!("{prefix}-{row}-{}", "x".repeat(50)))])
            .collect()
    };
    let part = |title: &str, weight, rows| {
        let mut part = Part::table(title, weight, &["image"]);
        part.rows = rows;
        part
    };
    let page = Page {
        title: "Plan".to_owned(),
        verdict: vec![(Weight::Danger, Text::own("9,000 images are deleted."))],
        parts: vec![
            part("Lost", Weight::Danger, rows("lost", 9_000)),
            part("Kept", Weight::Aside, rows("kept", 9_000)),
        ],
        footer: Vec::new(),
    };
    let text = page.to_markdown();
    assert!(text.chars().count() <= 65_535, "{}", text.chars().count());
    assert!(text.starts_with(MARKER));
    assert!(text.contains("9,000 images are deleted."));
    let lost = text.matches("<code>lost-").count();
    let kept = text.matches("<code>kept-").count();
    assert!(lost >= 250 && kept < lost, "{lost} {kept}");
    assert!(
        text.contains(&format!("… and {} more rows", super::super::text::grouped(9_000 - lost)))
    );
    // What is lost is not folded away, the rest is.
    let fold = text.find("<details>").unwrap();
    assert!(text.find("### Lost").unwrap() < fold && text.find("lost-0-").unwrap() < fold);
    // Words without an end are cut.
    let endless = Page { verdict: vec![(Weight::Danger, Text::own("x".repeat(200_000)))], ..page };
    assert!(endless.to_markdown().chars().count() <= 65_535);
}
