//! What never returns: reading the policies, and opening what they name.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use stillframe::watch::Role;
use tokio::time::{Instant, timeout};

use super::super::support::Datacenter;
use super::program::{Program, web};
use super::reload::{World, day};
use super::{Running, slots};

const MINUTE: Duration = Duration::from_mins(1);

/// Reading hangs, or opening does.
const BOTH: [usize; 2] = [0, 1];

fn hang(world: &World, what: usize, hangs: bool) {
    world.script.hangs[what].store(hangs, Ordering::SeqCst);
}

/// How many slots have their image.
fn made(world: &World) -> usize {
    slots(&world.engine)[&("hourly".to_owned(), "web-1".to_owned())].len()
}

#[tokio::test(start_paused = true)]
async fn what_does_not_return_is_told_and_no_slot_waits_for_it() {
    let (world, running) = day("{last: 8}").await;
    for what in BOTH {
        let (before, count) = (running.status.snapshot().digest, made(&world));
        hang(&world, what, true);
        world.write(&running, &format!("{{last: {}}}", 9 + what));
        tokio::time::sleep(MINUTE / 2).await;
        let snapshot = running.status.snapshot();
        let since = snapshot.reading_since.expect("it is being read");
        assert!(snapshot.validity.is_valid, "it may yet return");
        tokio::time::sleep(MINUTE).await;
        let snapshot = running.status.snapshot();
        assert_eq!((&snapshot.digest, snapshot.validity.is_valid), (&before, false));
        let told = snapshot.validity.mistakes.join("\n");
        assert!(told.contains("has not returned for 60 s"), "{told}");
        tokio::time::sleep(MINUTE * 180).await;
        assert!(running.status.is_alive());
        let snapshot = running.status.snapshot();
        assert_eq!((snapshot.role, snapshot.reading_since), (Role::Running, Some(since)));
        assert_eq!(made(&world), count + 3);
        hang(&world, what, false);
        // Who hangs is given up after a minute, and tried again a minute later.
        tokio::time::sleep(MINUTE * 2).await;
        let snapshot = running.status.snapshot();
        assert!(snapshot.validity.is_valid && snapshot.digest != before, "{snapshot:?}");
        assert_eq!(snapshot.reading_since, None);
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_heard_while_something_hangs() {
    let (world, running) = day("{last: 8}").await;
    running.stop().await;
    let start = || Running::start(world.script.clone(), world.clock.clone(), MINUTE);
    for what in BOTH {
        for after in [0, 2, 30, 100] {
            let running = start();
            tokio::time::sleep(MINUTE).await;
            hang(&world, what, true);
            running.bell.reload();
            tokio::time::sleep(Duration::from_secs(after)).await;
            let began = Instant::now();
            timeout(MINUTE * 9, running.stop()).await.expect("it is heard");
            assert!(began.elapsed() < MINUTE, "{:?}", began.elapsed());
            hang(&world, what, false);
        }
        // Before there is anything to go on with as well.
        hang(&world, what, true);
        let running = start();
        tokio::time::sleep(MINUTE * 3).await;
        let validity = running.status.snapshot().validity;
        assert!(validity.mistakes[0].contains("has not returned"), "{validity:?}");
        timeout(MINUTE, running.stop()).await.expect("it is heard");
        hang(&world, what, false);
    }
}

fn pipe(datacenter: &Datacenter, path: &str) {
    let path = datacenter.path(path);
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn a_pipe_among_the_policies_is_a_mistake_and_nothing_waits_for_it() {
    let datacenter = web(1);
    let mut watch = Program::start(&datacenter, &[]);
    watch.says("in force");
    pipe(&datacenter, "policies/g.yaml");
    let said = watch.says("g.yaml: it is no regular file").to_owned();
    assert!(said.contains("invalid policy"), "{said}");
    watch.stop();
    let refused = datacenter.run_to(3, &["validate"]);
    assert!(refused.err.contains("it is no regular file"), "{}", refused.err);
}

#[test]
fn a_thread_that_never_returns_is_not_waited_for_at_the_end() {
    let datacenter = web(1);
    let (named, policies) = (datacenter.path("named.yaml"), datacenter.path("policies"));
    std::fs::write(&named, "# nothing yet\n").unwrap();
    let (named, policies) = (named.display().to_string(), policies.display().to_string());
    let options = ["--policies", &policies, "--policies", &named, "--listen", "127.0.0.1:0"];
    let mut watch = Program::start(&datacenter, &options);
    watch.says("in force");
    // Who names a pipe may mean it: it is read, and nobody writes.
    std::fs::remove_file(&named).unwrap();
    pipe(&datacenter, "named.yaml");
    while !watch.get("/readyz", "").1.contains("readingSince") {
        std::thread::yield_now();
    }
    watch.stop();
}
