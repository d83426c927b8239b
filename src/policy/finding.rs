//! Findings: what is wrong in what a user wrote, where, and what would be right.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;
use similar::get_close_matches;

use crate::name::PolicyName;

/// A file as it was read: its path as shown to people, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The path, relative to where the user stands.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// A stretch of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<SourceFile>,
    /// Bytes of its text.
    pub span: Range<usize>,
}

impl Place {
    /// As much of it as stands on its first line.
    #[must_use]
    pub fn first_line(mut self) -> Self {
        let text = self.file.text.get(self.span.clone()).unwrap_or_default();
        let length = text.find('\n').unwrap_or(text.len());
        self.span.end = self.span.start + text[..length].trim_end().len();
        self
    }

    /// Line and column of its beginning, both from 1, the column in characters.
    pub fn line_column(&self) -> (usize, usize) {
        let before = self.file.text.get(..self.span.start).unwrap_or(&self.file.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_column();
        write!(formatter, "{}:{line}:{column}", self.file.path)
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing runs until it is mended.
    Error,
    /// It runs, but probably not as meant.
    Warning,
}

/// Something wrong in what a user wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of mistake it is.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// Where; nowhere for a file that is missing altogether.
    pub place: Option<Place>,
    /// Written beside the underlined source.
    pub label: Option<String>,
    /// What would be right.
    pub hint: Option<String>,
    /// Another place that has to do with it, and how.
    pub related: Option<(Place, String)>,
    /// The policy it is about, where it is about one.
    pub policy: Option<PolicyName>,
}

impl Finding {
    /// A finding with a message and a place.
    pub fn new(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            place: Some(place),
            label: None,
            hint: None,
            related: None,
            policy: None,
        }
    }

    /// A finding about something that is not in any file.
    pub fn nowhere(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            place: None,
            label: None,
            hint: None,
            related: None,
            policy: None,
        }
    }

    /// Adds what is written beside the underlined source.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds what would be right.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what would be right, where that is known.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Adds another place that has to do with it.
    #[must_use]
    pub fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related = Some((place, label.into()));
        self
    }

    /// Says which policy it is about.
    #[must_use]
    pub fn of(mut self, policy: &PolicyName) -> Self {
        self.policy = Some(policy.clone());
        self
    }

    /// Whether nothing runs until it is mended.
    pub fn is_error(&self) -> bool {
        self.code.severity() == Severity::Error
    }

    /// The order in which findings are shown: by file and position.
    pub fn sort_key(&self) -> (Option<&str>, usize, Code, &str) {
        let place = self.place.as_ref();
        (
            place.map(|place| place.file.path.as_str()),
            place.map_or(0, |place| place.span.start),
            self.code,
            &self.message,
        )
    }
}

macro_rules! codes {
    ($($variant:ident $word:literal $severity:ident $title:literal $page:literal)*) => {
        /// The kinds of finding; each has a stable word and a page (`stillframe explain CODE`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// All codes there are.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable word.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// One line about it.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }

            /// What it means, why it matters and what to do, as a page of text.
            pub fn page(self) -> &'static str {
                match self { $(Self::$variant => $page),* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),* }
            }
        }
    };
}

