//! Progress: bars on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rustix::termios::{LocalModes, OptionalActions, Termios};

use super::Console;
use crate::apply::{Ending, Listener, Stop};
use crate::engine::{Progress, Watcher};
use crate::plan::{Action, Plan};
use crate::report::{bytes, clean, done_by};

/// How often a bar is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(200);

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "  {msg:22!} {bar:12} {bytes:>10} of {total_bytes:10} {bytes_per_sec:>12}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What each change is called, in full.
fn titles(plan: &Plan) -> Vec<(Action, String)> {
    plan.changes
        .iter()
        .map(|change| {
            let to = change.copy.as_ref().map(|copy| format!(" → {}", clean(&copy.location)));
            (
                change.action,
                format!(
                    "{} {} {}{}",
                    change.action.mark(),
                    clean(&change.source_name),
                    change.image.name,
                    to.unwrap_or_default()
                ),
            )
        })
        .collect()
}

/// How the terminal was before bars were shown on it.
static TERMINAL: OnceLock<Termios> = OnceLock::new();

/// Keeps the terminal from writing `^C` where keys are pressed: it would begin a new line below the
/// bars, and one of them would stay behind for good.
fn hide_keys() {
    let Ok(now) = rustix::termios::tcgetattr(io::stderr()) else { return };
    let mut quiet = TERMINAL.get_or_init(|| now).clone();
    quiet.local_modes.remove(LocalModes::ECHOCTL);
    let _ = rustix::termios::tcsetattr(io::stderr(), OptionalActions::Now, &quiet);
}

/// Leaves the terminal as it was.
pub(super) fn show_keys() {
    if let Some(before) = TERMINAL.get() {
        let _ = rustix::termios::tcsetattr(io::stderr(), OptionalActions::Now, before);
    }
}

/// One bar per capture.
pub(super) struct Bars {
    titles: Vec<(Action, String)>,
    /// What fits beside a bar.
    sources: Vec<String>,
    all: MultiProgress,
    running: Mutex<BTreeMap<usize, ProgressBar>>,
}

impl Bars {
    pub(super) fn new(plan: &Plan) -> Self {
        hide_keys();
        Self {
            titles: titles(plan),
            sources: plan.changes.iter().map(|change| clean(&change.source_name)).collect(),
            all: MultiProgress::new(),
            running: Mutex::new(BTreeMap::new()),
        }
    }

    fn title(&self, change: usize) -> &str {
        self.titles.get(change).map_or("", |(_, title)| title)
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        show_keys();
    }
}

impl Listener for Bars {
    fn began(&self, change: usize) {
        let takes_time = [Action::Create, Action::Copy, Action::Drill];
        let action = self.titles.get(change).map(|(action, _)| *action);
        let Some(action) = action.filter(|action| takes_time.contains(action)) else { return };
        let title =
            format!("{} {}", action.mark(), self.sources.get(change).map_or("", String::as_str));
        let bar = self.all.add(ProgressBar::new(0).with_style(style()).with_message(title));
        bar.enable_steady_tick(TICK);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(change, bar);
    }

    fn progress(&self, change: usize, progress: Progress) {
        if let Some(bar) = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&change)
        {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
    }

    fn note(&self, text: &str) {
        let _ = self.all.println(clean(text));
    }

    fn ended(&self, change: usize, ending: &Ending) {
        let bar = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&change);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let _ = self.all.println(format!("  {}: {}", self.title(change), word(ending)));
    }
}

/// What came of a change, in a few words.
fn word(ending: &Ending) -> String {
    match ending {
        Ending::Found { by: Some(by), .. } => done_by(by),
        ending => ending.word().to_owned(),
    }
}

/// One line per change, when it has ended.
pub(super) struct Lines {
    console: Console,
    titles: Vec<(Action, String)>,
}

impl Lines {
    pub(super) fn new(console: Console, plan: &Plan) -> Self {
        Self { console, titles: titles(plan) }
    }
}

impl Listener for Lines {
    fn began(&self, _: usize) {}

    fn progress(&self, _: usize, _: Progress) {}

    fn note(&self, text: &str) {
        self.console.note(&format!("{}\n", clean(text)));
    }

    fn ended(&self, change: usize, ending: &Ending) {
        let Some((action, title)) = self.titles.get(change) else { return };
        let stores = matches!(action, Action::Create | Action::Copy);
        let size = match ending {
            Ending::Done { image: Some(image) } => image.stored_bytes.filter(|_| stores),
            _ => None,
        };
        let size = size.map(|size| format!(", {} stored", bytes(size))).unwrap_or_default();
        let why =
            ending.message().map(|message| format!(": {}", clean(message))).unwrap_or_default();
        self.console.note(&format!("{title}: {}{size}{why}\n", word(ending)));
    }
}

/// A bar over days that pass quickly.
pub(super) fn days(days: u32, message: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("  {msg:22!} {bar:12} {pos:>5} of {len} days")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(u64::from(days)).with_style(style).with_message(message.to_owned())
}

/// One bar for reading images back.
pub(super) struct Bar {
    bar: ProgressBar,
    stop: Stop,
}

impl Bar {
    pub(super) fn new(console: &Console, message: &str) -> Self {
        let bar =
            if console.shows_progress() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let stop = Stop::default();
        let asked = stop.clone();
        tokio::spawn(async move {
            if super::apply::wait_for_interrupt().await {
                // Nothing is worth finishing here.
                asked.ask();
                asked.ask();
            }
        });
        Self { bar: bar.with_style(style()).with_message(message.to_owned()), stop }
    }
}

impl Watcher for Bar {
    fn progress(&self, progress: Progress) {
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
    }

    fn is_cancelled(&self) -> bool {
        self.stop.is_urgent()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
