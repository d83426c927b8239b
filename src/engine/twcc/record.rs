//! The ownership record in the description of an image.
//!
//! The service has no labels. What other engines write into labels stands here as one word in the
//! description, `sf1:POLICY/SITE/SLOT;MARKS;SEAL`, with free text behind it. The seal is a hash over
//! the word and the name of the image, which nobody can change: a record that was edited, cut short
//! or copied onto another image is damaged, belongs to nobody, and is never acted on.

use std::collections::BTreeMap;

use data_encoding::BASE32_NOPAD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use crate::engine::set::{LABEL_DISK, LABEL_POINT};
use crate::engine::{Author, EngineError};
use crate::inventory::{
    LABEL_HOLD, LABEL_LET_GO, LABEL_MISSING, LABEL_REMOVED, LABEL_SET, LABEL_STAGED, Stage,
};
use crate::name::{
    Key, LABEL_KEY, LABEL_POLICY, LABEL_SLOT, LABEL_SOURCE, Ownership, PolicyName, Slot, SourceId,
    is_label_value, parse_stamp, stamp,
};

/// The most characters of a description. Source: the document of the VCS API, 1.5.4.
pub const LENGTH_MAX: usize = 200;
/// The most characters of free text that a new image has room for, whatever its policy is called.
pub const TEXT_LENGTH_MAX: usize = 64;

/// What a record begins with, the version included.
const BEGIN: &str = "sf1:";
/// What records of all versions begin with.
const BEGIN_ANY: &str = "sf";
/// The value of a hold without an end.
const HOLD: &str = "yes";
/// Characters of the seal: 60 bits.
const SEAL_LENGTH: usize = 12;
/// Marks with a time, and what stands for them.
const MARKS: [(&str, char); 4] =
    [(LABEL_LET_GO, 'l'), (LABEL_STAGED, 't'), (LABEL_MISSING, 'x'), (LABEL_REMOVED, 'r')];

/// What a description says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// As labels, those of a set among them.
    pub labels: BTreeMap<String, String>,
    /// How far the life of the image has come.
    pub stage: Stage,
    /// What people read.
    pub text: String,
    /// Whether there is a record that cannot be trusted.
    pub is_damaged: bool,
}

impl Record {
    /// Reads the description of an image of that name.
    pub fn read(description: &str, name: &str) -> Self {
        let mut record = Self::default();
        let mut text = Vec::new();
        let mut words = Vec::new();
        for word in description.split_whitespace() {
            if has_record(word) {
                words.push(word);
            } else if let Some((hold, rest)) = held(word) {
                record.hold(hold);
                text.extend(rest);
            } else {
                text.push(word.to_owned());
            }
        }
        record.text = text.join(" ");
        match words.as_slice() {
            [] => {}
            [word] => record.read_word(word, name),
            _ => record.damage(),
        }
        if record.is_damaged {
            // What was glued to it may be what somebody wanted to be heard.
            words.into_iter().filter_map(held).for_each(|(hold, _)| record.hold(hold));
        }
        record
    }

    fn hold(&mut self, hold: String) {
        let hold = firmer(self.labels.remove(LABEL_HOLD), Some(hold));
        self.labels.extend(hold.map(|hold| (LABEL_HOLD.to_owned(), hold)));
    }

    fn read_word(&mut self, word: &str, name: &str) {
        let Some((body, sealed)) = word.rsplit_once(';') else { return self.damage() };
        let is_sealed = body.starts_with(BEGIN) && sealed == seal(body, name);
        match body.strip_prefix(BEGIN).filter(|_| is_sealed).and_then(|body| parts(body, name)) {
            Some((labels, stage)) => {
                self.labels.extend(labels);
                self.stage = stage;
            }
            None => self.damage(),
        }
    }

    /// Some labels of ours that no key can be read from: reported and never touched.
    fn damage(&mut self) {
        self.is_damaged = true;
        self.labels.insert(LABEL_KEY.to_owned(), "damaged".to_owned());
    }

