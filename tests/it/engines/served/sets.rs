//! Sets of snapshots of Compute Engine against the server of this program: of what a run has begun of one
//! and left, the next makes what is missing, and nothing twice.

use jiff::SignedDuration;
use stillframe::clock::FixedClock;
use stillframe::engine::set::member_ids;
use stillframe::reconcile::Room;

use super::super::{policies, room};
use super::*;

/// Two machines with several disks, at a time that passes.
struct Sets {
    served: Served,
    directory: tempfile::TempDir,
}

impl Sets {
    fn new() -> Self {
        Self { served: Served::gce_with_sets(), directory: tempfile::tempdir().unwrap() }
    }

    /// What a run so many minutes after noon is made in.
    fn room(&self, minutes: i64) -> Room {
        let clock = Arc::new(FixedClock(noon(0) + SignedDuration::from_mins(minutes)));
        let engine = self.served.open(clock.clone());
        room(engine, clock, policies(self.served.capture()), &self.directory)
    }

    async fn round(&self, minutes: i64) -> Round {
        let room = self.room(minutes);
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert_eq!(round.plan.refusals, []);
        round
    }

    /// The states of all images, and how many snapshots there are.
    async fn states(&self, minutes: i64) -> (Vec<ImageState>, usize) {
        let inventory = self.room(minutes).observe().await.engines.remove(0);
        assert!(inventory.is_complete(), "{:?}", inventory.gaps);
        let states = inventory.images.iter().map(|image| image.state).collect();
        let members = inventory.images.iter().map(|image| member_ids(&image.id).len()).sum();
        (states, members)
    }
}

fn are_done(round: &Round) -> usize {
    round.outcomes.iter().filter(|outcome| outcome.ending.is_done()).count()
}

/// One snapshot of one machine is refused. A run within the same moment is answered with what became of the
/// first. Whoever comes within nine minutes makes it, although an
/// engine makes only one image of a source in ten; after that somebody may be at it, and after
/// fifteen nobody is and it is made anew.
#[tokio::test]
async fn what_a_run_has_left_of_a_set_is_made_by_the_next_one() {
    for (minutes, fault, state) in [
        (1, "quota-in-operation", ImageState::Begun),
        (3, "rate-in-operation", ImageState::Begun),
        (8, "quota-in-operation", ImageState::Begun),
        (10, "quota-in-operation", ImageState::Creating),
        (16, "quota-in-operation", ImageState::Partial),
    ] {
        let sets = Sets::new();
        sets.served.fault(json!({"fault": fault, "times": 1})).await;
        let round = sets.round(0).await;
        assert_eq!((round.outcomes.len(), are_done(&round)), (2, 1), "{:#?}", round.outcomes);
        let (states, snapshots) = sets.states(minutes).await;
        assert!(states.contains(&state) && states.contains(&ImageState::Ready), "{states:?}");
        let round = sets.round(minutes).await;
        if state == ImageState::Creating {
            assert_eq!(round.plan.changes, []);
            continue;
        }
        let create = round.plan.changes.iter().find_map(|one| one.create.as_ref()).unwrap();
        assert_eq!(create.replaces.is_some(), state == ImageState::Partial);
        assert_eq!(are_done(&round), round.outcomes.len(), "{minutes}: {:#?}", round.outcomes);
        let (states, after) = sets.states(minutes).await;
        assert_eq!((states.as_slice(), after), (&[ImageState::Ready; 2][..], snapshots + 1));
        assert_eq!(sets.round(minutes).await.plan.changes, []);
    }
}

/// What goes wrong, each on a day on which two points are made, two let go and two deleted.
#[tokio::test]
async fn faults_cost_nothing_and_double_nothing() {
    for script in [
        json!({"fault": "reply-lost", "method": "POST", "times": 2}),
        json!({"fault": "reply-lost", "method": "DELETE", "times": 2}),
        json!({"fault": "unavailable", "times": 3}),
        json!({"fault": "rate-limit", "times": 6}),
        json!({"fault": "stale-fingerprint", "times": 2}),
        json!({"fault": "slow-operation", "times": 20}),
    ] {
        let trouble = Trouble::over(Served::gce_with_sets()).await;
        trouble.case.round(2).await;
        trouble.day(3, &[script]).await;
        trouble.ends_well(3).await;
    }
}