codes! {
    UnreadableFile "unreadable-file" Error "A file could not be read."
        "The file exists but could not be read, or is not UTF-8 text; or a link leads nowhere, or to a directory that it lies in. Nothing runs while a part of the policies is unknown: a policy that is silently left out would leave its sources unprotected."
    SyntaxError "syntax-error" Error "The text is not YAML."
        "The YAML reader could not go on. The place is where it stopped; the cause is often one line above: a wrong indentation, a missing quote, a tab."
    DuplicateKey "duplicate-key" Error "A key is written twice in one mapping."
        "YAML readers disagree about which of the two counts, so neither does. Remove one of them."
    AnchorLimit "anchor-limit" Error "Aliases make the document far larger than its text."
        "Aliases that refer to aliases grow a document without bound. A document may have 100,000 values and 64 levels after all aliases are put in place."
    UnknownTag "unknown-tag" Error "A YAML tag that has no meaning here."
        "Only the tags of the YAML core schema are read: `!!str`, `!!int`, `!!bool`, `!!float`, `!!null`, `!!seq`, `!!map`."
    YamlTrap "yaml-trap" Error "A plain word that other YAML readers take for something else."
        "YAML 1.1 readers take `no`, `off`, `yes` and `on` for booleans and `02:00` for the number 7200. stillframe reads YAML 1.2, where they are text, but the next tool that reads the file may not. Quote the text, or write `true` or `false` where a boolean is meant."
    UnknownKind "unknown-kind" Error "The document is not of a kind that stillframe knows."
        "Each document begins with `apiVersion: stillframe/v1` and `kind: BackupPolicy` or `kind: Config`."
    UnknownKey "unknown-key" Error "A key that has no meaning here."
        "Unknown keys are errors, because a misspelt key would otherwise be a rule that silently does not hold."
    MissingKey "missing-key" Error "A key that must be there is not."
        "The document cannot be understood without it."
    WrongType "wrong-type" Error "A value of the wrong type."
        "Text that looks like a number or a boolean must be quoted; numbers and booleans must not."
    UnknownValue "unknown-value" Error "A word that is not among those allowed."
        "Only the listed words have a meaning here."
    OutOfRange "out-of-range" Error "A number, a text or a list is too small or too large."
        "The limits are those of the schema, or of what engines can hold."
    BadName "bad-name" Error "Not a valid name."
        "Names of policies become part of image names and labels on every engine, so they follow the strictest rule: 1 to 63 of a-z, 0-9 and `-`, beginning with a letter, not ending with `-`."
    DuplicatePolicy "duplicate-policy" Error "Two policies have one name."
        "The name of a policy is part of the identity of its restore points, so it must be unique."
    BadLabel "bad-label" Error "Not a valid label."
        "Label keys have 1 to 63 of a-z, 0-9, `-` and `_` and begin with a letter; values have up to 63 of the same characters. Keys that begin with `stillframe-` belong to stillframe."
    BadCron "bad-cron" Error "Not a valid schedule."
        "A schedule is a standard five-field crontab, read as Vixie cron reads it: minute, hour, day of month, month, day of week. Where both day fields are restricted and neither begins with `*`, either may match. `L`, `L-1`, `LW` and `15W` in the day of month and `5L` and `1#1` in the day of week are known beyond that. Expressions that never fire, run backwards or have stray commas are errors."
    BadTimeZone "bad-time-zone" Error "Not an IANA time zone."
        "Zones have names like `Europe/Berlin`. Offsets like `UTC+2` say nothing about clock changes and are not accepted."
    BadLength "bad-length" Error "Not a length of time."
        "Lengths of time are numbers with the units w, d, h, m or s, from large to small: `4h`, `7d`, `1d12h`. A day is 24 hours."
    BadTime "bad-time" Error "Not a time."
        "Write a date like `2026-12-01`, which is the beginning of that day in the policy's zone, or an instant like `2026-12-01T08:00:00Z`."
    BadPattern "bad-pattern" Error "Not a valid pattern."
        "Patterns are globs: `*` stands for any characters, `?` for one, `[a-c]` for one of several, `{web,api}` for one of several words."
    EmptyMatch "empty-match" Error "A selection without any condition."
        "An entry that says nothing would match every instance. Write `names: [\"*\"]` where that is meant."
    BadTemplate "bad-template" Error "Not a valid template."
        "Names and descriptions are handlebars templates. In a description `policy`, `source`, `slot` and `engine` can be used. In a name only what never changes can be used, because the name is part of the identity: `policy.name`, `source.id` and `slot`."
    BadKey "bad-key" Error "Not a valid name of an encryption key."
        "The name must be one the engine can look up."
    UnknownEngine "unknown-engine" Error "The configuration has no such engine."
        "Engines are named under `spec.engines` of the document of kind `Config`."
    BadSettings "bad-settings" Error "Settings with which an engine is not opened."
        "Each of the settings is well by itself, and together they are not: they exclude each other, or something is missing beside them."
    UnknownLocation "unknown-location" Error "The engine has no such storage location."
        "Images are stored in one of the locations that the engine has."
    MissingCapability "missing-capability" Error "The engine cannot do what the policy asks for."
        "Engines differ in the kinds of image they make, in the consistency they offer and in what can be chosen. The policy is checked against what its engine can do before anything is called."
    MissingConfig "missing-config" Error "There is no document of kind Config."
        "The engines are described in a document of kind `Config`, usually in `policies/stillframe.yaml`. There must be exactly one."
    DuplicateConfig "duplicate-config" Error "There are two documents of kind Config."
        "There must be exactly one, so that it is clear which engines and guards hold."
    NoPolicies "no-policies" Warning "There is no policy."
        "Without a document of kind `BackupPolicy` nothing is protected. Images of policies that were removed are reported and left alone."
    BadBlackout "bad-blackout" Error "Not a blackout."
        "A blackout is a window that returns (`cron` and `duration`) or a time between two days (`from` and `until`), and it stops creating, deleting or both. A restore point that is due in a blackout is created when it ends, if the deadline allows it; if not, it is left out and does not count as missed."
    BadReceiver "bad-receiver" Error "Not a receiver of messages."
        "A receiver under `watch.notify` is reached in one way: webhook, slack, teams, matrix, email or exec. URLs begin with `https://`; without TLS only this machine is reached, unless `plainHttp` says that more is meant. Secrets stand in a file or an environment variable, and each in one of them."
    BadAllow "bad-allow" Error "Not an allowance."
        "`metadata.allow` names warnings that are meant, each by its code and with a reason. Errors cannot be allowed."
    BadMove "bad-move" Error "Not a move."
        "`moved` says that a policy has a new name: `from` is a name that no policy has any more, `to` one that a policy has. `removed` says what becomes of the restore points of a policy that was taken out. A name can be in one of them once."
    BadRemoval "bad-removal" Error "Not a removal."
        "`removed` says what becomes of the restore points of a policy that was taken out of the files: `images: keep` leaves them, `images: rules` lets the rules under `retention` go on, `images: expire` lets go of all but the newest READY one of each source."
    BadInclude "bad-include" Error "What is included is not there."
        "`spec.include` of the configuration names files and directories, relative to the file it is written in. All of them are read like the directory that was given with `--policies`."
    ExpiredExemption "expired-exemption" Error "An exemption has ended."
        "An exemption says that a source is meant to be without protection until a day. That day has come: protect the source, or say anew until when and why not. Restore points of other sources go on being created; the run ends with exit code 3."
    UnknownEnvironment "unknown-environment" Error "There is no overlay for the environment."
        "`--environment NAME` puts the document of kind `Overlay` with that name over the policies and the configuration."
    DuplicateOverlay "duplicate-overlay" Error "Two overlays have one name."
        "There is one overlay for each environment, so that it is clear what holds."
    PatchesNothing "patches-nothing" Warning "An entry of an overlay changes no policy."
        "No policy has a name that fits the patterns. A misspelt name would otherwise be a difference that silently does not hold."
    NeverRuns "never-runs" Warning "Blackouts leave a schedule no time to run."
        "Every slot of the schedule lies in a blackout that lasts beyond its deadline, so no restore point is ever made. Move the schedule, shorten the blackout, or give the schedule a deadline that reaches beyond it."
    RunsTooOften "runs-too-often" Warning "A schedule fires more often than its engine makes images of one source."
        "Engines limit how soon after another, and how often within an hour, images of one source can be made. What goes beyond the limit is refused, and the slot is missed. The times are those of all expressions of the schedule together."
    DeadlineBeyondPeriod "deadline-beyond-period" Warning "A deadline is longer than the time between two runs."
        "Only the newest slot that is due can be created, so the next slot always comes before the deadline ends, and the rest of the deadline never matters. Write a shorter one, or none: without one, a slot may be created until the next."
    ObjectiveNotMet "objective-not-met" Warning "The schedule cannot keep to the objective."
        "`objectives.rpo` says that the newest READY restore point of a source is never older than a length of time, but more time than that passes between two runs although nothing fails. The age is counted from the slot to the beginning of the next run, so jitter and blackouts that return are part of it; the time of the capture comes on top. Let the schedule run more often, or promise less."
    ClockChange "clock-change" Warning "A run lies in an hour that a clock change skips or repeats."
        "Where clocks go forward an hour does not exist: a run at a fixed time comes right after it. Where they go back an hour comes twice: the run comes once, the first time. Neither loses a restore point, but the run is not at the time that is written; of schedules that run more than four times a day that is not said. Schedules that follow the wall clock (`*` in minute or hour) are not caught up: what lies in the hour that is skipped does not run at all, which is said where more time than ever passes between two runs by that, and in the hour that comes twice they run twice. Write fixed times, choose another hour, or UTC. `stillframe schedule` shows which runs are left out."
    SameMinute "same-minute" Warning "Several policies of one engine always fire at the same minute."
        "Three or more policies of one engine have the same schedule and no jitter, so all their captures begin at once and wait for each other. Write `jitter`, which spreads the starts by source, or other minutes."
    StalledTooSoon "stalled-too-soon" Warning "A series counts as stalled although nothing has failed."
        "`stalledAfter` is shorter than the time between two runs. A series without a new READY restore point for longer than that is stalled, and nothing of it is deleted until one comes; so it is stalled again and again between ordinary runs. The default is three periods of the schedule."
    RetentionBelowPeriod "retention-below-period" Warning "Every restore point is let go before the next one is made."
        "The rules keep restore points for a shorter time than passes between two runs, so between runs nothing but `atLeast` keeps any. Write a longer age, or a rule that counts, like `weekly: 4`."
    UselessRule "useless-rule" Warning "A retention rule keeps nothing that another does not keep."
        "With this schedule, everything the rule keeps is kept by another rule at every time, as long as no run fails. So it says nothing, and was probably meant otherwise. Where it is meant as a floor for times in which runs fail, write `atLeast`: that is what it is for, and it counts READY restore points only. Rules were compared over a year of the schedule, clock changes included."
    LastBelowDay "last-below-day" Warning "`last` holds less than the runs of one day."
        "Days, weeks or months are asked for, and `last` is to keep the newest runs beside them, but a day has more runs than that: the newest ones do not reach back a day, and between them and the one of yesterday nothing is kept. Write a larger `last`, `hourly`, or an age like `days: 1`."
    TierDoesNotFill "tier-does-not-fill" Warning "A retention rule counts periods that are shorter than the time between two runs."
        "`hourly`, `daily`, `weekly` and so on count periods that hold a restore point. Where the schedule runs less often than that, each restore point has its period to itself, and the rule keeps as many restore points as it counts: `hourly: 24` with a daily schedule reaches back 24 days, not one. Write the rule for the period of the schedule."
    StageNeverComes "stage-never-comes" Warning "No restore point is kept long enough to come to this stage."
        "`deprecateAfter` and `obsoleteAfter` are about restore points that a rule still keeps. With these rules and this schedule, each is let go before it is that old."
    HasEnded "has-ended" Warning "Something that was written for a time has ended."
        "A hold, a pause or a blackout has an end that lies in the past. It does nothing any more: take it out, or say anew until when."
    EndsSoon "ends-soon" Warning "An exemption ends within two weeks."
        "From that day on it is an error. Protect the source until then, or say anew until when it is meant to be without protection and why."
    MatchesNothing "matches-nothing" Warning "A policy selects no instance."
        "Nothing that the engine holds is selected by the policy, so it protects nothing. Often a label or a name is misspelt. This is only said where all instances of the engine were seen."
    EntryMatchesNothing "entry-matches-nothing" Warning "An entry of `match` or `exclude` fits no instance."
        "The policy selects something, but this entry has no part in it: no instance that the engine holds fits it. Entries of `exclude` that ask for labels only are not looked at, because they are often written for instances to come."
    SourcesOverlap "sources-overlap" Warning "Two policies protect the same source."
        "Each makes restore points of its own: twice the captures, twice the bytes. Where that is meant, write `overlapsWith` with the name of the other policy under `source` in one of them."
    ExemptsNothing "exempts-nothing" Warning "An exemption has nothing to exempt."
        "It fits no instance that the engines hold, or only instances that policies protect all the same. Take it out: it would hide a source that comes later."
    BeyondQuota "beyond-quota" Warning "An engine takes fewer images, or fewer bytes, than the policies will hold."
        "Counted are the images that the rules and the grace of all policies of the engine keep in the long run, for the sources that are there now and for each copy, those that fall due together and are there before anything goes for them, and images that no policy makes any more or that stillframe did not make. Bytes are those that restore points have added so far, or what is taken for granted where there are none. When the quota of the engine is reached, captures fail. Keep fewer, or have the quota raised. What lets go of nothing comes to any quota."
    BeyondImageLimit "beyond-image-limit" Warning "A source does not fit into an image of its engine."
        "Engines limit how many disks and how many bytes one image can hold, and some images always hold the disk that the machine starts from. The capture of such a source fails. Choose its disks under `capture.disks`."
    OtherKey "other-key" Warning "Disks have another key than the policy asks for."
        "Images of this engine are encrypted under the key of their disk. Where that is not the one that the policy names, no image is made. Take the key out, or encrypt the disks under it."
    FamilyOfSeveral "family-of-several" Warning "Images of several sources share one family."
        "In a family the newest image stands for all: whoever starts a machine from the family gets the disk of whichever source was captured last. Give each source a policy and a family of its own."
    HoldsNothing "holds-nothing" Warning "An entry of `hold` holds no image."
        "No image of the policy fits the entry. Often a name is misspelt, and what it was to hold goes when the rules let go of it."
    MoveIsDone "move-is-done" Warning "An entry of `moved` or `removed` is about no image any more."
        "No image carries the old name of the policy any more, so the entry says nothing and can be taken out."
    AllowsNothing "allows-nothing" Warning "A warning is allowed that is not there."
        "`metadata.allow` names a warning that is not found here. Take the entry out: it would hide a mistake that comes later."
    BadTest "bad-test" Error "A test that cannot be carried out."
        "A document of kind `PolicyTest` names policies, sources and engines that there are, and its histories hold at least one slot each. A test that is about nothing would always pass."
    UnmetExpectation "unmet-expectation" Error "A policy does not do what a test expects of it."
        "`stillframe test` plans for the world and the instant of a case, and holds the plan against `expect`. Either the policies are not what they should be, or the expectation is not: what is missing and what is unexpected stands below it."
    KeepsEverything "keeps-everything" Warning "The policy never lets go of a restore point."
        "No retention rule is written, so every restore point is kept for ever. Write a rule, like `days: 30`, or allow the growth knowingly by leaving it so."
    NotFormatted "not-formatted" Warning "A file that `fmt` leaves as it is."
        "After formatting, the text is read again: it must mean the same and have every comment. Where that does not hold, or where the text uses something that the formatter does not know, such as directives, the file stays as it is. It is as valid as before."
}