    /// Says in the free text who makes the image of that name, where there is room for that beside the
    /// record. A host whose name is a mark of this record is not named.
    pub fn sign(&mut self, author: Option<&Author>, name: &str) -> Result<(), EngineError> {
        let is_mark = |author: &&Author| {
            let mark = author.mark();
            mark.split_whitespace().any(|word| has_record(word) || held(word).is_some())
        };
        let Some(author) = author.filter(|author| !is_mark(author)) else { return Ok(()) };
        let unsaid = Self { text: String::new(), ..self.clone() };
        let record = unsaid.write(name)?;
        let gap = usize::from(!record.is_empty());
        let room = LENGTH_MAX.saturating_sub(record.chars().count() + gap);
        self.text = author.sign(&self.text, room);
        Ok(())
    }

    /// The description of an image of that name. Free text is cut where there is no room for it.
    pub fn write(&self, name: &str) -> Result<String, EngineError> {
        let mut description = self.word(name)?;
        let mut add = |word: &str, is_needed: bool| -> Result<(), EngineError> {
            let gap = usize::from(!description.is_empty());
            let room = LENGTH_MAX.saturating_sub(description.chars().count() + gap);
            if is_needed && word.chars().count() > room {
                return Err(EngineError::Refused(format!(
                    "there is no room for {word} in the {LENGTH_MAX} characters of a description"
                )));
            }
            if room > 0 && !word.is_empty() {
                description.push_str(&" "[..gap]);
                description.extend(word.chars().take(room));
            }
            Ok(())
        };
        if let Some(hold) = self.labels.get(LABEL_HOLD) {
            add(&format!("{LABEL_HOLD}={hold}"), true)?;
        }
        add(&self.text, false)?;
        if description.chars().count() > LENGTH_MAX {
            return Err(EngineError::Refused(format!(
                "the record of {name} needs more than the {LENGTH_MAX} characters of a description"
            )));
        }
        Ok(description.trim_end().to_owned())
    }

    /// The record itself; empty where there is nothing to record.
    fn word(&self, name: &str) -> Result<String, EngineError> {
        let key = match Key::from_labels(&self.labels) {
            Ownership::Ours(key) => key,
            Ownership::Foreign if self.rest().next().is_none() && self.stage == Stage::Active => {
                return Ok(String::new());
            }
            Ownership::Foreign | Ownership::Broken(_) => {
                let message = "without an ownership record nothing can be recorded of an image";
                return Err(EngineError::Refused(message.to_owned()));
            }
        };
        let mut body = format!("{BEGIN}{}/{}/{}", key.policy, key.source, key.slot);
        if let Some(of) = self.labels.get(LABEL_SET) {
            let disk = self.labels.get(LABEL_DISK).map_or("", String::as_str);
            body.push_str(&format!(";m={of}.{disk}"));
        }
        match self.stage {
            Stage::Active => {}
            Stage::Deprecated => body.push_str(";g=d"),
            Stage::Obsolete => body.push_str(";g=o"),
        }
        for (label, value) in self.rest() {
            let mark = MARKS.iter().find(|(known, _)| known == label);
            let time = parse_stamp(value).and_then(short);
            let (Some((_, mark)), Some(time)) = (mark, time) else {
                return Err(EngineError::Refused(format!(
                    "this engine has no place for the label {label}={value}"
                )));
            };
            body.push_str(&format!(";{mark}={time}"));
        }
        let seal = seal(&body, name);
        Ok(format!("{body};{seal}"))
    }

    /// Labels that are no part of the key, of a set or of the text.
    fn rest(&self) -> impl Iterator<Item = (&String, &String)> {
        let own = [
            LABEL_POLICY,
            LABEL_SOURCE,
            LABEL_SLOT,
            LABEL_KEY,
            LABEL_SET,
            LABEL_DISK,
            LABEL_POINT,
            LABEL_HOLD,
        ];
        self.labels.iter().filter(move |(label, _)| !own.contains(&label.as_str()))
    }
}

