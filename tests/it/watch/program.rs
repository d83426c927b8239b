//! The long-running mode as a program: killed, started again, several at once, told to stop, asked.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::super::local::{fill_disks, only_web};
use super::super::support::{Datacenter, Random};
use super::metrics::parse;

/// Nothing takes so long, on the slowest machine.
const PATIENCE: Duration = Duration::from_mins(3);

/// A watch that runs as a program. It is killed with what it belongs to.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
    /// What it has said so far.
    said: Vec<String>,
    address: Option<String>,
}

impl Program {
    pub fn start(datacenter: &Datacenter, more: &[&str]) -> Self {
        Self::with(datacenter, more, &[])
    }

    pub fn with(datacenter: &Datacenter, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut arguments = vec!["watch"];
        arguments.extend(more);
        let mut command = datacenter.command(&arguments);
        command.envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let error = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in error.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let address = more.contains(&"--listen").then(|| {
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            line.trim().strip_prefix("http://").unwrap().to_owned()
        });
        Self { child, lines, said: Vec::new(), address }
    }

    /// Waits until it says something.
    pub fn says(&mut self, text: &str) -> &str {
        let until = Instant::now() + PATIENCE;
        loop {
            if self.said.last().is_some_and(|line| line.contains(text)) {
                return self.said.last().unwrap();
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.said.push(line),
                Err(error) => {
                    panic!("it does not say `{text}` ({error}):\n{}", self.said.join("\n"))
                }
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it, and holds nothing any more.
    fn killed(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to stop; it must end well. Back comes all that it has said.
    pub fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        while let Ok(line) = self.lines.recv() {
            self.said.push(line);
        }
        let said = self.said.join("\n");
        assert!(status.success(), "{status}: {said}");
        said
    }

    pub fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address.as_ref().unwrap()).unwrap();
        let host = self.address.as_ref().unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn web(mebibytes: u64) -> Datacenter {
    let datacenter = Datacenter::new();
    only_web(&datacenter);
    fill_disks(&datacenter, mebibytes, &mut Random::new());
    datacenter
}

/// A store with several slots of each source.
fn several(mebibytes: u64) -> Datacenter {
    let datacenter = web(mebibytes);
    let policy = std::fs::read_to_string(datacenter.path("policies/web.yaml")).unwrap();
    for (name, cron) in [("web-morning", "0 8 * * *"), ("web-evening", "0 20 * * *")] {
        let other = policy.replace("web-nightly", name).replace("0 2 * * *", cron);
        std::fs::write(datacenter.path(&format!("policies/{name}.yaml")), other).unwrap();
    }
    datacenter
}

fn assert_several(datacenter: &Datacenter) {
    assert_one_image_per_slot(datacenter);
    for source in ["web-1", "web-2"] {
        let ready = datacenter.ready(source);
        assert!(ready.len() >= 3, "{source}: {ready:?}");
    }
}

/// One image per slot of each source, all of them sound.
fn assert_one_image_per_slot(datacenter: &Datacenter) {
    let list = datacenter.json(0, &["list", "--all"]);
    let images = list["images"].as_array().unwrap();
    let mut names: Vec<&str> =
        images.iter().map(|row| row["image"]["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!((names.len(), count % 2), (count, 0), "{list:#}");
    for source in ["web-1", "web-2"] {
        assert!(!datacenter.ready(source).is_empty(), "{source}");
    }
    datacenter.run_to(0, &["verify"]);
}

fn progress(datacenter: &Datacenter) -> u64 {
    datacenter.bytes_seen(".stillframe")
}

/// 20 times; `STILLFRAME_KILLS=200` tries more.
#[test]
fn killed_at_random_and_started_again() {
    let kills = std::env::var("STILLFRAME_KILLS").map_or(20, |text| text.parse::<u32>().unwrap());
    let mut random = Random::new();
    let undisturbed = several(6);
    let mut program = Program::start(&undisturbed, &[]);
    program.says("round ended");
    program.stop();
    let whole = progress(&undisturbed);
    let mut datacenter = several(6);
    let mut unfinished = 0;
    for _ in 0..kills {
        let until = progress(&datacenter) + random.below(whole + whole / 4);
        let mut program = Program::start(&datacenter, &["-v"]);
        let began = Instant::now();
        let mut has_ended = false;
        while progress(&datacenter) < until && !has_ended {
            while let Ok(line) = program.lines.try_recv() {
                // Nothing is to do any more where everything was made before.
                has_ended |= line.contains("round ended") || line.contains("nothing to do");
            }
            assert!(began.elapsed() < PATIENCE, "it does not get on; {random}");
            thread::yield_now();
        }
        unfinished += u32::from(!has_ended);
        program.child.kill().unwrap();
        drop(program);
        datacenter.run_to(0, &["verify"]);
        if has_ended {
            assert_several(&datacenter);
            datacenter = several(6);
        }
    }
    assert!(unfinished * 4 >= kills, "only {unfinished} of {kills} were killed midway; {random}");
    let program = Program::start(&datacenter, &["--listen", "127.0.0.1:0"]);
    let began = Instant::now();
    while !program.get("/metrics", "").1.contains("stillframe_round_ended_timestamp_seconds{") {
        assert!(began.elapsed() < PATIENCE);
        thread::yield_now();
    }
    program.stop();
    assert_several(&datacenter);
}

#[test]
fn an_apply_and_two_watches_at_once_make_one_image_per_slot() {
    let datacenter = web(16);
    let mut programs: Vec<Program> =
        (0..2).map(|_| Program::start(&datacenter, &["--listen", "127.0.0.1:0"])).collect();
    datacenter.run_to(0, &["apply", "--auto-approve"]);
    let mut said = String::new();
    for program in &mut programs {
        let began = Instant::now();
        while !program.get("/metrics", "").1.contains("stillframe_round_ended_timestamp_seconds{") {
            assert!(began.elapsed() < PATIENCE);
            thread::yield_now();
        }
    }
    for program in programs {
        said.push_str(&program.stop());
    }
    assert!(!said.contains("ERROR"), "{said}");
    assert_one_image_per_slot(&datacenter);
    println!("{} were done by another run", said.matches("another run has done it").count());
    let list = datacenter.json(0, &["list", "--all"]);
    assert_eq!(list["images"].as_array().unwrap().len(), 2, "{list:#}");
}

#[test]
fn a_stop_lets_what_is_under_way_finish_and_leaves_the_rest() {
    let datacenter = web(24);
    let mut program = Program::start(&datacenter, &["-v"]);
    program.says("create begins");
    let said = program.stop();
    assert!(said.contains("create: done") && said.contains("left for the next round"), "{said}");
    let made = ["web-1", "web-2"].map(|source| datacenter.ready(source).len());
    assert_eq!(made.iter().sum::<usize>(), 1, "one at a time");
    let mut program = Program::start(&datacenter, &[]);
    program.says("round ended");
    program.stop();
    assert_one_image_per_slot(&datacenter);
}

#[test]
fn without_grace_what_is_under_way_is_given_up_and_the_next_start_makes_it() {
    let datacenter = web(48);
    let mut program = Program::start(&datacenter, &["-v", "--grace", "0"]);
    program.says("create begins");
    let said = program.stop();
    let told = "given up; a service may still finish it, and the next run takes up what is there";
    assert!(said.contains(told), "{said}");
    datacenter.run_to(0, &["verify"]);
    let mut program = Program::start(&datacenter, &[]);
    program.says("round ended");
    program.stop();
    assert_one_image_per_slot(&datacenter);
}

#[test]
fn a_hang_up_reads_everything_again() {
    let datacenter = web(1);
    let mut program = Program::start(&datacenter, &["--poll"]);
    program.says("round ended");
    datacenter.edit("policies/stillframe.yaml", |text| text.replace("days: 14", "days: 15"));
    program.signal(Signal::HUP);
    program.says("in force");
    datacenter.edit("policies/web.yaml", |text| text.replace("schedule:", "shedule:"));
    program.signal(Signal::HUP);
    let line = program.says("invalid policy");
    assert!(line.contains("policies/web.yaml:11:3"), "{line}");
    program.stop();
    // Without anything that was in force before, it does not begin.
    let run = datacenter.run_to(3, &["watch"]);
    assert!(run.err.contains("shedule"), "{}", run.err);
}

#[test]
fn a_directory_that_is_swapped_while_it_is_polled_is_no_news() {
    let datacenter = web(1);
    datacenter.edit("policies/stillframe.yaml", |text| {
        text.replace("spec:\n", "spec:\n  watch: {pollEvery: 1s}\n")
    });
    let tree = |number: u32| datacenter.path(&format!("tree-{number}"));
    let link = datacenter.path("policies/more");
    fs::create_dir(tree(1)).unwrap();
    fs::rename(datacenter.path("policies/web.yaml"), tree(1).join("web.yaml")).unwrap();
    std::os::unix::fs::symlink("../tree-1", &link).unwrap();
    let mut program = Program::start(&datacenter, &["--poll"]);
    program.says("round ended");
    // As git-sync does it.
    let text = fs::read_to_string(tree(1).join("web.yaml")).unwrap();
    fs::create_dir(tree(2)).unwrap();
    fs::write(tree(2).join("web.yaml"), format!("# Anew.\n{text}  description: anew\n")).unwrap();
    std::os::unix::fs::symlink("../tree-2", datacenter.path("policies/.new")).unwrap();
    fs::rename(datacenter.path("policies/.new"), &link).unwrap();
    fs::remove_dir_all(tree(1)).unwrap();
    program.says("in force");
    let said = program.stop();
    assert!(!said.contains("walkdir"), "{said}");
}

#[test]
fn of_two_with_a_lease_one_works_and_the_other_takes_over() {
    let datacenter = web(1);
    let lease = datacenter.path("lease").display().to_string();
    let arguments = ["--lease", lease.as_str(), "--listen", "127.0.0.1:0"];
    let mut first = Program::start(&datacenter, &arguments);
    first.says("round ended");
    let mut second = Program::start(&datacenter, &arguments);
    second.says("standing by");
    let (status, body) = second.get("/readyz", "");
    assert!(status == 200 && body.contains("standby"), "{status} {body}");
    assert!(!body.contains("valid"), "it has read nothing: {body}");
    assert!(first.get("/readyz", "").1.contains("\"valid\":true"));
    assert!(parse(&second.get("/metrics", "").1)["stillframe_role{role=\"standby\"}"] > 0.5);
    first.killed();
    second.signal(Signal::HUP);
    second.says("holding the lease");
    second.says("in force");
    second.stop();
}

impl Program {
    /// Waits until it has ended by itself; back come its code and all that it has said.
    pub fn ends(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        while let Ok(line) = self.lines.recv() {
            self.said.push(line);
        }
        (status.code(), self.said.join("\n"))
    }
}

#[test]
fn who_takes_over_when_the_files_are_not_valid_any_more_says_so() {
    let datacenter = web(1);
    let lease = datacenter.path("lease").display().to_string();
    let mut first = Program::start(&datacenter, &["--lease", &lease]);
    first.says("round ended");
    let mut second = Program::start(&datacenter, &["--lease", &lease]);
    second.says("standing by");
    datacenter.edit("policies/web.yaml", |text| text.replace("schedule:", "shedule:"));
    first.says("stays in force");
    first.killed();
    second.signal(Signal::HUP);
    let (code, said) = second.ends();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("shedule") && said.contains("no earlier ones"), "{said}");
}

#[test]
fn a_lease_that_moves_with_a_link_is_refused_and_one_that_changes_is_told() {
    let datacenter = web(1);
    let spec = |text: &str, lease: &str| {
        text.replace("spec:\n", &format!("spec:\n  watch: {{lease: {lease}}}\n"))
    };
    datacenter.edit("policies/stillframe.yaml", |text| spec(text, "../watch.lock"));
    let mut program = Program::start(&datacenter, &[]);
    program.says("holding the lease");
    program.says("round ended");
    datacenter.edit("policies/stillframe.yaml", |text| text.replace("watch.lock", "other.lock"));
    program.says("watch.lease is another one now");
    program.stop();
    fs::rename(datacenter.path("policies"), datacenter.path("tree")).unwrap();
    std::os::unix::fs::symlink("tree", datacenter.path("policies")).unwrap();
    let run = datacenter.run_to(1, &["watch"]);
    assert!(run.err.contains("write an absolute path"), "{}", run.err);
}

#[test]
#[cfg(feature = "gce")]
fn an_engine_that_cannot_be_opened_stops_no_other() {
    let datacenter = web(1);
    let cloud = "    cloud: {gce: {projects: [p]}}\n";
    datacenter.edit("policies/stillframe.yaml", |text| {
        text.replace("  engines:\n", &format!("  engines:\n{cloud}"))
    });
    datacenter
        .edit("policies/web.yaml", |text| text.replace("spec:\n", "spec:\n  engine: datacenter\n"));
    let key = [("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")];
    let mut program = Program::with(&datacenter, &[], &key);
    let mut heard = BTreeSet::new();
    while heard.len() < 2 {
        let line = program.says("engine=").to_owned();
        program.said.clear();
        heard.extend(
            ["everything: cannot be opened", "round ended"]
                .into_iter()
                .filter(|text| line.contains(text)),
        );
    }
    program.stop();
    let with_cloud = fs::read_to_string(datacenter.path("policies/stillframe.yaml")).unwrap();
    datacenter.edit("policies/stillframe.yaml", |text| text.replace(cloud, ""));
    for source in ["web-1", "web-2"] {
        assert!(!datacenter.ready(source).is_empty(), "{source}");
    }
    // Where there is nothing else, there is nothing to do.
    datacenter.edit("policies/stillframe.yaml", |_| {
        let (before, rest) = with_cloud.split_once("    datacenter:").unwrap();
        format!("{before}{}", &rest[rest.find("  defaults:").unwrap()..])
    });
    fs::remove_file(datacenter.path("policies/web.yaml")).unwrap();
    let mut command = datacenter.command(&["watch"]);
    let output = command.envs(key).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("/nowhere/key.json"), "{said}");
}

#[test]
fn health_readiness_and_metrics_are_seen_from_outside() {
    let datacenter = web(1);
    let mut program = Program::start(&datacenter, &["--listen", "127.0.0.1:0"]);
    program.says("round ended");
    // What a round leaves is seen shortly after its line.
    let began = Instant::now();
    let metrics = loop {
        let metrics = parse(&program.get("/metrics", "").1);
        if metrics.contains_key("stillframe_rounds_total{engine=\"datacenter\",result=\"well\"}") {
            break metrics;
        }
        assert!(began.elapsed() < PATIENCE, "{metrics:#?}");
    };
    let of = |name: &str| {
        metrics.get(name).map_or_else(|| panic!("{name} {metrics:#?}"), |value| *value as i64)
    };
    assert_eq!(of("stillframe_config_valid"), 1);
    assert_eq!(
        of("stillframe_images{engine=\"datacenter\",policy=\"web-nightly\",state=\"READY\"}"),
        2
    );
    assert_eq!(
        of("stillframe_actions_total{engine=\"datacenter\",action=\"create\",result=\"done\"}"),
        2
    );
    let ages = metrics.iter().filter(|(name, _)| name.contains("newest_ready_age_seconds{"));
    assert!(
        ages.clone().count() == 2 && ages.clone().all(|(_, age)| (0.0..90_000.0).contains(age))
    );
    assert_eq!(program.get("/healthz", ""), (200, "ok\n".to_owned()));
    assert_eq!(program.get("/readyz", "").0, 200);
    assert_eq!(program.get("/", "").0, 200);
    assert_eq!(program.get("/elsewhere", "").0, 404);
    program.stop();
}

#[test]
fn others_need_a_token_or_a_proxy() {
    let datacenter = web(1);
    let run = datacenter.run_to(1, &["watch", "--listen", "192.0.2.1:0"]);
    assert!(run.err.contains("--token-file"), "{}", run.err);
    fs::write(datacenter.path("token"), "short\n").unwrap();
    let address = ["--listen", "127.0.0.1:0"];
    let run = datacenter.run_to(1, &[&["watch", "--token-file", "token"], &address[..]].concat());
    assert!(run.err.contains("shorter than"), "{}", run.err);
    fs::write(datacenter.path("token"), "0123456789abcdef\n").unwrap();
    let program = Program::start(&datacenter, &[&["--token-file", "token"], &address[..]].concat());
    assert_eq!(program.get("/metrics", "").0, 401);
    assert_eq!(program.get("/metrics", "Authorization: Bearer 0123456789abcdee\r\n").0, 401);
    assert_eq!(program.get("/metrics", "Authorization: Bearer 0123456789abcdef\r\n").0, 200);
    assert_eq!(program.get("/healthz", "").0, 200, "whoever looks after the process sees that");
    program.stop();
    let program =
        Program::start(&datacenter, &[&["--behind-proxy", "x-user"], &address[..]].concat());
    assert_eq!(program.get("/metrics", "").0, 403);
    assert_eq!(program.get("/metrics", "X-User: somebody\r\n").0, 200);
    program.stop();
}

/// What a program tells the system that has started it.
struct Listening(UnixDatagram);

impl Listening {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn hears(&self) -> String {
        let mut bytes = [0; 256];
        let length = self.0.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    fn until(&self, word: &str) -> String {
        loop {
            let heard = self.hears();
            if heard.contains(word) {
                return heard;
            }
        }
    }
}

#[test]
fn the_system_hears_when_it_is_ready_alive_and_stopping() {
    let datacenter = web(1);
    let path = datacenter.path("notify");
    let system = Listening::at(&path);
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "400000")];
    let program = Program::with(&datacenter, &[], &environment);
    system.until("READY=1");
    // It is ready, and says nothing else before somebody asks.
    for _ in 0..6 {
        let heard = system.hears();
        assert!(heard.contains("WATCHDOG=1") && !heard.contains("RELOADING"), "{heard}");
    }
    program.signal(Signal::HUP);
    system.until("RELOADING=1");
    system.until("READY=1");
    program.signal(Signal::TERM);
    system.until("STOPPING=1");
    program.stop();
}

#[test]
fn the_system_hears_of_who_stands_by_and_takes_over() {
    let datacenter = web(1);
    let lease = datacenter.path("lease").display().to_string();
    let mut first = Program::start(&datacenter, &["--lease", &lease]);
    first.says("round ended");
    let path = datacenter.path("notify");
    let system = Listening::at(&path);
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let second = Program::with(&datacenter, &["--lease", &lease], &environment);
    let heard = system.until("READY=1");
    assert!(heard.contains("STATUS=standing by"), "{heard}");
    // Who has asked it to read everything again is not left waiting.
    second.signal(Signal::HUP);
    assert!(system.hears().contains("RELOADING=1"));
    let heard = system.hears();
    assert!(heard.contains("READY=1") && heard.contains("STATUS=standing by"), "{heard}");
    first.killed();
    let heard = system.until("READY=1");
    assert!(heard.contains("STATUS=watching"), "{heard}");
    second.stop();
}
