//! Filters of lists, in both notations that clients write.
//!
//! One compares: `labels.env = prod AND (status = READY OR NOT name : web*)`. The other, older one
//! matches whole values with regular expressions: `(name eq "web-.*") (status ne FAILED)`. The two
//! must not be mixed.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::vec::IntoIter;

use jiff::Timestamp;
use regex::Regex;
use serde_json::Value;

use super::answer::Refusal;

/// Parentheses and negations may be so deep.
const DEPTH_MAX: usize = 32;

/// A filter.
#[derive(Debug)]
pub struct Filter {
    whole: Expression,
}

#[derive(Debug)]
enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Test { path: Vec<String>, test: Test },
}

#[derive(Debug)]
enum Test {
    Matches(Regex),
    Differs(Regex),
    Equal(String),
    Unequal(String),
    Has(String),
    Ordered(fn(Ordering) -> bool, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Operator(&'static str),
    Word(String),
    Quoted(String),
}

impl Filter {
    /// Reads a filter.
    pub fn read(text: &str) -> Result<Self, Refusal> {
        let wrong = |why: String| Refusal::invalid("filter", text, &why);
        let tokens = tokens(text).map_err(wrong)?;
        let is = |word: &str, token: &Token| matches!(token, Token::Word(found) if found == word);
        let is_old = tokens.iter().any(|token| is("eq", token) || is("ne", token));
        let is_new = tokens.iter().any(|token| matches!(token, Token::Operator(_)));
        if is_old && is_new {
            return Err(wrong("Comparisons and `eq`, `ne` cannot be mixed.".to_owned()));
        }
        let mut reader = Reader { tokens: tokens.into_iter().peekable(), depth: 0 };
        let whole = reader.all().map_err(wrong)?;
        match reader.tokens.next() {
            None => Ok(Self { whole }),
            Some(_) => Err(wrong("A parenthesis is closed that was not opened.".to_owned())),
        }
    }

    /// Whether an item is to be listed.
    pub fn matches(&self, item: &Value) -> bool {
        self.whole.matches(item)
    }

    /// Whether it depends on a field of items, or on what is below it.
    pub fn is_about(&self, field: &str) -> bool {
        self.whole.is_about(field)
    }
}

impl Expression {
    fn is_about(&self, field: &str) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(|part| part.is_about(field)),
            Self::Not(part) => part.is_about(field),
            Self::Test { path, .. } => path.first().is_some_and(|first| first == field),
        }
    }

    fn matches(&self, item: &Value) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(item)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(item)),
            Self::Not(part) => !part.matches(item),
            Self::Test { path, test } => {
                let mut found = Vec::new();
                find(item, path, &mut found);
                test.holds(&found)
            }
        }
    }
}