/// Whether there is a record in a word, of whatever version, or what has been one.
fn has_record(word: &str) -> bool {
    let word: String = word.chars().map(folded).collect();
    word.match_indices(BEGIN_ANY).any(|(at, begin)| {
        let version = word[at + begin.len()..].split_once(':').map_or("", |(version, _)| version);
        !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The value of the hold that is somewhere in a word, and what is written around it. Whoever writes
/// without spaces between words, in brackets or with full-width letters means it as well.
fn held(word: &str) -> Option<(String, Option<String>)> {
    let written: Vec<char> = word.chars().collect();
    let plain: Vec<char> = written.iter().copied().map(folded).collect();
    let mark: Vec<char> = LABEL_HOLD.chars().collect();
    let (mut hold, mut rest, mut at) = (None, String::new(), 0);
    while at < plain.len() {
        if plain[at..].starts_with(&mark) {
            let (value, end) = hold_value(&plain, at + mark.len());
            hold = firmer(hold, Some(value));
            at = end;
        } else {
            rest.push(written[at]);
            at += 1;
        }
    }
    let rest = Some(rest).filter(|rest| rest.contains(char::is_alphanumeric));
    hold.map(|hold| (hold, rest))
}

/// What stands behind the mark of a hold, and where that ends. Only what is clear has an end in
/// time.
fn hold_value(plain: &[char], from: usize) -> (String, usize) {
    let begin = from + plain[from..].iter().take_while(|one| ['=', ':'].contains(*one)).count();
    let is_of_value = |one: &&char| one.is_ascii_alphanumeric() || ['-', '_'].contains(*one);
    let end = begin + plain[begin..].iter().take_while(is_of_value).count();
    let value: String = plain[begin..end].iter().collect();
    let is_glued = plain.get(end).is_some_and(|next| next.is_alphanumeric());
    let is_clear = begin > from && !value.is_empty() && is_label_value(&value) && !is_glued;
    (if is_clear { value } else { HOLD.to_owned() }, end)
}

/// A character as it is compared: full-width letters and the dashes that programs put in the place
/// of a hyphen are those of ASCII.
fn folded(character: char) -> char {
    let plain = match character {
        '\u{ff01}'..='\u{ff5e}' => {
            char::from_u32(u32::from(character) - 0xfee0).unwrap_or(character)
        }
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe63}' => '-',
        _ => character,
    };
    plain.to_ascii_lowercase()
}

/// Of two holds the one whose end nobody can read, and else the later end.
pub fn firmer(one: Option<String>, other: Option<String>) -> Option<String> {
    let end = |hold: &str| hold.strip_prefix("until-").and_then(parse_stamp);
    let holds = one.into_iter().chain(other);
    holds.max_by_key(|hold| (end(hold).is_none(), end(hold), hold.clone()))
}

/// What a sealed record of an image of that name says: labels and stage.
fn parts(body: &str, name: &str) -> Option<(BTreeMap<String, String>, Stage)> {
    let mut parts = body.split(';');
    let mut key = parts.next()?.split('/');
    let policy = PolicyName::parse(key.next()?).ok()?;
    let source = SourceId::parse(key.next()?).ok()?;
    let slot = Slot::parse(key.next()?).ok()?;
    let is_all = key.next().is_none();
    let mut labels = Key { policy, source, slot }.labels();
    let mut stage = Stage::Active;
    for part in parts {
        match part.split_once('=')? {
            ("m", member) => {
                let (of, disk) = member.split_once('.')?;
                labels.insert(LABEL_SET.to_owned(), of.to_owned());
                labels.insert(LABEL_DISK.to_owned(), disk.to_owned());
                labels.insert(LABEL_POINT.to_owned(), name.to_owned());
            }
            ("g", "d") => stage = Stage::Deprecated,
            ("g", "o") => stage = Stage::Obsolete,
            (mark, time) => {
                let is_it = |(_, known): &&(&str, char)| mark.chars().eq([*known]);
                let (label, _) = MARKS.iter().find(is_it)?;
                labels.insert((*label).to_owned(), stamp(long(time)?));
            }
        }
    }
    is_all.then_some((labels, stage))
}

/// A time as twelve digits: `261121020000`.
fn short(time: Timestamp) -> Option<String> {
    let civil = TimeZone::UTC.to_datetime(time);
    let year = civil.year().checked_sub(2000).filter(|year| (0..100).contains(year))?;
    let date = format!("{year:02}{:02}{:02}", civil.month(), civil.day());
    Some(format!("{date}{:02}{:02}{:02}", civil.hour(), civil.minute(), civil.second()))
}

/// Reads what [`short`] writes, and only that.
fn long(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_at_checked(6)?;
    parse_stamp(&format!("20{date}t{time}z"))
}

/// The beginning of a hash over a record and the name of its image.
fn seal(body: &str, name: &str) -> String {
    let mut hash = Sha256::new();
    for part in ["stillframe/twcc/1\n", name, "\n", body] {
        hash.update(part);
    }
    let mut text = BASE32_NOPAD.encode(&hash.finalize()).to_ascii_lowercase();
    text.truncate(SEAL_LENGTH);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "nightly-918628-20261121-0200z-7c1fabcd";

    fn record(marks: &[(&str, &str)]) -> Record {
        let key = Key {
            policy: PolicyName::parse("nightly").unwrap(),
            source: SourceId::parse("918628").unwrap(),
            slot: Slot::parse("20261121t020000z").unwrap(),
        };
        let mut labels = key.labels();
        labels.extend(marks.iter().map(|(label, value)| ((*label).into(), (*value).into())));
        Record { labels, text: "web01 at night".to_owned(), ..Record::default() }
    }

    #[test]
    fn a_record_is_one_word_that_people_can_read() {
        let written = record(&[]).write(NAME).unwrap();
        let (body, rest) = written.rsplit_once(';').unwrap();
        assert_eq!(body, "sf1:nightly/918628/20261121t020000z");
        assert_eq!(&rest[SEAL_LENGTH..], " web01 at night");
        assert_eq!(Record::read(&written, NAME), record(&[]));
    }

    #[test]
    fn marks_holds_and_stages_come_back() {
        let mut full = record(&[
            (LABEL_LET_GO, "20261122t030405z"),
            (LABEL_STAGED, "20261122t030406z"),
            (LABEL_MISSING, "20261122t030407z"),
            (LABEL_REMOVED, "20261122t030408z"),
            (LABEL_SET, "3"),
            (LABEL_DISK, "4294967295"),
            (LABEL_POINT, NAME),
            (LABEL_HOLD, "yes"),
        ]);
        full.stage = Stage::Obsolete;
        let written = full.write(NAME).unwrap();
        assert!(written.chars().count() <= LENGTH_MAX);
        let read = Record::read(&written, NAME);
        // What people wrote gives way to what is recorded.
        assert!(full.text.starts_with(&read.text), "{}", read.text);
        assert_eq!(read, Record { text: read.text.clone(), ..full });
    }

    #[test]
    fn text_may_be_edited_and_holds_written_by_hand() {
        let written = record(&[]).write(NAME).unwrap();
        for (edited, hold) in [
            (format!("  keep me {written}"), None),
            (format!("{written} stillframe-hold"), Some("yes")),
            (
                format!("Stillframe-Hold=until-20270101t000000z, {written}"),
                Some("until-20270101t000000z"),
            ),
            (
                format!("stillframe-hold=until-20270101t000000z stillframe-hold {written}"),
                Some("yes"),
            ),
        ] {
            let read = Record::read(&edited, NAME);
            assert!(matches!(Key::from_labels(&read.labels), Ownership::Ours(_)), "{edited}");
            assert_eq!(read.labels.get(LABEL_HOLD).map(String::as_str), hold, "{edited}");
        }
    }

    #[test]
    fn a_hold_is_heard_wherever_it_stands_in_a_word() {
        let written = record(&[]).write(NAME).unwrap();
        let until = "until-20270101t000000z";
        for (words, hold, text) in [
            ("請保留stillframe-hold", "yes", "請保留"),
            ("stillframe-hold，請保留", "yes", "，請保留"),
            ("(stillframe-hold)", "yes", ""),
            ("「stillframe-hold」", "yes", ""),
            ("hold:stillframe-hold", "yes", "hold:"),
            ("ｓｔｉｌｌｆｒａｍｅ－ｈｏｌｄ", "yes", ""),
            ("stillframe\u{2011}hold!", "yes", ""),
            ("stillframe\u{2013}hold", "yes", ""),
            ("stillframe-hold=legal", "legal", ""),
            ("stillframe-hold=until-20270101t000000z", until, ""),
            ("（STILLFRAME-HOLD：until-20270101t000000z）", until, ""),
            // What stands behind the time may be a part of it.
            ("stillframe-hold=until-20270101t000000z前", "yes", "前"),
            ("stillframe-hold=until-2027", "until-2027", ""),
            ("stillframe-holds", "yes", ""),
            ("stillframe-hold-until-20270101t000000z", "yes", ""),
            ("stillframe-hold=until-20270101t000000z,stillframe-hold", "yes", ""),
        ] {
            for edited in [format!("{words} {written}"), format!("{written} {words}")] {
                let read = Record::read(&edited, NAME);
                assert!(matches!(Key::from_labels(&read.labels), Ownership::Ours(_)), "{edited}");
                assert_eq!(read.labels[LABEL_HOLD], hold, "{edited}");
                let texts: Vec<&str> = read.text.split("web01 at night").map(str::trim).collect();
                assert!(texts.contains(&text), "{edited}: {}", read.text);
                // What is written then says the same.
                let again = read.write(NAME).unwrap();
                assert_eq!(Record::read(&again, NAME), read, "{again}");
            }
        }
        for words in ["stillframe hold", "frame-hold", "still-frame-hold"] {
            let read = Record::read(&format!("{words} {written}"), NAME);
            assert_eq!(read.labels.get(LABEL_HOLD), None, "{words}");
        }
    }

    #[test]
    fn what_a_policy_is_called_holds_nothing() {
        let mut named = record(&[]);
        let policy = PolicyName::parse(LABEL_HOLD).unwrap();
        named.labels.insert(LABEL_POLICY.to_owned(), policy.to_string());
        let key = match Key::from_labels(&record(&[]).labels) {
            Ownership::Ours(key) => Key { policy, ..key },
            other => panic!("{other:?}"),
        };
        named.labels.extend(key.labels());
        let read = Record::read(&named.write(NAME).unwrap(), NAME);
        assert_eq!(read, named);
    }

    #[test]
    fn what_is_glued_to_a_record_damages_it_and_is_heard() {
        let written = record(&[]).write(NAME).unwrap();
        for edited in [
            format!("請保留{written}"),
            format!("「{written}」"),
            format!("請保留，stillframe-hold{written}"),
            written.replacen("sf1:", "ＳＦ１：", 1),
            written.replacen("sf1:", "SF1:", 1),
            written.replacen(" web01", "請保留", 1),
        ] {
            let read = Record::read(&edited, NAME);
            assert!(read.is_damaged, "{edited}");
            let is_held = read.labels.contains_key(LABEL_HOLD);
            assert_eq!(is_held, edited.contains("hold"), "{edited}");
        }
    }

    #[test]
    fn a_record_that_is_not_as_it_was_written_is_nobodys() {
        let written = record(&[(LABEL_LET_GO, "20261122t030405z")]).write(NAME).unwrap();
        let other = record(&[]).write(NAME).unwrap();
        for (edited, name) in [
            (written.replace("sf1:", "sf2:"), NAME),
            (written.replace("261122", "251122"), NAME),
            (written.replace("nightly", "daily"), NAME),
            (written.clone(), "another-name"),
            (format!("{written} {other}"), NAME),
            (written[..40].to_owned(), NAME),
            ("sf1:".to_owned(), NAME),
        ] {
            let read = Record::read(&edited, name);
            assert!(read.is_damaged, "{edited}");
            assert!(matches!(Key::from_labels(&read.labels), Ownership::Broken(_)), "{edited}");
            assert!(read.write(name).is_err(), "a damaged record is never written over");
        }
        for text in ["", "twccli created from web(1)", "sf:1", "sfx:1", "http://sf1.example"] {
            let read = Record::read(text, NAME);
            assert_eq!(Key::from_labels(&read.labels), Ownership::Foreign, "{text}");
            assert_eq!(read.write(NAME).unwrap(), text);
        }
    }

    #[test]
    fn what_has_no_place_is_refused() {
        assert!(record(&[("colour", "blue")]).write(NAME).is_err());
        assert!(record(&[(LABEL_LET_GO, "soon")]).write(NAME).is_err());
        let long = "x".repeat(150);
        assert!(record(&[(LABEL_HOLD, &long)]).write(NAME).is_err());
    }

    #[test]
    fn who_makes_an_image_stands_behind_the_record() {
        let author = |host: &str| Author::new(host).unwrap();
        let mut new = record(&[]);
        new.sign(Some(&author("ci-7")), NAME).unwrap();
        let written = new.write(NAME).unwrap();
        let read = Record::read(&written, NAME);
        assert_eq!(Author::read(&read.text), Some(author("ci-7")), "{written}");
        assert_eq!(read.labels, new.labels);
        // What is too long gives way before the host, as long as there is room for that.
        let mut long = Record { text: "x".repeat(300), ..record(&[]) };
        long.sign(Some(&author("ci-7")), NAME).unwrap();
        let written = long.write(NAME).unwrap();
        assert_eq!(written.chars().count(), LENGTH_MAX);
        assert_eq!(Record::read(&written, NAME), long);
        assert_eq!(Author::read(&long.text), Some(author("ci-7")));
        // A record that grows takes room from it, and half a host is none.
        let mut grown = Record { text: author(&"h".repeat(64)).sign("nightly", 130), ..read };
        let hold = format!("until-{}", "x".repeat(60));
        grown.labels.insert(LABEL_HOLD.to_owned(), hold);
        let written = grown.write(NAME).unwrap();
        assert_eq!(written.chars().count(), LENGTH_MAX);
        assert_eq!(Author::read(&Record::read(&written, NAME).text), None, "{written}");
        // A host that is called like a mark of the record would hold the image.
        let mut new = record(&[]);
        new.sign(Some(&author("stillframe-hold-1")), NAME).unwrap();
        assert_eq!(new, record(&[]));
    }

    proptest! {
        #[test]
        fn whoever_makes_an_image_its_record_is_whole(
            policy in "[a-z]{63}", site in 1..u64::MAX, text in "\\PC{0,300}", host in "[a-z0-9.-]{1,70}",
        ) {
            let key = Key {
                policy: PolicyName::parse(&policy).unwrap(),
                source: SourceId::parse(&site.to_string()).unwrap(),
                slot: Slot::parse("20261121t020000z").unwrap(),
            };
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let bare = Record { labels: key.labels(), ..Record::default() };
            let mut new = Record { text, ..bare.clone() };
            new.sign(Author::new(&host).as_ref(), NAME).unwrap();
            let written = new.write(NAME).unwrap();
            prop_assert!(written.chars().count() <= LENGTH_MAX);
            prop_assert!(written.starts_with(&bare.write(NAME).unwrap()));
            let read = Record::read(&written, NAME);
            let said = Author::read(&read.text);
            prop_assert!(said.is_none() || said == Author::new(&host), "{written}");
        }

        #[test]
        fn no_edit_of_a_record_is_taken_for_one(at in 0usize..50, to in "[!-~]") {
            let written = record(&[(LABEL_LET_GO, "20261122t030405z")]).write(NAME).unwrap();
            let mut edited = written.clone();
            edited.replace_range(at..=at, &to);
            prop_assume!(edited != written);
            let read = Record::read(&edited, NAME);
            prop_assert!(!matches!(Key::from_labels(&read.labels), Ownership::Ours(_)), "{edited}");
        }

        #[test]
        fn whatever_people_write_is_read(description in "\\PC{0,250}") {
            let read = Record::read(&description, NAME);
            prop_assert!(!matches!(Key::from_labels(&read.labels), Ownership::Ours(_)));
        }

        #[test]
        fn a_new_image_has_room_for_its_description(policy in "[a-z]{63}", text in "[a-z ]{0,300}") {
            let key = Key {
                policy: PolicyName::parse(&policy).unwrap(),
                source: SourceId::parse("4294967295").unwrap(),
                slot: Slot::parse("20261121t020000z").unwrap(),
            };
            let mut labels = key.labels();
            labels.insert(LABEL_SET.to_owned(), "12".to_owned());
            labels.insert(LABEL_DISK.to_owned(), "4294967295".to_owned());
            labels.insert(LABEL_POINT.to_owned(), NAME.to_owned());
            let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let text: String = text.chars().take(TEXT_LENGTH_MAX).collect();
            let record = Record { labels, text: text.trim().to_owned(), ..Record::default() };
            let written = record.write(NAME).unwrap();
            prop_assert!(written.chars().count() <= LENGTH_MAX);
            prop_assert_eq!(Record::read(&written, NAME), record);
        }
    }
}
