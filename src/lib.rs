//! stillframe: declarative backup policies for virtual machines.
//!
//! Policies in git say which restore points should exist; the images of an engine say which do.
//! stillframe computes the difference as a plan that a person can review, applies exactly that
//! plan, and keeps doing so. There is no state file: identity and ownership are written on the
//! images themselves.
//!
//! # The rooms
//!
//! A room imports its own level or lower; `tests/it/tidy.rs` holds that. Levels 0 and 1 are pure:
//! no files, no clock, no network.
//!
//! | level | room | what it is for |
//! |--|--|--|
//! | 0 | [`name`] | identity: policy, source, slot, and the image name and labels they are written in |
//! | 0 | [`elapsed`] | lengths of time as people write them |
//! | 0 | [`inventory`] | what engines were seen to hold, with its gaps; data only |
//! | 0 | [`clock`] | the one place that reads the time |
//! | 1 | [`schedule`] | crontab, zone and deadline into slots |
//! | 1 | [`retention`] | points of a series into kept and let go, with reasons |
//! | 1 | [`policy`] | text into meaning, every mistake at once |
//! | 1 | [`desired`] | what should be |
//! | 1 | [`coverage`] | how well each source is protected, and how long that lasts |
//! | 1 | [`plan`] | what brings the one to the other, and the guards |
//! | 1 | [`adopt`] | images that are nobody's, taken into a policy |
//! | 1 | [`import`] | a disk from elsewhere, made a restore point of a policy |
//! | 1 | [`cost`] | what stored bytes cost a month |
//! | 1 | [`expect`] | tests of policies: a world, an instant, and what the plan must be |
//! | 1 | [`simulate`] | the same functions under a virtual clock, and what they will do |
//! | 1 | [`alert`] | what people are told of, once, and the message that says so |
//! | 1 | [`agenda`] | what the long-running mode does next, and until when it may sleep |
//! | 1 | [`review`] | what a change of the policies does, before it does it |
//! | 1 | [`audit`] | what was protected and deleted in a span of time, and who said so |
//! | 2 | [`engine`] | what holds instances and images; one folder per engine |
//! | 2 | [`files`] | finds and reads what users write |
//! | 2 | [`signature`] | who has signed a file |
//! | 2 | `connections` | of a server: so many at once, and none for long that says nothing |
//! | 3 | [`apply`] | carries out a plan; makes no choices |
//! | 3 | [`reconcile`] | one round: observe, plan, guard, apply, report |
//! | 4 | [`report`] | one view, as text and JSON |
//! | 4 | `serve` | the API of a cloud over an embedded engine; one folder per API |
//! | 4 | `watch` | the long-running mode: wakes into rounds, and what is seen of it from outside |
//! | 4 | [`cli`] | one file per verb |
//!
//! The book: [`doc::architecture`], [`doc::language`], [`doc::semantics`], [`doc::embedded_engine`], [`doc::compute_engine`], [`doc::twcc`], [`doc::yandex`],
//! [`doc::adding_an_engine`], [`doc::findings`], [`doc::testing_policies`], [`doc::simulate`],
//! [`doc::reviews`], [`doc::serve`], [`doc::watch`], [`doc::testing`], [`doc::performance`],
//! [`doc::changelog`].

pub mod adopt;
pub mod agenda;
pub mod alert;
pub mod apply;
pub mod audit;
pub mod cli;
pub mod clock;
#[cfg(any(feature = "serve", feature = "watch"))]
pub mod connections;
pub mod cost;
pub mod coverage;
pub mod desired;
pub mod elapsed;
pub mod engine;
pub mod expect;
pub mod files;
pub mod import;
pub mod inventory;
pub mod name;
pub mod plan;
pub mod policy;
pub mod reconcile;
pub mod report;
pub mod retention;
pub mod review;
pub mod schedule;
#[cfg(feature = "serve")]
pub mod serve;
pub mod signature;
pub mod simulate;
#[cfg(feature = "watch")]
pub mod watch;

/// The book.
pub mod doc {
    #[doc = include_str!("doc/adding-an-engine.md")]
    pub mod adding_an_engine {}
    #[doc = include_str!("doc/architecture.md")]
    pub mod architecture {}
    #[doc = include_str!("doc/changelog.md")]
    pub mod changelog {}
    #[doc = include_str!("doc/compute-engine.md")]
    pub mod compute_engine {}
    #[doc = include_str!("doc/embedded-engine.md")]
    pub mod embedded_engine {}
    #[doc = include_str!("doc/findings.md")]
    pub mod findings {}
    #[doc = include_str!("doc/language.md")]
    pub mod language {}
    #[doc = include_str!("doc/performance.md")]
    pub mod performance {}
    #[doc = include_str!("doc/reviews.md")]
    pub mod reviews {}
    #[doc = include_str!("doc/semantics.md")]
    pub mod semantics {}
    #[doc = include_str!("doc/serve.md")]
    pub mod serve {}
    #[doc = include_str!("doc/simulate.md")]
    pub mod simulate {}
    #[doc = include_str!("doc/testing.md")]
    pub mod testing {}
    #[doc = include_str!("doc/testing-policies.md")]
    pub mod testing_policies {}
    #[doc = include_str!("doc/twcc.md")]
    pub mod twcc {}
    #[doc = include_str!("doc/watch.md")]
    pub mod watch {}
    #[doc = include_str!("doc/yandex.md")]
    pub mod yandex {}
}
