//! What plain scalars mean.

/// What a plain scalar means in the YAML 1.2 core schema, where that is not its text.
pub(super) fn core_schema(text: &str) -> Option<serde_json::Value> {
    use serde_json::Value as Json;
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Json::Null),
        "true" | "True" | "TRUE" => return Some(Json::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Json::Bool(false)),
        _ => {}
    }
    // All numbers begin with one of these.
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return None;
    }
    let radix = |prefix: &str, radix: u32| {
        text.strip_prefix(prefix).and_then(|digits| {
            let valid = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
            valid.then(|| u64::from_str_radix(digits, radix).ok())?
        })
    };
    if let Some(number) = radix("0o", 8).or_else(|| radix("0x", 16)) {
        return Some(Json::from(number));
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        let integer = unsigned.parse::<i64>().map(Json::from);
        return integer.or_else(|_| unsigned.parse::<u64>().map(Json::from)).ok();
    }
    let looks_like_float = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    match text.parse::<f64>() {
        Ok(number) if looks_like_float => Some(Json::from(number)),
        _ => None,
    }
}
