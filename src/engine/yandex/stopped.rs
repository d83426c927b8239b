//! Captures of machines that are stopped for it, so that all disks are of one instant and whole. What
//! was stopped here is started again, whatever becomes of the capture.
//!
//! A snapshot is made with a label that says that nobody has seen its machine stand still to the end.
//! As long as it has that it is no restore point, whatever the service says of it; after a while it has
//! failed. The run that has seen it takes the label away. Nobody else does: whoever comes later cannot
//! know what the machine did meanwhile.

use futures_util::future::join_all;
use tokio::sync::OwnedMutexGuard;

use super::YandexEngine;
use super::image::Found;
use super::insertion::Wanted;
use super::member::{Asking, Member, Until};
use super::promise::Still;
use super::room::Turn;
use super::service::WaitError;
use super::wait::{Pace, Waiting};
use super::wire;
use crate::engine::http::{Call, Watched};
use crate::engine::{CreateRequest, Created, EngineError, Watcher};
use crate::inventory::LABEL_RESTART;

/// Disks of these types may be written as soon as their snapshot shows: it has what was on the disk
/// when it was asked for. Of no others the service says that.
const QUICK_TYPES: [&str; 2] = ["network-hdd", "network-ssd"];

impl YandexEngine {
    /// Captures an instance that stands still. One that somebody else has stopped is left so. The
    /// caller is alone at the machine, which ends once that runs again.
    pub(super) async fn make_stopped(
        &self,
        alone: OwnedMutexGuard<()>,
        instance: wire::Instance,
        wanted: &[Wanted],
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let found = self.look_for(wanted, request, watcher).await?;
        if found.iter().all(Option::is_some) {
            return self.made_before(&instance, wanted, found, request, watcher).await;
        }
        if found.iter().any(Option::is_some) {
            let message = "another run has begun it, and only that one can know that the machine has stood still; if it does not end, a later plan clears that away and makes it anew";
            return Err(EngineError::Failed(message.to_owned()));
        }
        let turns = self.turns(wanted, &found, request.create.deadline, watcher).await?;
        // What need not be asked while the machine stands still is asked before.
        let quick: Result<Vec<bool>, EngineError> =
            join_all(wanted.iter().map(|wanted| self.is_quick(wanted))).await.into_iter().collect();
        let quick = quick?;
        let instance = self.as_it_is_now(&instance).await?;
        let pace = Pace::of(request.create.deadline, &found);
        let still = self.stand_still(instance, &pace, watcher).await?;
        let asking = Asking { pace: &pace, until: Until::Shown, watcher, still: Some(&still) };
        let members = self.begin_all(wanted, &quick, turns, asking).await;
        let members = self.stood_still(&still, members, watcher).await;
        // From here on the disks may be written again: what is in the snapshots is decided.
        let members = self.let_run(&still, members).await?;
        drop(alone);
        let members =
            wanted.iter().zip(members).map(|(wanted, member)| self.proven(wanted, member, watcher));
        let members: Vec<Result<Member, EngineError>> = join_all(members).await;
        self.conclude(members.into_iter().collect::<Result<_, _>>()?, request.by.as_ref())
    }

    /// Waits for what another run has made, or is making.
    async fn made_before(
        &self,
        instance: &wire::Instance,
        wanted: &[Wanted],
        found: Vec<Option<Found>>,
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let made = self.all(wanted, found, request, watcher).await;
        // It may have made all of it, and no more.
        let promise = instance.labels.get(LABEL_RESTART).filter(|_| instance.status == "STOPPED");
        match promise {
            Some(promise) if made != Err(EngineError::Interrupted) => {
                self.after(instance, promise, made).await
            }
            _ => made,
        }
    }

    /// The instance after a wait: what is wanted of it was found out before.
    async fn as_it_is_now(&self, before: &wire::Instance) -> Result<wire::Instance, EngineError> {
        let now = self.instance(&before.id).await?;
        let disks = |instance: &wire::Instance| -> Vec<(String, bool)> {
            instance.disks().map(|(disk, boot)| (disk.disk_id.clone(), boot)).collect()
        };
        if disks(&now) == disks(before) {
            return Ok(now);
        }
        let message = format!("{} has other disks than before; the next run tries again", now.name);
        Err(EngineError::Busy(message))
    }

    /// Whether an instance has stood still until now.
    async fn stood_still<T>(
        &self,
        still: &Still,
        came: Result<T, EngineError>,
        watcher: &dyn Watcher,
    ) -> Result<T, EngineError> {
        let came = came?;
        let leave = Waiting { engine: self, watcher, still: Some(still) };
        let now = self.instance_while(still.id(), &leave).await?;
        if now.status == "STOPPED" {
            return Ok(came);
        }
        let message = format!(
            "somebody has started {} while it was captured; the snapshots do not count",
            now.name
        );
        Err(EngineError::Failed(message))
    }

    /// Asks for all images, and waits until the disks may be written again.
    async fn begin_all(
        &self,
        wanted: &[Wanted],
        quick: &[bool],
        turns: Vec<Turn>,
        asking: Asking<'_>,
    ) -> Result<Vec<Member>, EngineError> {
        let mut turns = turns.into_iter();
        let members = wanted.iter().zip(quick).map(|(wanted, is_quick)| {
            let turn = turns.next();
            async move {
                let member = self.member(wanted, None, turn, asking).await?;
                if *is_quick {
                    return Ok(member);
                }
                let Asking { still, watcher, .. } = asking;
                let found = self.until_made(wanted, member.found, still, watcher).await?;
                Ok(Member { found, ..member })
            }
        });
        join_all(members).await.into_iter().collect()
    }

    /// Whether a disk may be written before its snapshot is READY.
    async fn is_quick(&self, wanted: &Wanted) -> Result<bool, EngineError> {
        let call = Call::get(&format!("compute/v1/disks/{}", wanted.disk));
        let disk: wire::Disk = self.services.get(&call).await?;
        Ok(QUICK_TYPES.contains(&disk.type_id.as_str()))
    }

    /// Waits until an image is READY whose machine has stood still, and says so on it.
    async fn proven(
        &self,
        wanted: &Wanted,
        member: Member,
        watcher: &dyn Watcher,
    ) -> Result<Member, EngineError> {
        let Member { mut found, is_made, turn, begun } = member;
        if let Some(begun) = begun {
            match self.end(begun, &Watched(watcher)).await.result {
                // What tells of it may be gone; the image is there or is not.
                Err(WaitError::Call(error)) if error.is_gone() || error.is_open() => {}
                ended => drop(ended?),
            }
        }
        found = self.until_made(wanted, found, None, watcher).await?;
        let turn = match turn {
            Some(turn) => turn,
            None => self.rooms.one(&wanted.folder).await,
        };
        found = self.prove(&turn, found, watcher).await?;
        Ok(Member { found, is_made, turn: None, begun: None })
    }
}
