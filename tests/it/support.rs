//! What tests share: a copy of the example data centre, the program, and golden files.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use stillframe::engine::Author;
use tempfile::TempDir;

/// The instant at which golden cases begin.
pub const NOW: &str = "2026-11-21T12:00:00Z";

/// The root of the project.
pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a file of the examples is written for another program.
pub fn is_of_others(path: &Path) -> bool {
    let is_in = |directory: &str| path.starts_with(project().join("examples").join(directory));
    ["ci", "container", "kubernetes", "monitoring", "systemd"].into_iter().any(is_in)
        && !is_in("kubernetes/base/policies")
}

/// A copy of `policies/` and `examples/datacenter/` in a directory of its own, set up for trials:
/// rounds can be carried out as if it were any time.
pub struct Datacenter {
    directory: TempDir,
}

/// What a run of the program left.
#[derive(Debug)]
pub struct Run {
    /// How it ended; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Datacenter {
    /// A fresh copy.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let this = Self { directory };
        copy(&project().join("policies"), &this.path("policies"));
        copy(&project().join("examples"), &this.path("examples"));
        this.edit("policies/stillframe.yaml", |text| {
            text.replace(
                "        createKeys: true",
                "        createKeys: true\n        trial: true\n        captures: 1",
            )
        });
        this
    }

    /// A path in the copy.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// Changes a file; the change must change something.
    pub fn edit(&self, relative: &str, change: impl FnOnce(&str) -> String) {
        let path = self.path(relative);
        let before = fs::read_to_string(&path).unwrap();
        let after = change(&before);
        assert_ne!(before, after, "the edit of {relative} changed nothing");
        fs::write(path, after).unwrap();
    }

    /// The program, to be run in the copy.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stillframe"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_remove("RUST_LOG")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program in the copy.
    pub fn run(&self, arguments: &[&str]) -> Run {
        let output = self.command(arguments).output().unwrap();
        Run {
            code: output.status.code(),
            out: self.harmonised(&String::from_utf8(output.stdout).unwrap()),
            err: self.harmonised(&String::from_utf8(output.stderr).unwrap()),
        }
    }

    /// Runs the program; it must end with this code.
    pub fn run_to(&self, code: i32, arguments: &[&str]) -> Run {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}\n{}\n{}", run.out, run.err);
        run
    }

    /// Runs the program with `--json` and reads what it prints; it must end with this code.
    pub fn json(&self, code: i32, arguments: &[&str]) -> serde_json::Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let output = self.command(&arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}\n{error}");
        serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{arguments:?} printed no JSON: {text}\n{error}"))
    }

    /// Carries out a plan as if it were this instant.
    pub fn apply_at(&self, now: &str) -> serde_json::Value {
        self.json(0, &["apply", "--auto-approve", "--now", now])
    }

    /// The names of all READY images of a source, in order.
    pub fn ready(&self, source: &str) -> Vec<String> {
        let list = self.json(0, &["list", "--source", source, "--state", "ready"]);
        list["images"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["image"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Bytes of all files under a path of the copy, as they lie on the disk.
    pub fn bytes_under(&self, relative: &str) -> u64 {
        fn sum(path: &Path) -> u64 {
            let metadata = fs::symlink_metadata(path).unwrap();
            if metadata.is_dir() {
                fs::read_dir(path).unwrap().map(|entry| sum(&entry.unwrap().path())).sum()
            } else {
                metadata.size()
            }
        }
        sum(&self.path(relative))
    }

    /// How far a run has come, measured by what lies under a path, while it changes.
    pub fn bytes_seen(&self, relative: &str) -> u64 {
        fn sum(path: &Path) -> u64 {
            let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
            if metadata.is_dir() {
                let entries = fs::read_dir(path).into_iter().flatten().flatten();
                1 + entries.map(|entry| sum(&entry.path())).sum::<u64>()
            } else {
                1 + metadata.len() / 4096
            }
        }
        sum(&self.path(relative))
    }

    /// Text without what differs from run to run: directory, host, random ids, what hangs on them.
    fn harmonised(&self, text: &str) -> String {
        let real = self.directory.path().canonicalize().unwrap();
        let text = text.replace(&real.display().to_string(), "$DIR");
        let author = Author::here().unwrap();
        let text = text.replace(&author.mark(), "(by HOST)");
        let text = replace_runs(
            &text,
            |c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase(),
            64,
            64,
            "DIGEST",
        );
        let text = replace_runs(&text, |c| c.is_ascii_digit(), 15, 20, "ID");
        let mut lines = Vec::new();
        for line in text.split('\n') {
            let line = after(line, "Plan ", 12, "PLAN");
            let line = after(&line, "fingerprint: ", 16, "FINGERPRINT");
            lines.push(after(&line, "\"fingerprint\": \"", 16, "FINGERPRINT"));
        }
        lines.join("\n")
    }
}

/// Replaces runs of certain characters whose length lies between two numbers.
fn replace_runs(
    text: &str,
    is_part: impl Fn(char) -> bool,
    least: usize,
    most: usize,
    with: &str,
) -> String {
    let mut result = String::new();
    let mut run = String::new();
    for character in text.chars().chain(['\0']) {
        if is_part(character) {
            run.push(character);
            continue;
        }
        let is_whole =
            !result.ends_with(|c: char| c.is_alphanumeric()) && !character.is_alphanumeric();
        if (least..=most).contains(&run.len()) && is_whole {
            result.push_str(with);
        } else {
            result.push_str(&run);
        }
        run.clear();
        result.push(character);
    }
    result.pop();
    result
}

/// Replaces so many characters behind a marker.
fn after(line: &str, marker: &str, length: usize, with: &str) -> String {
    match line.find(marker) {
        Some(at) => {
            let start = at + marker.len();
            let is_hash = line
                .get(start..start + length)
                .is_some_and(|hash| hash.bytes().all(|b| b.is_ascii_hexdigit()));
            if is_hash {
                format!("{}{with}{}", &line[..start], &line[start + length..])
            } else {
                line.to_owned()
            }
        }
        None => line.to_owned(),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Compares text with a golden file; `BLESS=1` writes it instead.
pub fn golden(name: &str, text: &str) {
    let path = project().join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        return;
    }
    let wanted = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; write it with BLESS=1", path.display()));
    if wanted != text {
        let diff = similar::TextDiff::from_lines(&wanted, text)
            .unified_diff()
            .header(name, "now")
            .to_string();
        panic!("{name} is not what it was; if that is meant, write it with BLESS=1\n{diff}");
    }
}

/// The transcript of some runs: commands, what they print and how they end.
pub fn transcript(datacenter: &Datacenter, commands: &[&[&str]]) -> String {
    let mut text = String::new();
    for arguments in commands {
        let run = datacenter.run(arguments);
        text.push_str(&format!("$ stillframe {}\n", arguments.join(" ")));
        text.push_str(&run.out);
        if !run.err.is_empty() {
            text.push_str("-- standard error\n");
            text.push_str(&run.err);
        }
        match run.code {
            Some(0) => text.push('\n'),
            Some(code) => text.push_str(&format!("-- exit code {code}\n\n")),
            None => text.push_str("-- ended by a signal\n\n"),
        }
    }
    text
}

/// The seed of a random run: `STILLFRAME_SEED`; a new one where `PROPTEST_CASES` asks for more worlds
/// than usual; else always the same, so that the same code passes twice.
pub fn seed() -> u64 {
    match (std::env::var("STILLFRAME_SEED"), std::env::var_os("PROPTEST_CASES")) {
        (Ok(text), _) => text.parse().expect("STILLFRAME_SEED is a number"),
        (Err(_), Some(_)) => {
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
        }
        (Err(_), None) => 20_261_121,
    }
}

/// Random numbers from a [`seed`] that a failure can print.
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// From the seed of this run.
    pub fn new() -> Self {
        let seed = seed();
        println!("STILLFRAME_SEED={seed}");
        Self { seed, state: seed }
    }

    /// What repeats this run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next number (splitmix64).
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    /// Bytes that cannot be compressed.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

impl std::fmt::Display for Random {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "STILLFRAME_SEED={}", self.seed)
    }
}

/// Connections to a server that say nothing.
pub fn silent(address: &str, count: usize) -> Vec<TcpStream> {
    let connect = |_| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

/// Whether the other side has ended a connection on which nothing was said.
pub fn has_ended(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}
