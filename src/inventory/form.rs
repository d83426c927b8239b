//! How names are written that an engine knows, as data: text in which `{id}` stands for anything but a
//! slash and white space, `{letters}` for small letters and `{digits}` for digits. Whom images are shared
//! with is written in forms of its own.

use super::Capabilities;

/// Whether a text has a form.
pub fn fits(form: &str, text: &str) -> bool {
    let Some((before, rest)) = form.split_once('{') else { return form == text };
    let Some((name, form)) = rest.split_once('}') else { return false };
    let Some(text) = text.strip_prefix(before) else { return false };
    let is_of = |one: char| match name {
        "id" => one != '/' && !one.is_whitespace(),
        "letters" => one.is_ascii_lowercase(),
        "digits" => one.is_ascii_digit(),
        _ => false,
    };
    // As much of it as there is: what follows begins with something else.
    let length = text.find(|one| !is_of(one)).unwrap_or(text.len());
    length > 0 && fits(form, &text[length..])
}

/// What would be right where none of these forms fits; nothing where one does, or none is known.
pub fn refused(forms: &[String], text: &str) -> Option<String> {
    if forms.is_empty() || forms.iter().any(|form| fits(form, text)) {
        return None;
    }
    let forms: Vec<String> = forms.iter().map(|form| format!("`{form}`")).collect();
    Some(format!("write {}", forms.join(", ")))
}

impl Capabilities {
    /// Whether images can be shared with somebody, as far as that is known, and what would be right.
    pub fn knows_member(&self, member: &str) -> Result<(), String> {
        let is_whole =
            |name: &str| !name.ends_with(':') && self.share_with.iter().any(|known| known == name);
        let known = self.share_with.iter().filter(|known| known.ends_with(':'));
        match member.split_once(':') {
            _ if self.share_with.is_empty() || is_whole(member) => Ok(()),
            _ if member.contains(char::is_whitespace) => Err(self.forms()),
            // What is seen of it later has the short form, and would never be what the policy says.
            Some((_, name)) if is_whole(name) => Err(format!("write `{name}`")),
            Some((kind, name)) if !name.is_empty() => {
                let begins = |known: &String| known.strip_suffix(':') == Some(kind);
                if known.clone().any(begins) { Ok(()) } else { Err(self.forms()) }
            }
            _ => Err(self.forms()),
        }
    }

    fn forms(&self) -> String {
        let form = |known: &String| match known.strip_suffix(':') {
            Some(kind) => format!("`{kind}:…`"),
            None => format!("`{known}`"),
        };
        format!("write {}", self.share_with.iter().map(form).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_fit_what_is_written_like_them() {
        for (form, text, is_it) in [
            ("us", "us", true),
            ("us", "use", false),
            ("{letters}-{letters}{digits}", "us-central1", true),
            ("{letters}-{letters}{digits}", "europe-west12", true),
            ("{letters}-{letters}{digits}", "us-central1-a", false),
            ("{letters}-{letters}{digits}", "mars", false),
            ("{letters}-{letters}{digits}", "us-central", false),
            ("p/{id}/k/{id}", "p/a-b.c:d/k/1", true),
            ("p/{id}/k/{id}", "p/a/k/1/v/2", false),
            ("p/{id}/k/{id}", "p//k/1", false),
            ("p/{id}", "p/a b", false),
            ("{other}", "other", false),
        ] {
            assert_eq!(fits(form, text), is_it, "{form} {text}");
        }
        let forms = ["a".to_owned(), "{digits}".to_owned()];
        assert_eq!(refused(&forms, "7"), None);
        assert_eq!(refused(&forms, "b").unwrap(), "write `a`, `{digits}`");
        assert_eq!(refused(&[], "b"), None);
    }
}
