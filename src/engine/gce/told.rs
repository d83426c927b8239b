//! What others say of a token that was not had, in words that may be shown.

/// What the crate says around each cause.
const NOISE: [&str; 7] = [
    "but future attempts may succeed",
    "and future attempts will not succeed",
    "Fetching the token resulted in transient errors. Subsequent calls with this credential might succeed.",
    "Request to fetch the token failed. Subsequent calls with this credential will also fail.",
    "cannot create the authentication headers",
    "failed to fetch token",
    "the transport reports an error:",
];

/// Longer words of messages from outside may be a token.
const WORD_LENGTH_MAX: usize = 80;
/// The most characters of a message from outside that are passed on.
pub(super) const MESSAGE_LENGTH_MAX: usize = 300;

/// An error and what is behind it, each said once, without anything that could be a secret.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let said = NOISE.iter().fold(error.to_string(), |said, noise| said.replace(noise, ""));
        let said = said.trim_matches([' ', ':', '.']);
        if !said.is_empty() && !parts.iter().any(|part| part.contains(said)) {
            // What says the same with more around it takes its place.
            parts.retain(|part| !said.contains(part.as_str()));
            parts.push(said.to_owned());
        }
        cause = error.source();
    }
    without_secrets(&parts.join(": "))
}

/// Text from outside without long words, any of which may be a token, in one line of some length.
pub(super) fn without_secrets(text: &str) -> String {
    let is_part = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_' | '~' | '+' | '=')
    };
    let mut result = String::new();
    let mut word = String::new();
    for character in text.chars().chain(['\n']) {
        if is_part(character) {
            word.push(character);
            continue;
        }
        result.push_str(if word.len() > WORD_LENGTH_MAX { "…" } else { &word });
        word.clear();
        result.push(if character.is_control() { ' ' } else { character });
    }
    let short: Vec<&str> = result.split_whitespace().collect();
    let short = short.join(" ");
    if short.chars().count() <= MESSAGE_LENGTH_MAX {
        return short;
    }
    short.chars().take(MESSAGE_LENGTH_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_token_is_no_part_of_a_message() {
        let token = format!("ya29.{}", "Ab0_-".repeat(30));
        let text = without_secrets(&format!("body=<{{\"echo\":\"{token}\"}}>\u{1b}[31m\n  twice"));
        assert_eq!(text, "body=<{\"echo\":\"…\"}> [31m twice");
        assert!(without_secrets(&"word ".repeat(500)).chars().count() <= MESSAGE_LENGTH_MAX + 1);
    }
}