/// All values under a path; a list stands for each of its elements.
fn find<'a>(value: &'a Value, path: &[String], found: &mut Vec<&'a Value>) {
    match (value, path) {
        (Value::Array(elements), [_, ..]) => {
            for element in elements {
                find(element, path, found);
            }
        }
        (value, []) => found.push(value),
        (Value::Object(object), [first, rest @ ..]) => {
            if let Some(value) = object.get(first) {
                find(value, rest, found);
            }
        }
        _ => {}
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Test {
    fn holds(&self, found: &[&Value]) -> bool {
        let any = |test: &dyn Fn(&Value) -> bool| {
            found.iter().any(|value| match value {
                Value::Array(elements) => elements.iter().any(test),
                value => test(value),
            })
        };
        match self {
            Self::Matches(regex) => any(&|value| regex.is_match(&text_of(value))),
            Self::Differs(regex) => !any(&|value| regex.is_match(&text_of(value))),
            Self::Equal(text) => any(&|value| is_like(&text_of(value), text)),
            Self::Unequal(text) => !any(&|value| is_like(&text_of(value), text)),
            Self::Has(text) if text == "*" => !found.is_empty(),
            Self::Has(text) => any(&|value| match value {
                Value::Object(object) => object.contains_key(text),
                value if text.contains('*') => is_like(&text_of(value), text),
                value => text_of(value).to_lowercase().contains(&text.to_lowercase()),
            }),
            Self::Ordered(is_right, text) => any(&|value| is_right(order(&text_of(value), text))),
        }
    }
}

/// Equal, but for a `*` at either end of what was asked for.
fn is_like(value: &str, asked: &str) -> bool {
    match (asked.strip_prefix('*'), asked.strip_suffix('*')) {
        (Some(_), Some(_)) if asked.len() > 1 => value.contains(&asked[1..asked.len() - 1]),
        (Some(end), _) => value.ends_with(end),
        (None, Some(begin)) => value.starts_with(begin),
        (None, None) => value == asked,
    }
}

/// As instants where both are, else as numbers where both are, else as text.
fn order(one: &str, other: &str) -> Ordering {
    if let (Ok(one), Ok(other)) = (one.parse::<Timestamp>(), other.parse::<Timestamp>()) {
        return one.cmp(&other);
    }
    if let (Ok(one), Ok(other)) = (one.parse::<f64>(), other.parse::<f64>()) {
        return one.total_cmp(&other);
    }
    one.cmp(other)
}

struct Reader {
    tokens: Peekable<IntoIter<Token>>,
    depth: usize,
}

impl Reader {
    fn is_next(&mut self, word: &str) -> bool {
        matches!(self.tokens.peek(), Some(Token::Word(found)) if found == word)
    }

    /// Parts that all hold, with or without AND between them.
    fn all(&mut self) -> Result<Expression, String> {
        let mut parts = vec![self.any()?];
        loop {
            if self.is_next("AND") {
                self.tokens.next();
            } else if matches!(self.tokens.peek(), None | Some(Token::Close)) {
                return Ok(Expression::All(parts));
            }
            parts.push(self.any()?);
        }
    }

    /// Parts of which one holds. OR binds more tightly than AND (AIP-160, which the reference of the API
    /// follows): `a OR b AND c` is `(a OR b) AND c`.
    fn any(&mut self) -> Result<Expression, String> {
        let mut parts = vec![self.one()?];
        while self.is_next("OR") {
            self.tokens.next();
            parts.push(self.one()?);
        }
        Ok(Expression::Any(parts))
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            Err(format!("It is more than {DEPTH_MAX} deep."))
        } else {
            Ok(())
        }
    }

    fn one(&mut self) -> Result<Expression, String> {
        if self.is_next("NOT") {
            self.tokens.next();
            self.deeper()?;
            let inner = self.one()?;
            self.depth -= 1;
            return Ok(Expression::Not(Box::new(inner)));
        }
        match self.tokens.next() {
            Some(Token::Open) => {
                self.deeper()?;
                let inner = self.all()?;
                self.depth -= 1;
                match self.tokens.next() {
                    Some(Token::Close) => Ok(inner),
                    _ => Err("A parenthesis is not closed.".to_owned()),
                }
            }
            Some(Token::Word(field)) => match field.strip_prefix('-') {
                Some(field) => Ok(Expression::Not(Box::new(self.test(field)?))),
                None => self.test(&field),
            },
            _ => Err("A field is expected.".to_owned()),
        }
    }

    fn test(&mut self, field: &str) -> Result<Expression, String> {
        let path = field.split('.').map(|part| part.trim_matches('"').to_owned()).collect();
        let operator = self.tokens.next();
        let is_old = |word: &String| word == "eq" || word == "ne";
        if !matches!(&operator, Some(Token::Operator(_)))
            && !matches!(&operator, Some(Token::Word(word)) if is_old(word))
        {
            return Err(format!("A comparison is expected behind {field}."));
        }
        let Some(Token::Word(value) | Token::Quoted(value)) = self.tokens.next() else {
            return Err(format!("A value is expected for {field}."));
        };
        let plain = || unescaped(&value);
        let test = match operator {
            Some(Token::Word(word)) if word == "eq" => Test::Matches(whole(&value)?),
            Some(Token::Word(word)) if word == "ne" => Test::Differs(whole(&value)?),
            Some(Token::Operator("=")) => Test::Equal(plain()),
            Some(Token::Operator("!=")) => Test::Unequal(plain()),
            Some(Token::Operator(":")) => Test::Has(plain()),
            Some(Token::Operator("<")) => Test::Ordered(Ordering::is_lt, plain()),
            Some(Token::Operator("<=")) => Test::Ordered(Ordering::is_le, plain()),
            Some(Token::Operator(">")) => Test::Ordered(Ordering::is_gt, plain()),
            Some(Token::Operator(">=")) => Test::Ordered(Ordering::is_ge, plain()),
            _ => return Err(format!("A comparison is expected behind {field}.")),
        };
        Ok(Expression::Test { path, test })
    }
}

/// A regular expression that matches a whole value.
fn whole(text: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{text})$")).map_err(|error| format!("`{text}`: {error}"))
}

