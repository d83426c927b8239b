"""Drives a server with Google's own Python clients: every call must work and mean what it says.

Usage: gce.py ENDPOINT PROJECT. The server is over a copy of the example data centre without images.
"""

import sys
import uuid

from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1 as compute
from googleapiclient import discovery, errors, http

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
    # All of the image is sent back, with a change in it.
    image = images.get(project=PROJECT, image="base-2")
    image.description, image.family = "second", "other"
    finish(images.patch(project=PROJECT, image="base-2", image_resource=image))
    assert images.get(project=PROJECT, image="base-2") == image
    assert images.get(project=PROJECT, image="base-2").deprecated.replacement == replacement
    image.name = "base-3"
    refused(
        exceptions.BadRequest,
        lambda: images.patch(project=PROJECT, image="base-2", image_resource=image),
    )
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


def restores():
    """What machine images, snapshots and images are made into, and its end."""
    machines, disks = client(compute.InstancesClient), client(compute.DisksClient)
    images, snapshots = client(compute.ImagesClient), client(compute.SnapshotsClient)
    request = compute.InsertInstanceRequest(
        project=PROJECT,
        zone="hall-b",
        source_machine_image="global/machineImages/by-hand",
        instance_resource=compute.Instance(
            name="web-9",
            machine_type="zones/hall-b/machineTypes/large-4",
            labels={"env": "test"},
            metadata=compute.Metadata(items=[compute.Items(key="k", value="v")]),
            network_interfaces=[compute.NetworkInterface(network="global/networks/other")],
        ),
        request_id=str(uuid.uuid4()),
    )
    finish(machines.insert(request))
    where = dict(project=PROJECT, zone="hall-b")
    made = machines.get(instance="web-9", **where)
    assert made.machine_type.endswith("/machineTypes/large-4"), made
    assert (made.labels, made.metadata.items[0].value) == ({"env": "test"}, "v"), made
    assert made.network_interfaces[0].network.endswith("/global/networks/other"), made
    labels = compute.InstancesSetLabelsRequest(
        labels={"a": "b"}, label_fingerprint=made.label_fingerprint
    )
    change = dict(instance="web-9", instances_set_labels_request_resource=labels, **where)
    finish(machines.set_labels(**change))
    refused(exceptions.PreconditionFailed, lambda: machines.set_labels(**change))
    web = instances()["web-1"]
    refusal = refused(
        exceptions.Forbidden,
        lambda: machines.delete(project=PROJECT, zone=web.zone.rsplit("/", 1)[1], instance="web-1"),
    )
    assert "web-1.yaml" in str(refusal), refusal
    finish(machines.delete(instance="web-9", **where))
    left = [disk.name for disk in disks.list(**where) if not disk.users]
    for name in left:
        assert name.startswith("web-9-"), left
        wanted = compute.Snapshot(name=f"of-{name}", source_disk=f"zones/hall-b/disks/{name}")
        finish(snapshots.insert(project=PROJECT, snapshot_resource=wanted))
        finish(disks.delete(disk=name, **where))
        finish(snapshots.delete(project=PROJECT, snapshot=f"of-{name}"))
    wanted = compute.Image(name="of-snap", source_snapshot="global/snapshots/snap-1")
    finish(images.insert(project=PROJECT, image_resource=wanted))
    wanted = compute.Image(name="of-image", source_image="global/images/of-snap")
    finish(images.insert(project=PROJECT, image_resource=wanted))
    for name, source in [
        ("disk-1", dict(source_snapshot="global/snapshots/snap-1")),
        ("disk-2", dict(source_image="global/images/of-image")),
        ("disk-3", dict(size_gb=3)),
    ]:
        finish(disks.insert(disk_resource=compute.Disk(name=name, **source), **where))
        disk = disks.get(disk=name, **where)
        labels = compute.ZoneSetLabelsRequest(
            labels={"of": name}, label_fingerprint=disk.label_fingerprint
        )
        finish(
            disks.set_labels(resource=name, zone_set_labels_request_resource=labels, **where)
        )
        assert disks.get(disk=name, **where).labels == {"of": name}
        finish(disks.delete(disk=name, **where))
    for name in ["of-snap", "of-image"]:
        finish(images.delete(project=PROJECT, image=name))
    view = client(compute.ImageFamilyViewsClient).get(project=PROJECT, zone="hall-a", family="base")
    assert view.image.name == "base-1", view


def batches(api):
    """Several requests in one, to the server and not to the cloud, where the library would send them."""
    answers = {}

    def answered(name, answer, refusal):
        answers[name] = refusal.resp.status if refusal else answer["kind"]

    batch = http.BatchHttpRequest(
        callback=answered, batch_uri=f"{ENDPOINT}/batch/compute/v1"
    )
    batch.add(api.machineImages().list(project=PROJECT), request_id="list")
    batch.add(api.machineImages().get(project=PROJECT, machineImage="gone"), request_id="gone")
    batch.add(api.zones().get(project=PROJECT, zone="hall-a"), request_id="zone")
    batch.execute()
    wanted = {"list": "compute#machineImageList", "gone": 404, "zone": "compute#zone"}
    assert answers == wanted, answers


def discovered():
    api = discovery.build(
        "compute",
        "v1",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": f"{ENDPOINT}/compute/v1/"},
        static_discovery=True,
    )
    batches(api)
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
restores()
print("google-cloud-compute: well")
discovered()
print("google-api-python-client: well")
