"""Drives a server with Google's own Python clients: every call must work and mean what it says.

Usage: gce.py ENDPOINT PROJECT. The server is over a copy of the example data centre without images.
"""

import sys
import uuid

from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1 as compute
from googleapiclient import discovery, errors

ENDPOINT, PROJECT = sys.argv[1], sys.argv[2]


def client(kind):
    options = ClientOptions(api_endpoint=ENDPOINT)
    return kind(credentials=AnonymousCredentials(), client_options=options, transport="rest")


def refused(error, call):
    try:
        call()
    except error as refusal:
        return refusal
    raise SystemExit(f"not refused with {error}")


def finish(operation):
    """The poller of the library asks the cloud itself, whatever endpoint its client has."""
    zone = operation._extended_operation.zone.rsplit("/", 1)[-1]
    while True:
        if zone:
            waiter = client(compute.ZoneOperationsClient)
            ended = waiter.wait(project=PROJECT, zone=zone, operation=operation.name)
        else:
            waiter = client(compute.GlobalOperationsClient)
            ended = waiter.wait(project=PROJECT, operation=operation.name)
        if ended.status == compute.Operation.Status.DONE:
            assert not ended.error.errors, ended
            return


def instances():
    scopes = client(compute.InstancesClient).aggregated_list(project=PROJECT)
    return {one.name: one for _, scope in scopes for one in scope.instances}


def machine_images():
    images = client(compute.MachineImagesClient)
    web = instances()["web-1"]
    wanted = compute.MachineImage(
        name="by-hand",
        source_instance=web.self_link,
        description="by hand",
        labels={"env": "test"},
        storage_locations=["vault"],
    )
    request = compute.InsertMachineImageRequest(
        project=PROJECT, machine_image_resource=wanted, request_id=str(uuid.uuid4())
    )
    operation = images.insert(request)
    finish(operation)
    assert images.insert(request).name == operation.name
    image = images.get(project=PROJECT, machine_image="by-hand")
    assert (image.status, image.description) == ("READY", "by hand"), image
    assert (image.labels, image.storage_locations) == ({"env": "test"}, ["vault"]), image
    assert len(image.instance_properties.disks) == 2, image
    source, properties = image.source_instance_properties, image.instance_properties
    assert source.machine_type == properties.machine_type, image
    refused(exceptions.Conflict, lambda: images.insert(project=PROJECT, machine_image_resource=wanted))
    labels = compute.GlobalSetLabelsRequest(
        labels={"env": "prod"}, label_fingerprint=image.label_fingerprint
    )
    change = dict(
        project=PROJECT, resource="by-hand", global_set_labels_request_resource=labels
    )
    finish(images.set_labels(**change))
    refusal = refused(exceptions.PreconditionFailed, lambda: images.set_labels(**change))
    assert "fingerprint" in str(refusal)

    def names(text):
        request = compute.ListMachineImagesRequest(project=PROJECT, filter=text)
        return [image.name for image in images.list(request)]

    assert names("labels.env = prod") == ["by-hand"]
    assert names('name eq "other.*"') == []
    refused(exceptions.NotFound, lambda: images.get(project=PROJECT, machine_image="gone"))


def disk_images_and_snapshots():
    images, disks = client(compute.ImagesClient), client(compute.DisksClient)
    snapshots = client(compute.SnapshotsClient)
    zone = instances()["web-1"].zone.rsplit("/", 1)[1]
    disk = {disk.name: disk for disk in disks.list(project=PROJECT, zone=zone)}["web-1-boot"]
    for name in ["base-1", "base-2"]:
        wanted = compute.Image(name=name, family="base", source_disk=disk.self_link)
        request = compute.InsertImageRequest(
            project=PROJECT, image_resource=wanted, force_create=True
        )
        finish(images.insert(request))
    assert images.get_from_family(project=PROJECT, family="base").name == "base-2"
    replacement = images.get(project=PROJECT, image="base-1").self_link
    status = compute.DeprecationStatus(state="DEPRECATED", replacement=replacement)
    finish(
        images.deprecate(project=PROJECT, image="base-2", deprecation_status_resource=status)
    )
    assert images.get_from_family(project=PROJECT, family="base").name == "base-1"
    assert images.get(project=PROJECT, image="base-2").deprecated.state == "DEPRECATED"
    policy = images.get_iam_policy(project=PROJECT, resource="base-1")
    binding = compute.Binding(role="roles/compute.imageUser", members=["user:a@example.com"])
    change = compute.GlobalSetPolicyRequest(
        policy=compute.Policy(bindings=[binding], etag=policy.etag)
    )
    images.set_iam_policy(
        project=PROJECT, resource="base-1", global_set_policy_request_resource=change
    )
    policy = images.get_iam_policy(project=PROJECT, resource="base-1")
    assert policy.bindings[0].members == ["user:a@example.com"], policy
    wanted = compute.Snapshot(name="snap-1")
    finish(
        disks.create_snapshot(
            project=PROJECT, zone=zone, disk="web-1-boot", snapshot_resource=wanted
        )
    )
    wanted = compute.Snapshot(name="snap-2", source_disk=disk.self_link)
    finish(snapshots.insert(project=PROJECT, snapshot_resource=wanted))
    assert [one.name for one in snapshots.list(project=PROJECT)] == ["snap-1", "snap-2"]
    assert client(compute.ProjectsClient).get(project=PROJECT).quotas
    assert list(client(compute.ZonesClient).list(project=PROJECT))
    assert list(client(compute.RegionsClient).list(project=PROJECT))


def discovered():
    api = discovery.build(
        "compute",
        "v1",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": f"{ENDPOINT}/compute/v1/"},
        static_discovery=True,
    )
    images = api.machineImages()

    def finish(operation):
        assert operation["status"] == "RUNNING", operation
        while operation["status"] != "DONE":
            operations = api.globalOperations()
            operation = operations.wait(project=PROJECT, operation=operation["name"]).execute()
        assert "error" not in operation, operation

    source = instances()["web-2"].self_link
    finish(
        images.insert(project=PROJECT, body={"name": "by-hand-2", "sourceInstance": source}).execute()
    )
    request = images.list(project=PROJECT, maxResults=1)
    first = request.execute()
    rest = images.list_next(request, first).execute()
    assert [one["name"] for one in first["items"] + rest["items"]] == ["by-hand", "by-hand-2"]
    partial = images.list(project=PROJECT, fields="items(name,labels/env)").execute()
    assert partial["items"][0] == {"name": "by-hand", "labels": {"env": "prod"}}, partial
    refusal = refused(
        errors.HttpError, lambda: images.insert(project=PROJECT, body={"name": "x"}).execute()
    )
    assert refusal.resp.status == 400 and "sourceInstance" in refusal.reason, refusal
    assert api.disks().aggregatedList(project=PROJECT).execute()["items"]
    # A query that is too long for an address is sent as a POST.
    text = " OR ".join(f"name = by-hand-{number}" for number in range(300))
    found = images.list(project=PROJECT, filter=text).execute()
    assert [one["name"] for one in found["items"]] == ["by-hand-2"]
    for collection, argument, names in [
        (images, "machineImage", ["by-hand", "by-hand-2"]),
        (api.images(), "image", ["base-1", "base-2"]),
        (api.snapshots(), "snapshot", ["snap-1", "snap-2"]),
    ]:
        for name in names:
            finish(collection.delete(project=PROJECT, **{argument: name}).execute())
        assert "items" not in collection.list(project=PROJECT).execute()


machine_images()
disk_images_and_snapshots()
print("google-cloud-compute: well")
discovered()
print("google-api-python-client: well")