fn unescaped(text: &str) -> String {
    let mut result = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => result.extend(characters.next()),
            other => result.push(other),
        }
    }
    result
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    const OPERATORS: [&str; 7] = ["!=", "<=", ">=", "=", ":", "<", ">"];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix('(') {
            tokens.push(Token::Open);
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix(')') {
            tokens.push(Token::Close);
            rest = behind;
        } else if first == '"' || first == '\'' {
            let (inner, behind) = quoted(&rest[1..], first)?;
            tokens.push(Token::Quoted(inner));
            rest = behind;
        } else if let Some(operator) = OPERATORS.into_iter().find(|one| rest.starts_with(one)) {
            tokens.push(Token::Operator(operator));
            rest = &rest[operator.len()..];
        } else {
            // What stands behind an operator may hold what would be one in a field.
            let is_value = tokens.last().is_some_and(|token| {
                matches!(token, Token::Operator(_))
                    || matches!(token, Token::Word(word) if word == "eq" || word == "ne")
            });
            let ends =
                |c: char| c.is_whitespace() || c == ')' || (!is_value && "(=!:<>".contains(c));
            let end = rest.find(ends).unwrap_or(rest.len());
            if end == 0 {
                return Err(format!("`{first}` is not expected here."));
            }
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

/// What stands in quotes, as it was written but for escaped quotes, and what follows.
fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut inner = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        if character == quote {
            return Ok((inner, &text[at + quote.len_utf8()..]));
        }
        if character == '\\' {
            match characters.next() {
                Some((_, escaped)) if escaped == quote => inner.push(quote),
                Some((_, escaped)) => inner.extend(['\\', escaped]),
                None => break,
            }
        } else {
            inner.push(character);
        }
    }
    Err("A quotation is not closed.".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(filter: &str) -> bool {
        let item = json!({
            "name": "img-0",
            "status": "READY",
            "diskSizeGb": "20",
            "creationTimestamp": "2026-11-21T12:00:00Z",
            "deletionProtection": false,
            "labels": {"env": "prod", "owner": ""},
            "storageLocations": ["us", "eu"],
            "disks": [{"deviceName": "boot"}, {"deviceName": "data"}],
        });
        Filter::read(filter).unwrap().matches(&item)
    }

    #[test]
    fn comparisons() {
        for filter in [
            "name = img-0",
            "name=\"img-0\" AND status = READY",
            "(name = x) OR (status = READY)",
            "name = img* labels.env = prod",
            "labels.owner:*",
            "labels:env",
            "-labels.gone:*",
            "NOT name = x",
            "name != x",
            "labels.gone != x",
            "diskSizeGb > 9",
            "creationTimestamp >= \"2026-11-21T14:00:00+02:00\"",
            "creationTimestamp < 2026-11-22T00:00:00Z",
            "deletionProtection = false",
            "storageLocations:eu",
            "disks.deviceName = data",
            "status = DELETING OR name : IMG",
        ] {
            assert!(matches(filter), "{filter}");
        }
        for filter in [
            "name = img",
            "name = img-0 AND status = FAILED",
            "labels.gone:*",
            "labels.gone = x",
            "NOT (name = img-0 OR status = x)",
            "diskSizeGb < 9",
            "diskSizeGb <= 19.5",
            "(name = img-0) (labels.env = test)",
        ] {
            assert!(!matches(filter), "{filter}");
        }
    }

    #[test]
    fn or_binds_more_tightly_than_and() {
        for (filter, is_it) in [
            ("name = img-0 OR name = x AND status = FAILED", false),
            ("(name = img-0) OR (name = x) AND (status = READY)", true),
            ("status = FAILED AND name = x OR name = img-0", false),
            ("status = READY name = x OR name = img-0", true),
            ("status = FAILED name = x OR name = img-0", false),
            ("name = img-0 OR (name = x AND status = FAILED)", true),
        ] {
            assert_eq!(matches(filter), is_it, "{filter}");
        }
    }

    #[test]
    fn what_it_is_about_is_known() {
        let is_about = |filter: &str| Filter::read(filter).unwrap().is_about("description");
        for filter in [
            "description:*",
            "name = a (NOT description = b OR status = c)",
            "-description = a",
            "description eq a",
        ] {
            assert!(is_about(filter), "{filter}");
        }
        for filter in ["name = description", "labels.description = a", "name eq \"description.*\""]
        {
            assert!(!is_about(filter), "{filter}");
        }
    }

    #[test]
    fn regular_expressions_match_whole_values() {
        for filter in [
            r#"name eq ".*\bimg\-0\b.*""#,
            "name eq img-.*",
            r#"(name eq "(img-0|img-1)") (status eq READY)"#,
            "status ne FAILED",
            "labels.env eq prod",
            "storageLocations eq eu",
        ] {
            assert!(matches(filter), "{filter}");
        }
        for filter in ["name eq img", "name ne img-.", "(name eq img-0)(status ne READY)"] {
            assert!(!matches(filter), "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_reason() {
        for (filter, why) in [
            ("name eq a AND status = READY", "mixed"),
            ("name eq (", "value is expected"),
            ("name", "comparison is expected"),
            ("name = ", "value is expected"),
            ("(name = a", "not closed"),
            ("name = a)", "not opened"),
            ("name = \"a", "quotation"),
            ("name eq \"[\"", "unclosed"),
            ("= a", "field is expected"),
            (&"(".repeat(40), "deep"),
            (&"NOT ".repeat(40_000), "deep"),
        ] {
            let refusal = Filter::read(filter).unwrap_err();
            assert_eq!(refusal.status, 400, "{filter}");
            assert!(refusal.message.contains(why), "{filter}: {}", refusal.message);
        }
    }
}
