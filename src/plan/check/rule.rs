//! The rules of the check, as a closed list.

use std::fmt;

macro_rules! check_rules {
    ($($variant:ident $word:literal $meaning:literal)*) => {
        /// The rules there are; each has a stable code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CheckRule {
            $(#[doc = $meaning] $variant,)*
        }

        impl CheckRule {
            /// All rules there are.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable code.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// What it asks for.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),* }
            }
        }
    };
}

check_rules! {
    Summary "summary" "The numbers of a plan are those of its changes."
    Order "order" "Creates come first, deletes last, and of a series the oldest first."
    Twice "twice" "No image is changed twice, and none is made twice."
    Binding "binding" "A change is bound to an image that is there, as it is."
    Ownership "ownership" "Only images that carry the sealed key of the change are touched."
    Keeper "keeper" "Only images that a policy of the files looks after are touched."
    LastOfSeries "last-of-series" "The last READY restore point of a series stays."
    LastOfSource "last-of-source" "The last READY image of a source on an engine stays, whatever the policies."
    Floor "floor" "The newest READY restore points stay, as many as `atLeast` says."
    Gap "gap" "Where something was not seen, or is listed twice, nothing but creates is done."
    InUse "in-use" "What is in use is not deleted."
    Held "held" "What is held is neither let go nor deleted."
    DeprecateFirst "deprecate-first" "A READY image was let go for the whole grace before it is deleted."
    CopyGate "copy-gate" "An original stays until each location of copies holds it or a newer one."
    State "state" "Only READY images and failed attempts are changed."
    Reason "reason" "Every change has a reason that belongs to it."
    StillKept "still-kept" "What is let go or deleted is kept by no rule."
    NotKept "not-kept" "What is brought back or copied is kept by a rule."
    FailedAttempt "failed-attempt" "A failed attempt goes once something as new is READY, or after a week; what is PARTIAL not after a week, but where a newer one that lasts holds all of its disks."
    Age "age" "A step of the lifecycle comes after its age, and never to the newest."
    Paused "paused" "A pause or a blackout is kept to."
    Stalled "stalled" "A series that is stalled loses nothing but what is PARTIAL and wholly there in a newer one."
    SourceGone "source-gone" "A source is missing for its grace, and its policy lets go then."
    SourceMark "source-mark" "Marks of missing sources say what was seen."
    Mark "mark" "Labels, times and stages are those that the reasons ask for."
    Sharing "sharing" "Who may use an image becomes what the policy says."
    CreateSlot "create-slot" "A slot of the schedule is due, and the newest."
    CreateDeadline "create-deadline" "The deadline of a slot is its own and has not passed."
    CreateSource "create-source" "What is captured is there, and the policy selects it."
    CreateTaken "create-taken" "No image stands for the slot or has the name."
    CreateIdentity "create-identity" "Name and labels are those of the key and the policy."
    CreatePace "create-pace" "A source is not captured more often than its engine takes."
    Replaces "replaces" "Only a failed attempt at the same restore point makes room."
    Copy "copy" "A copy is made of a READY original, where the policy wants one and none is."
    Drill "drill" "A drill is due, and the engine can do it."
}

impl fmt::Display for CheckRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}