impl Code {
    /// The code of a word, for warnings that may be allowed; otherwise what is wrong with the word,
    /// and what would be right.
    pub fn allowable(word: &str) -> Result<Self, (String, Option<String>)> {
        let known = Self::ALL.iter().find(|code| code.word() == word);
        match known {
            Some(Self::AllowsNothing) => Err(("an allowance cannot be allowed".to_owned(), None)),
            Some(code) if code.severity() == Severity::Warning => Ok(*code),
            Some(_) => Err((format!("`{word}` is an error, which cannot be allowed"), None)),
            None => {
                let warnings: Vec<&str> = Self::ALL
                    .iter()
                    .filter(|code| code.severity() == Severity::Warning)
                    .map(|code| code.word())
                    .collect();
                let close = get_close_matches(word, &warnings, 1, 0.6).first().copied();
                let hint = match close {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => format!("warnings are {}", warnings.join(", ")),
                };
                Err((format!("there is no warning `{word}`"), Some(hint)))
            }
        }
    }

    /// Whether it is found only by looking at what the engines hold.
    pub fn needs_inventory(self) -> bool {
        matches!(
            self,
            Self::MatchesNothing
                | Self::EntryMatchesNothing
                | Self::SourcesOverlap
                | Self::ExemptsNothing
                | Self::BeyondQuota
                | Self::BeyondImageLimit
                | Self::OtherKey
                | Self::FamilyOfSeveral
                | Self::HoldsNothing
                | Self::MoveIsDone
        )
    }

