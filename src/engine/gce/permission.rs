//! What the engine must be allowed to do, and for what. `tests/it/gce/doctor.rs` works the same
//! out from the requests that it makes.

use crate::engine::{Role, Task};

/// A permission, and what it is needed for.
pub(super) struct Permission {
    pub(super) task: Task,
    pub(super) name: &'static str,
}

macro_rules! permissions {
    ($($task:ident: $($name:literal)+;)+) => {
        &[$($(Permission { task: Task::$task, name: $name },)+)+]
    };
}

/// Every permission that is needed, for each task beside those of planning.
pub(super) const PERMISSIONS: &[Permission] = permissions! {
    Plan:
        "compute.disks.list"
        "compute.images.list"
        "compute.instanceTemplates.list"
        "compute.instances.list"
        "compute.machineImages.list"
        "compute.projects.get"
        "compute.regions.list"
        "compute.snapshotSettings.get"
        "compute.snapshots.list";
    // To make an image of a machine, a disk or an image, the service asks for the right to read that as
    // well.
    Create:
        "compute.disks.createSnapshot"
        "compute.disks.useReadOnly"
        "compute.globalOperations.get"
        "compute.images.create"
        "compute.images.get"
        "compute.images.setLabels"
        "compute.images.useReadOnly"
        "compute.instances.get"
        "compute.instances.useReadOnly"
        "compute.machineImages.create"
        "compute.machineImages.get"
        "compute.machineImages.setLabels"
        "compute.regionOperations.get"
        "compute.snapshots.create"
        "compute.snapshots.get"
        "compute.snapshots.setLabels"
        "compute.zoneOperations.get";
    Delete:
        "compute.globalOperations.get"
        "compute.images.delete"
        "compute.images.deprecate"
        "compute.images.get"
        "compute.images.setLabels"
        "compute.machineImages.delete"
        "compute.machineImages.get"
        "compute.machineImages.setLabels"
        "compute.regionOperations.get"
        "compute.snapshots.delete"
        "compute.snapshots.get"
        "compute.snapshots.setLabels";
    // The role of a planner does not see who may use images: only policies with `sharing` ask.
    Share:
        "compute.images.get"
        "compute.images.getIamPolicy"
        "compute.images.setIamPolicy"
        "compute.machineImages.get"
        "compute.machineImages.getIamPolicy"
        "compute.machineImages.setIamPolicy"
        "compute.snapshots.get"
        "compute.snapshots.getIamPolicy"
        "compute.snapshots.setIamPolicy";
    // Who makes images by way of snapshots deletes those; the role of a creator deletes nothing.
    ViaSnapshot:
        "compute.disks.createSnapshot"
        "compute.globalOperations.get"
        "compute.images.create"
        "compute.images.get"
        "compute.images.setLabels"
        "compute.instances.get"
        "compute.regionOperations.get"
        "compute.snapshots.create"
        "compute.snapshots.delete"
        "compute.snapshots.get"
        "compute.snapshots.setLabels"
        "compute.snapshots.useReadOnly"
        "compute.zoneOperations.get";
};

/// The permissions of a task by itself, in order.
pub(super) fn of(task: Task) -> Vec<&'static str> {
    let own = PERMISSIONS.iter().filter(|permission| permission.task == task);
    own.map(|permission| permission.name).collect()
}

/// Whether a permission to create is needed where the source is, and not where its images are made.
pub(super) fn is_of_source(permission: &str) -> bool {
    permission.starts_with("compute.zoneOperations.")
        || permission.starts_with("compute.regionOperations.")
        || matches!(
            permission,
            "compute.disks.createSnapshot"
                | "compute.disks.useReadOnly"
                | "compute.instances.get"
                | "compute.instances.useReadOnly"
        )
}

/// The smallest roles: one who plans, one who also creates, one who also deletes.
pub(super) fn roles() -> Vec<Role> {
    let role = |task: Task, id: &str, title: &str, description: &str| {
        let mut permissions = of(Task::Plan);
        permissions.extend(of(task));
        permissions.sort_unstable();
        permissions.dedup();
        Role {
            task,
            made_with: format!("gcloud iam roles create {id} --project=PROJECT --file=FILE"),
            title: title.to_owned(),
            description: description.to_owned(),
            stage: "GA".to_owned(),
            included_permissions: permissions.into_iter().map(str::to_owned).collect(),
        }
    };
    [
        (
            Task::Plan,
            "stillframePlanner",
            "stillframe planner",
            "Sees instances, disks and images, and changes nothing",
        ),
        (
            Task::Create,
            "stillframeCreator",
            "stillframe creator",
            "Plans, and makes images of instances and disks",
        ),
        (
            Task::Delete,
            "stillframeDeleter",
            "stillframe deleter",
            "Plans, deprecates and deletes images, and changes their labels",
        ),
        (
            Task::Share,
            "stillframeSharer",
            "stillframe sharer",
            "Plans, and says who else may use images",
        ),
        (
            Task::ViaSnapshot,
            "stillframeViaSnapshot",
            "stillframe creator via snapshots",
            "Plans, and makes disk images by way of snapshots, which it deletes",
        ),
    ]
    .into_iter()
    .filter(|(task, ..)| !of(*task).is_empty())
    .map(|(task, id, title, description)| role(task, id, title, description))
    .collect()
}
