//! What `deleteDelay` holds: whatever a reload changes, nothing of it goes sooner than that.

use std::sync::Arc;
use std::time::Duration;

use stillframe::clock::Clock;
use stillframe::engine::Engine;
use stillframe::inventory::{FORMAT_VERSION, Image, Inventory};
use stillframe::plan::guard::Guard;
use stillframe::plan::plan;
use stillframe::reconcile::Caution;
use stillframe::watch::{Delay, World as _};

use super::super::memory::{MemoryEngine, instance};
use super::reload::{SETTINGS, World, day, hourly};
use super::{Running, Script, VirtualClock, text};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);
const NO_DELAY: &str = "  watch: {reconcileEvery: 1m, deleteDelay: 0}\n";

/// Guards that refuse nothing for its share.
const LOOSE: &str = "  guards: {seriesPercent: 100, enginePercent: 100}\n";

fn write(world: &World, running: &Running, more: &str, retention: &str) {
    world.script.write(&text(&["one"], more, &[("hourly", "one", &hourly(retention))]));
    running.bell.files_changed();
}

#[tokio::test(start_paused = true)]
async fn a_change_that_shortens_the_delay_too_waits_as_long_as_before() {
    let (world, running) = day("{last: 8}").await;
    let before = world.images();
    write(&world, &running, NO_DELAY, "{last: 6}");
    tokio::time::sleep(MINUTE * 9).await;
    assert_eq!(world.images(), before, "the former delay has not passed");
    tokio::time::sleep(MINUTE * 3).await;
    assert!(world.images() < before);
    // What comes now comes without a delay.
    let before = world.images();
    write(&world, &running, NO_DELAY, "{last: 5}");
    tokio::time::sleep(MINUTE * 3).await;
    assert!(world.images() < before);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_already_waits_on_when_the_delay_is_shortened() {
    let (world, running) = day("{last: 8}").await;
    let before = world.images();
    write(&world, &running, SETTINGS, "{last: 6}");
    tokio::time::sleep(MINUTE * 2).await;
    write(&world, &running, NO_DELAY, "{last: 6}");
    tokio::time::sleep(MINUTE * 7).await;
    assert_eq!(world.images(), before);
    tokio::time::sleep(MINUTE * 3).await;
    assert!(world.images() < before);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_delay_that_was_shortened_right_before_counts_as_it_was() {
    let (world, running) = day("{last: 8}").await;
    let before = world.images();
    write(&world, &running, NO_DELAY, "{last: 8}");
    tokio::time::sleep(MINUTE).await;
    write(&world, &running, NO_DELAY, "{last: 6}");
    tokio::time::sleep(MINUTE * 9).await;
    assert_eq!(world.images(), before);
    tokio::time::sleep(MINUTE * 3).await;
    assert!(world.images() < before);
    running.stop().await;
}

/// The guards that kept something in the last round.
fn held(running: &Running) -> Vec<Guard> {
    let facts = running.status.snapshot().engines["one"].facts.clone().unwrap();
    facts.round.held.keys().copied().collect()
}

/// The former policies want these deletes too, but not all at once.
#[tokio::test(start_paused = true)]
async fn what_only_the_guards_of_before_have_kept_waits_when_they_are_loosened() {
    let (world, running) = day("{last: 30}").await;
    let before = world.images();
    assert!(before >= 20, "{before}");
    write(&world, &running, SETTINGS, "{last: 6}");
    tokio::time::sleep(MINUTE * 15).await;
    assert_eq!(world.images(), before, "far too large a share");
    assert_eq!(held(&running), [Guard::SeriesShare, Guard::EngineShare]);
    write(&world, &running, &format!("{SETTINGS}{LOOSE}"), "{last: 6}");
    tokio::time::sleep(MINUTE * 9).await;
    assert_eq!(world.images(), before, "the delay has not passed");
    assert_eq!(held(&running), [Guard::DeleteDelay]);
    tokio::time::sleep(MINUTE * 3).await;
    assert!(world.images() < before);
    running.stop().await;
}

/// Somebody sees it and tightens them again.
#[tokio::test(start_paused = true)]
async fn guards_that_are_loosened_by_mistake_and_mended_in_time_delete_nothing() {
    let (world, running) = day("{last: 30}").await;
    let before = world.images();
    write(&world, &running, SETTINGS, "{last: 6}");
    tokio::time::sleep(MINUTE * 15).await;
    write(&world, &running, &format!("{SETTINGS}{LOOSE}"), "{last: 6}");
    tokio::time::sleep(MINUTE * 8).await;
    write(&world, &running, SETTINGS, "{last: 6}");
    tokio::time::sleep(MINUTE * 20).await;
    assert_eq!(world.images(), before);
    running.stop().await;
}

/// The files have tightened them since it has begun.
#[tokio::test(start_paused = true)]
async fn a_round_deletes_nothing_that_the_guards_of_now_would_keep() {
    let (world, running) = day("{last: 30}").await;
    write(&world, &running, SETTINGS, "{last: 6}");
    tokio::time::sleep(MINUTE * 15).await;
    running.stop().await;
    let read = |guards: &str| {
        let more = format!("{NO_DELAY}{guards}");
        world.script.write(&text(&["one"], &more, &[("hourly", "one", &hourly("{last: 6}"))]));
        let read = world.script.read();
        async { Arc::new(read.await.policies.unwrap()) }
    };
    let loose = read(LOOSE).await;
    let tight = read("").await;
    let now = world.clock.now();
    let inventory = Inventory {
        format_version: FORMAT_VERSION.to_owned(),
        observed_at: now,
        engines: vec![world.engine.observe().await],
    };
    let made = plan(&loose, &inventory, now);
    assert!(made.summary.delete > 10, "{:?}", made.summary);
    let delay = Delay::new(Arc::clone(&loose));
    assert_eq!(delay.refuse(&made, &inventory, now), []);
    delay.replace(tight, []);
    let refused = delay.refuse(&made, &inventory, now);
    assert_eq!(refused[0].images.len(), made.summary.delete, "{refused:?}");
}

/// Nobody can set the time that a wait lasts.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_makes_nothing_go_sooner() {
    let (world, running) = day("{last: 8}").await;
    let before = world.images();
    world.write(&running, "{last: 6}");
    tokio::time::sleep(MINUTE).await;
    world.clock.step(15 * 60);
    running.bell.reload();
    tokio::time::sleep(MINUTE * 8).await;
    assert_eq!(world.images(), before, "the delay has not passed");
    tokio::time::sleep(MINUTE * 3).await;
    assert!(world.images() < before);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_corrected_right_after_a_start_makes_nothing_go_sooner() {
    let (world, running) = day("{last: 8}").await;
    let before = world.images();
    running.kill().await;
    world.script.write(&text(&["one"], SETTINGS, &[("hourly", "one", &hourly("{last: 6}"))]));
    let running = Running::start(world.script.clone(), world.clock.clone(), MINUTE);
    tokio::time::sleep(MINUTE).await;
    world.clock.step(15 * 60);
    running.bell.reload();
    tokio::time::sleep(MINUTE * 8).await;
    assert_eq!(world.images(), before, "the delay has not passed");
    tokio::time::sleep(MINUTE * 3).await;
    assert!(world.images() < before);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_keeps_nothing_for_longer() {
    let (world, running) = day("{last: 8}").await;
    let before = world.images();
    world.write(&running, "{last: 6}");
    tokio::time::sleep(MINUTE).await;
    world.clock.step(-10 * 60);
    tokio::time::sleep(MINUTE * 8).await;
    assert_eq!(world.images(), before, "the delay has not passed");
    tokio::time::sleep(MINUTE * 4).await;
    assert!(world.images() < before);
    running.stop().await;
}

/// An engine of the same name that holds two images more, which the policy would let go.
fn with_more(world: &World) -> Arc<MemoryEngine> {
    let twin = world.engine.twin();
    let mut inside = twin.world.lock().unwrap();
    let more: Vec<Image> = inside.deleted.iter().rev().take(2).cloned().collect();
    assert_eq!(more.len(), 2);
    inside.deleted.clear();
    inside.images.extend(more.into_iter().map(|image| (image.id.clone(), image)));
    drop(inside);
    twin
}

fn deleted(engine: &MemoryEngine) -> usize {
    engine.world.lock().unwrap().deleted.len()
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_configured_differently_deletes_nothing_for_as_long() {
    let (world, running) = day("{last: 8}").await;
    let other = with_more(&world);
    *world.script.engines.lock().unwrap() = vec![other.clone()];
    let written = text(&["one"], SETTINGS, &[("hourly", "one", &hourly("{last: 8}"))]);
    world.script.write(&written.replace("{memory: {}}", "{memory: {project: other}}"));
    let digest = running.status.snapshot().digest;
    running.bell.files_changed();
    tokio::time::sleep(MINUTE * 9).await;
    assert_eq!(running.status.snapshot().digest, digest, "the policies mean the same");
    assert_eq!(deleted(&other), 0);
    tokio::time::sleep(MINUTE * 3).await;
    assert!(deleted(&other) > 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_removed_and_added_again_deletes_nothing_for_as_long() {
    let (world, running) = day("{last: 8}").await;
    let away = MemoryEngine::named("away", world.clock.clone());
    let (one, two) = (hourly("{last: 8}"), hourly("{last: 8}"));
    let both = text(&["away", "one"], SETTINGS, &[("hourly", "one", &one), ("two", "away", &two)]);
    let engines =
        |one: &Arc<MemoryEngine>| -> Vec<Arc<dyn Engine>> { vec![away.clone(), one.clone()] };
    *world.script.engines.lock().unwrap() = engines(&world.engine);
    world.script.write(&both);
    running.bell.files_changed();
    tokio::time::sleep(MINUTE * 15).await;
    let only = text(&["away"], SETTINGS, &[("two", "away", &two)]);
    world.script.write(&only);
    running.bell.files_changed();
    tokio::time::sleep(MINUTE * 15).await;
    assert!(!running.status.snapshot().engines.contains_key("one"));
    let again = with_more(&world);
    *world.script.engines.lock().unwrap() = engines(&again);
    world.script.write(&both);
    running.bell.files_changed();
    tokio::time::sleep(MINUTE * 9).await;
    assert!(running.status.snapshot().engines["one"].facts.is_some());
    assert_eq!(deleted(&again), 0);
    tokio::time::sleep(MINUTE * 3).await;
    assert!(deleted(&again) > 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_beside_another_that_is_new_deletes_on() {
    let (world, running) = day("{last: 6}").await;
    let deleted = || deleted(&world.engine);
    // Shortly before the next run.
    tokio::time::sleep(MINUTE * 48).await;
    let away = MemoryEngine::named("away", world.clock.clone());
    away.add(instance("web-1", &[]));
    *world.script.engines.lock().unwrap() = vec![away, world.engine.clone()];
    let (one, two) = (hourly("{last: 6}"), hourly("{last: 8}"));
    world.script.write(&text(
        &["away", "one"],
        SETTINGS,
        &[("hourly", "one", &one), ("two", "away", &two)],
    ));
    running.bell.files_changed();
    tokio::time::sleep(MINUTE).await;
    let before = deleted();
    tokio::time::sleep(MINUTE * 4).await;
    assert_eq!(deleted(), before + 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deletes_of_what_is_renamed_wait() {
    let (world, running) = day("{last: 8}").await;
    let before = world.images();
    let moved = format!("{SETTINGS}  moved: [{{from: hourly, to: often}}]\n");
    let often = |retention: &str| text(&["one"], &moved, &[("often", "one", &hourly(retention))]);
    world.script.write(&often("{last: 6}"));
    running.bell.files_changed();
    tokio::time::sleep(MINUTE * 9).await;
    assert_eq!(world.images(), before, "renamed, and shortened with it");
    world.script.write(&often("{last: 8}"));
    running.bell.files_changed();
    tokio::time::sleep(MINUTE * 15).await;
    assert_eq!(world.images(), before, "a rename deletes nothing");
    running.stop().await;
}

/// Nothing else is due by then.
#[tokio::test(start_paused = true)]
async fn what_has_waited_goes_when_its_wait_is_over_and_not_with_the_next_look() {
    let clock = VirtualClock::from("2026-11-20T00:10:00Z");
    let engine = MemoryEngine::named("one", clock.clone());
    engine.add(instance("web-1", &[]));
    let directory = tempfile::tempdir().unwrap();
    let seldom = "  watch: {reconcileEvery: 6h}\n";
    let daily = |grace: &str| {
        let rest = hourly("{last: 2}").replace("0 * * * *", "0 0 * * *");
        text(&["one"], seldom, &[("daily", "one", &rest.replace("{grace: 0}", grace))])
    };
    let script = Script::new(&daily("{grace: 10d}"), vec![engine.clone()], directory.path());
    let running = Running::start(script.clone(), clock, MINUTE);
    // Ten past twelve; the next look is at five o'clock at the earliest.
    tokio::time::sleep(HOUR * 24 * 5 + HOUR * 12).await;
    script.write(&daily("{grace: 1h}"));
    running.bell.files_changed();
    tokio::time::sleep(MINUTE * 9).await;
    assert_eq!(deleted(&engine), 0, "the delay has not passed");
    tokio::time::sleep(MINUTE * 3).await;
    assert!(deleted(&engine) > 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_entry_for_a_removed_policy_lets_go_waits() {
    let clock = VirtualClock::from("2026-11-20T00:10:00Z");
    let engine = MemoryEngine::named("one", clock.clone());
    engine.add(instance("web-1", &[]));
    let directory = tempfile::tempdir().unwrap();
    // Marked as let go for more than a day, and not to be deleted for long.
    let rest = hourly("{last: 8}").replace("{grace: 0}", "{grace: 10d}");
    let kept = text(&["one"], "", &[("hourly", "one", &rest)]);
    let script = Script::new(&kept, vec![engine.clone()], directory.path());
    let running = Running::start(script.clone(), clock, MINUTE);
    tokio::time::sleep(HOUR * 38).await;
    let before = engine.world.lock().unwrap().images.len();
    let more = format!(
        "{SETTINGS}  removed: [{{policy: hourly, images: rules, retention: {{last: 8}}, grace: 0, reason: x}}]\n"
    );
    script.write(&text(
        &["one"],
        &more,
        &[("other", "one", &hourly("{last: 8}").replace("web", "db"))],
    ));
    running.bell.files_changed();
    tokio::time::sleep(MINUTE * 9).await;
    assert!(running.status.snapshot().validity.is_valid, "{:?}", running.status.snapshot());
    assert_eq!(deleted(&engine), 0, "of {before}");
    tokio::time::sleep(MINUTE * 5).await;
    assert!(deleted(&engine) > 0);
    running.stop().await;
}

/// A policy of every minute, as long as it runs.
fn minutely(retention: &str) -> String {
    hourly(retention).replace("0 * * * *", "* * * * *")
}

/// A watch of every minute that has begun, with so much beside it in the configuration.
fn frequent(more: &str, retention: &str) -> (World, Running) {
    let clock = VirtualClock::from("2026-11-20T00:10:30Z");
    let engine = MemoryEngine::named("one", clock.clone());
    engine.add(instance("web-1", &[]));
    World::begin(clock, engine, &text(&["one"], more, &[("often", "one", &minutely(retention))]))
}

/// Each minute one more comes to wait than was there before, and no round takes more than a guard lets
/// pass of what is there.
#[tokio::test(start_paused = true)]
async fn what_has_come_to_wait_goes_in_parts_that_the_guards_let_pass() {
    for (retention, delay) in [("{last: 3}", "10m"), ("{last: 12}", "25m")] {
        let (world, running) = frequent(&format!("  watch: {{deleteDelay: {delay}}}\n"), retention);
        let (mut most, mut before, mut is_guarded) = (0, (0, 0), Vec::new());
        // Rounds take no time here: there is one in a second at the most.
        for second in 0..3_600 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = (world.images(), deleted(&world.engine));
            let (there, gone) = (before.0, now.1 - before.1);
            assert!(there < 10 || gone * 100 <= (there + 1) * 30, "{second}: {gone} of {there}");
            most = most.max(now.0);
            before = now;
            is_guarded.extend(held(&running).into_iter().filter(|guard| guard.is_of_numbers()));
        }
        assert!(most >= 11, "{most} were there at once");
        assert!(before.0 <= 14, "{} are left of {most}", before.0);
        assert_eq!(is_guarded, [], "{retention}");
        running.stop().await;
    }
}

/// One or two of each source have come to wait, and no source has the half of one.
#[tokio::test(start_paused = true)]
async fn what_has_come_to_wait_of_many_sources_goes_in_parts_as_well() {
    let clock = VirtualClock::from("2026-11-20T00:10:30Z");
    let engine = MemoryEngine::named("one", clock.clone());
    let mut specs = Vec::new();
    for number in 0..6 {
        engine.add(instance(&format!("web-{number}"), &[]));
        let spec = hourly("{last: 2}").replace("web-*", &format!("web-{number}"));
        let cron = format!("{number}-59/6 * * * *");
        specs.push((format!("p{number}"), spec.replace("0 * * * *", &cron)));
    }
    let specs: Vec<_> =
        specs.iter().map(|(name, spec)| (name.as_str(), "one", spec.as_str())).collect();
    let guards = "  guards: {engineCount: 3, seriesPercent: 100, enginePercent: 100}\n";
    let text = text(&["one"], &format!("{SETTINGS}{guards}"), &specs);
    let (world, running) = World::begin(clock, engine, &text);
    tokio::time::sleep(HOUR).await;
    running.kill().await;
    assert!((12..=13).contains(&world.images()), "{}", world.images());
    let running = Running::start(world.script.clone(), world.clock.clone(), MINUTE);
    tokio::time::sleep(MINUTE * 10).await;
    assert!(world.images() >= 20, "{}", world.images());
    let mut before = deleted(&world.engine);
    for _ in 0..15 * 60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = deleted(&world.engine);
        assert!(now - before <= 3, "{} at once", now - before);
        before = now;
    }
    assert!((12..=13).contains(&world.images()), "{}", world.images());
    running.stop().await;
}

/// Nobody knows of it what was in force before; it is no pile that has grown by waiting.
#[tokio::test(start_paused = true)]
async fn what_a_change_before_a_start_lets_go_is_refused_as_ever() {
    let (world, running) = frequent("", "{last: 30}");
    tokio::time::sleep(HOUR).await;
    running.kill().await;
    let before = deleted(&world.engine);
    world.script.write(&text(&["one"], "", &[("often", "one", &minutely("{last: 3}"))]));
    let running = Running::start(world.script.clone(), world.clock.clone(), MINUTE);
    tokio::time::sleep(HOUR).await;
    assert_eq!(deleted(&world.engine), before);
    assert!(held(&running).contains(&Guard::SeriesShare), "{:?}", held(&running));
    running.stop().await;
}

/// Each of them alone would be let pass.
#[tokio::test(start_paused = true)]
async fn what_one_change_after_the_other_lets_go_is_refused_as_one() {
    let (world, running) = day("{last: 12}").await;
    let before = world.images();
    for last in [9, 7, 5, 3] {
        world.write(&running, &format!("{{last: {last}}}"));
        tokio::time::sleep(MINUTE * 2 + Duration::from_secs(5)).await;
    }
    tokio::time::sleep(MINUTE * 20).await;
    assert_eq!(world.images(), before);
    assert!(held(&running).contains(&Guard::SeriesShare), "{:?}", held(&running));
    running.stop().await;
}
