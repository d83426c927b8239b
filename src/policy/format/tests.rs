//! What is canonical, as tables of before and after; each after is its own after.

use std::sync::Arc;

use super::*;

fn try_format(text: &str) -> Result<String, Vec<Finding>> {
    format(&Arc::new(SourceFile { path: "test.yaml".into(), text: text.into() }))
}

fn formatted(text: &str) -> String {
    try_format(text).unwrap_or_else(|findings| panic!("{text:?}\n{findings:#?}"))
}

#[track_caller]
fn becomes(before: &str, after: &str) {
    assert_eq!(formatted(before), after, "\nfrom:\n{before}");
    assert_eq!(formatted(after), after, "not stable");
}

#[track_caller]
fn stays(text: &str) {
    becomes(text, text);
}

#[test]
fn keys_come_in_the_order_of_the_language_and_take_their_comments_along() {
    becomes(
        "\
# yaml-language-server: $schema=x
# Owned by the platform team.
kind: BackupPolicy
spec:
  retention: {atLeast: 2, daily: 7}  # a week
  # as Vixie cron reads it
  schedule:
    timeZone: UTC
    cron: '0 2 * * *'
    # the end of the schedule
  other: 1
  # selects
  source:
    match:
    - zones: [a]
      # by name
      names: ['db-*']
  engine: main
metadata: {owner: me, name: x}
apiVersion: stillframe/v1
",
        "\
# yaml-language-server: $schema=x
# Owned by the platform team.
apiVersion: stillframe/v1
kind: BackupPolicy
metadata: {name: x, owner: me}
spec:
  engine: main
  # selects
  source:
    match:
      # by name
      - names: [\"db-*\"]
        zones: [a]
  # as Vixie cron reads it
  schedule:
    cron: \"0 2 * * *\"
    timeZone: UTC
    # the end of the schedule
  retention: {daily: 7, atLeast: 2}  # a week
  other: 1
",
    );
}

#[test]
fn documents_of_other_kinds_keep_the_order_below_their_first_keys() {
    becomes(
        "spec: {b: 1, a: 2}\nextra: x\nkind: Instance\napiVersion: stillframe/v1\n",
        "apiVersion: stillframe/v1\nkind: Instance\nspec: {b: 1, a: 2}\nextra: x\n",
    );
}

#[test]
fn layout_is_normal() {
    becomes(
        "a:   1   # c\nb :\n    c:   {x:  1,w : 2 , z}\n    d: [ 1,2 ,  ]\ne: {  }\nf: [ ]\n",
        "a: 1  # c\nb:\n  c: {x: 1, w: 2, z}\n  d: [1, 2]\ne: {}\nf: []\n",
    );
    becomes(
        "a:\n- b\n-   c: 1\n    d: 2\n- - x\n  - z\n-\n  e: 1\n- \n",
        "a:\n  - b\n  - c: 1\n    d: 2\n  - - x\n    - z\n  - e: 1\n  -\n",
    );
    becomes("{a: 1, b: [x, z]}", "a: 1\nb: [x, z]\n");
    becomes("a: b\tc\t# d\nx: \tz\n", "a: b\tc  # d\nx: z\n");
    becomes("a: [x: 1, {z: 2}]\n", "a: [{x: 1}, {z: 2}]\n");
    becomes("? a\n: b\n? c\n", "a: b\nc:\n");
    becomes("a:\n  'b'\n", "a: \"b\"\n");
}

#[test]
fn what_does_not_fit_in_a_line_stands_under_its_key() {
    let word = "abcdefghi ".repeat(4);
    let (one, two) = (word.trim(), word.trim());
    stays(&format!("a: [{one}, {two}, abcdef]\n"));
    becomes(
        &format!("a: [{one}, {two}, {{k: v, l: [m]}}]  # c\n"),
        &format!("a:  # c\n  - {one}\n  - {two}\n  - {{k: v, l: [m]}}\n"),
    );
    becomes(
        &format!("- {{a: {one}, b: {two}, c: defghijk}}  # c\n"),
        &format!("# c\n- a: {one}\n  b: {two}\n  c: defghijk\n"),
    );
}

#[test]
fn empty_lines_are_one_at_most_and_never_at_the_ends() {
    becomes(
        "\n\na:\n\n  b: 1\n\n\n  c: 2\n  \n# d\n\n\n# e\n\nf: 1\n\n\n",
        "a:\n  b: 1\n\n  c: 2\n\n# d\n\n# e\n\nf: 1\n",
    );
    becomes("# a\n\n\nb: 1", "# a\n\nb: 1\n");
    stays("");
    becomes("\n\n", "");
    becomes("\n# a\n\n\n  # b", "# a\n\n# b\n");
}

#[test]
fn comments_in_odd_places_stay() {
    // After `-`, below `-`, between a key and its value, behind anchors.
    becomes(
        "- # one\n  a: 1\n-\n  # two\n  b: 2\n- # three\n  - # four\n    x\n",
        "# one\n- a: 1\n# two\n- b: 2\n# three\n- - x  # four\n",
    );
    becomes("a: # one\n  # two\n  text # three\nb: 1\n", "# two\n# one\na: text  # three\nb: 1\n");
    becomes("a: &x # one\n  # two\n  b: 1\n", "a: &x  # one\n  # two\n  b: 1\n");
    // In braces and brackets.
    becomes(
        "a: { # one\n  # two\n  b: 1, # three\n  c: [ # four\n    d # five\n  ],\n  # six\n} # seven\ne: [ # eight\n ]\n",
        "# one\na:  # seven\n  # two\n  b: 1  # three\n  c:  # four\n    - d  # five\n  # six\ne: []  # eight\n",
    );
    // At the end, by its column.
    becomes(
        "a:\n   b:\n      - c\n      # of c\n   # of b\n# of all\n",
        "a:\n  b:\n    - c\n    # of c\n  # of b\n# of all\n",
    );
    // Deeper than anything: at the end of what is deepest.
    becomes("a:\n  b: 1\n      # c\nd: 1\n", "a:\n  b: 1\n  # c\nd: 1\n");
    // In the place of a value that was taken out.
    becomes(
        "a:\n\n    # b: 1\n\n\n    # c: 2\n# of d\nd: 1\ne:\n    # f\n",
        "a:\n  # b: 1\n\n  # c: 2\n# of d\nd: 1\ne:\n  # f\n",
    );
    // In the order in which they stood.
    becomes("a:\n  b: 1\n# c\n    # d\ne: 1\n", "a:\n  b: 1\n# c\n# d\ne: 1\n");
    stays("a: \"x # no comment\"\nb: x#y\n");
    becomes("a: 'x # no ''comment'\n", "a: \"x # no 'comment\"\n");
}

#[test]
fn documents_stay_apart() {
    stays("# before\n---  # behind\n# below\na: 1\n# foot\n---\nb: 2\n---\n---\n# nothing\n");
    becomes("--- {a: 1}\n...\n# c\n---\n&x b: *x\n...\n", "---\na: 1\n# c\n---\n&x b: *x\n");
    becomes("a: 1\n\n\n---\n\n\nb: 1\n", "a: 1\n\n---\nb: 1\n");
    stays("---\ntext\n--- # c\n".replace("--- #", "---  #").as_str());
}

#[test]
fn block_scalars_keep_every_character() {
    becomes(
        "a:\n    b: |  # c\n        x\n          y\n\n        # no comment\n    # comment\n    d: >-\n     z\n\n\n    e: 1\n",
        "a:\n  b: |  # c\n    x\n      y\n\n    # no comment\n  # comment\n  d: >-\n    z\n\n  e: 1\n",
    );
    becomes(
        "a: |2\n    x\n   y\nb: |+\n\n  z\n\n\nc: |-\n\n",
        "a: |2\n    x\n   y\nb: |+\n\n  z\n\n\nc: |-\n",
    );
    becomes("a:\n- |2-\n   x\n- >+\n  y\n\n", "a:\n  - |2-\n     x\n  - >+\n    y\n\n");
    stays("- a: |\n    x\n  b: |1\n    y\n");
    // A line that ends in space, and one of nothing but space.
    stays("a: |\n  x  \n     \n  y\n");
}

#[test]
fn scalars_over_several_lines_keep_their_lines() {
    becomes(
        "a:   one\n    two\n\n     three # c\nb: \"one\n  two \\\n      \\ three\\n\"\nc: 'x\n\n  y'\n",
        "a: one\n  two\n\n  three  # c\nb: \"one\n  two \\\n  \\ three\\n\"\nc: 'x\n\n  y'\n",
    );
    becomes("a: [one\n  two, b]\n", "a:\n  - one\n    two\n  - b\n");
    becomes("- one\n two\n", "- one\n  two\n");
}

#[test]
fn quotes_are_put_where_readers_differ_and_never_taken_away() {
    becomes(
        "a: no\nb: 02:00\nc: 15 */6 * * *\nd: 2026-12-01\ne: 0b1\nf: .inf\ny: 1\ng: 1_000\nh: [web-*, On]\n",
        "a: \"no\"\nb: \"02:00\"\nc: \"15 */6 * * *\"\nd: \"2026-12-01\"\ne: \"0b1\"\nf: \".inf\"\n\"y\": 1\ng: \"1_000\"\nh: [\"web-*\", \"On\"]\n",
    );
    stays(
        "a: 1\nb: 007\nc: true\nd: null\ne: 1.5\nf: ~\ng: 10.0.0.1\nh: 7d\ni: http://x.y:80/z\nj: \"plain\"\nk: !!str no\n",
    );
    becomes(
        "a: 'it''s'\nb: 'a\"b'\nc: 'a\\b'\n'd': 1\n",
        "a: \"it's\"\nb: 'a\"b'\nc: 'a\\b'\n\"d\": 1\n",
    );
}

#[test]
fn anchors_aliases_merges_and_tags_stay() {
    becomes(
        "base: &b {x: 1}\nother:\n  z:   !!int 2\n  <<: *b\nlist: &l !!seq\n- *b\n- &s text\nk: {*s : 1}\n",
        "base: &b {x: 1}\nother:\n  <<: *b\n  z: !!int 2\nlist: &l !!seq\n  - *b\n  - &s text\nk: {*s : 1}\n",
    );
    becomes("- &x\n  a: 1\n-   *x\n- &e\n- !!str\n", "- &x\n  a: 1\n- *x\n- &e\n- !!str\n");
    // In its order, the anchor would stand below its alias.
    stays("kind: Config\nspec: &x {a: 1}\napiVersion: *x\n");
}

#[test]
fn line_ends_and_marks_of_other_systems_go() {
    becomes(
        "\u{feff}a: 1\r\n# ü\r\nb: |\r\n  x\r\n  y\r\nc: 'x\r\n  y'",
        "a: 1\n# ü\nb: |\n  x\n  y\nc: 'x\n  y'\n",
    );
    stays("ä: \"ö\"  # ü\n\"日本\":\n  - 語\n");
    becomes("a: |\n  x", "a: |\n  x\n");
}

#[test]
fn what_is_not_yaml_has_findings() {
    let codes = |text: &str| -> Vec<Code> {
        try_format(text).unwrap_err().iter().map(|finding| finding.code).collect()
    };
    assert_eq!(codes("a: [1\n"), [Code::SyntaxError]);
    assert_eq!(codes("a:\n\tb: 1\n"), [Code::SyntaxError]);
    assert_eq!(codes("a: 1\na: 2\n"), [Code::DuplicateKey]);
    assert_eq!(codes("a: !secret x\n"), [Code::UnknownTag]);
    let refused = try_format("a: 1\r\n...\r\n%YAML 1.2\r\n---\r\nb: 2\r\n").unwrap_err();
    assert_eq!(refused[0].code, Code::NotFormatted);
    assert_eq!(refused[0].place.as_ref().unwrap().to_string(), "test.yaml:3:1");
}

/// The last door: what is printed is held against what was read.
#[test]
fn another_meaning_or_a_lost_comment_is_noticed() {
    let meaning = [serde_json::json!({"a": 1})];
    let says = |text: &str, comments: &[&str]| {
        says_the_same(text, &meaning, comments.iter().map(|&comment| comment.to_owned()).collect())
    };
    assert!(says("a: 1  # c\n", &["# c"]));
    assert!(!says("a: 2  # c\n", &["# c"]));
    assert!(!says("a: 1\n", &["# c"]));
    assert!(!says("# c\na: 1  # c\n", &["# c"]));
    assert!(!says("a: 1\n---\na: 1\n", &[]));
    assert!(!says("a: 1\na: 1\n", &[]));
    assert_ne!(tally("a: ''  # c"), tally("a: ''"));
    assert_eq!(tally("a: [b, '']  # c"), tally("# c\na:\n  - b\n  - \"\""));
}
