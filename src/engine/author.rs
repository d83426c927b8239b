//! Who makes an image: a host, named at the end of its description.
//!
//! Two runs may be at the same image, and the one that comes second says who was first. The image is
//! the only place where it can look, so whoever makes one writes its host behind the description that
//! the plan has for it. Nothing is decided by it: it is no part of an inventory, a plan or a fingerprint.

use serde::Serialize;

/// What stands before a host.
const BEGIN: &str = "(by ";
/// What stands behind it. Services and people cut texts at their end, and half a name is another name.
const END: char = ')';
/// The most characters of a host, which is what Linux takes.
const LENGTH_MAX: usize = 64;

/// A host that makes images: letters, digits, `.`, `_` and `-`, whatever it is called in full.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Author(String);

impl Author {
    /// A host of that name; `None` where it has none.
    pub fn new(host: &str) -> Option<Self> {
        let harmless = |one: char| if is_of_host(one) { one } else { '-' };
        let name: String = host.chars().take(LENGTH_MAX).map(harmless).collect();
        name.contains(|one: char| one.is_ascii_alphanumeric()).then_some(Self(name))
    }

    /// The host that this program runs on.
    pub fn here() -> Option<Self> {
        Self::new(&host())
    }

    /// Its name.
    pub fn host(&self) -> &str {
        &self.0
    }

    /// How it is written into a description.
    pub fn mark(&self) -> String {
        format!("{BEGIN}{}{END}", self.0)
    }

    /// A description of at most `length_max` characters that says who has made its image. The text before
    /// it gives way; where there is no room for all of the host, nothing is said of it.
    pub fn sign(&self, description: &str, length_max: usize) -> String {
        let mark = self.mark();
        let Some(room) = length_max.checked_sub(mark.chars().count()) else {
            return description.chars().take(length_max).collect();
        };
        let text: String = description.chars().take(room.saturating_sub(1)).collect();
        format!("{} {mark}", text.trim_end()).trim_start().to_owned()
    }

    /// Who has made the image of a description, where it says so at its end.
    pub fn read(description: &str) -> Option<Self> {
        let host = mark_in(description)?.1;
        let is_host = host.len() <= LENGTH_MAX && host.chars().all(is_of_host);
        Self::new(host).filter(|_| is_host)
    }

    /// A description without who has made its image.
    pub fn without(description: &str) -> &str {
        match Self::read(description) {
            Some(_) => mark_in(description).map_or(description, |(text, _)| text.trim_end()),
            None => description,
        }
    }
}

/// What an image of that description is made with.
pub fn signed(author: Option<&Author>, description: &str, length_max: usize) -> String {
    author.map_or_else(|| description.to_owned(), |author| author.sign(description, length_max))
}

/// The host that this program runs on, in its own words.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn is_of_host(one: char) -> bool {
    one.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&one)
}

/// The text before the last mark and what stands in that, where it is the end.
fn mark_in(description: &str) -> Option<(&str, &str)> {
    let (text, host) = description.trim_end().strip_suffix(END)?.rsplit_once(BEGIN)?;
    (text.is_empty() || text.ends_with(char::is_whitespace)).then_some((text, host))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn author(host: &str) -> Author {
        Author::new(host).unwrap()
    }

    #[test]
    fn a_description_says_who_has_made_its_image() {
        let ci = author("ci-runner-7.example.com");
        let signed = ci.sign("nightly of web-1", 256);
        assert_eq!(signed, "nightly of web-1 (by ci-runner-7.example.com)");
        assert_eq!(Author::read(&signed), Some(ci.clone()));
        assert_eq!(Author::without(&signed), "nightly of web-1");
        assert_eq!(ci.sign("", 256), "(by ci-runner-7.example.com)");
        // The last one counts: the text may say something like it.
        assert_eq!(Author::read(&ci.sign("kept (by ops)", 256)), Some(ci));
        for text in ["", "nightly", "(by )", "by ci", "standby (by ci", "x (by ci) y", "(by c i)"] {
            assert_eq!((Author::read(text), Author::without(text)), (None, text));
        }
    }

    #[test]
    fn the_text_gives_way_and_the_host_is_whole_or_not_there() {
        let ci = author("ci");
        assert_eq!(ci.sign("nightly of web-1", 16), "nightly (by ci)");
        assert_eq!(ci.sign("nightly of web-1", 9), "n (by ci)");
        assert_eq!(ci.sign("nightly of web-1", 8), "(by ci)");
        assert_eq!(ci.sign("nightly of web-1", 7), "(by ci)");
        assert_eq!(ci.sign("nightly of web-1", 6), "nightl");
        assert_eq!(Author::read("nightly of web-1 (by c"), None);
    }

    #[test]
    fn a_host_is_harmless_whatever_it_is_called() {
        assert_eq!(author("b\u{fc}ro\u{202e}\n1").host(), "b-ro--1");
        assert_eq!(author(&"x".repeat(300)).host().len(), LENGTH_MAX);
        assert_eq!((Author::new(""), Author::new("\u{202e}")), (None, None));
        // What others have written into a description is not shown.
        for host in ["a\u{202e}b", "a\u{1b}[31m", "a\u{200b}b", "a)(by b", &"x".repeat(65)] {
            let read = Author::read(&format!("nightly (by {host})"));
            assert!(read.is_none_or(|read| read.host() == "b"), "{host}");
        }
    }

    proptest! {
        #[test]
        fn whoever_signs_is_read_again(host in "\\PC{1,80}", text in "\\PC{0,80}", max in 0_usize..120) {
            let Some(author) = Author::new(&host) else { return Ok(()) };
            let signed = author.sign(&text, max);
            prop_assert!(signed.chars().count() <= max);
            if max >= author.mark().len() {
                prop_assert_eq!(Author::read(&signed), Some(author));
            }
        }
    }
}