    /// Whether it is found only by looking at the time.
    pub fn needs_clock(self) -> bool {
        matches!(self, Self::HasEnded | Self::EndsSoon)
    }

    /// Whether it may yet be found, though the policies alone do not show it.
    pub fn may_come_later(self) -> bool {
        // What an engine takes is often known only once it was asked.
        self.needs_inventory() || self.needs_clock() || self == Self::RunsTooOften
    }

    /// Whether it is found in sound policies only.
    pub fn needs_soundness(self) -> bool {
        matches!(
            self,
            Self::NeverRuns
                | Self::RunsTooOften
                | Self::DeadlineBeyondPeriod
                | Self::ObjectiveNotMet
                | Self::ClockChange
                | Self::SameMinute
                | Self::StalledTooSoon
                | Self::RetentionBelowPeriod
                | Self::UselessRule
                | Self::LastBelowDay
                | Self::TierDoesNotFill
                | Self::StageNeverComes
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_kebab_words() {
        let mut words: Vec<_> = Code::ALL.iter().map(|code| code.word()).collect();
        assert!(
            words
                .iter()
                .all(|word| { word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') })
        );
        words.sort_unstable();
        let count = words.len();
        words.dedup();
        assert_eq!(words.len(), count);
    }

    #[test]
    fn columns_count_characters() {
        let file = Arc::new(SourceFile { path: "a.yaml".into(), text: "a: b\nü: ö\n".into() });
        let place = Place { file, span: 9..11 };
        assert_eq!(place.to_string(), "a.yaml:2:4");
    }
}
