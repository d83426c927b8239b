"""Drives a server with the vendor's own Python SDK: every call must work and mean what it says.

Usage: yandex-sdk.py HOST:PORT FOLDER CERTIFICATE KEY. The server is over a copy of the example data centre
without images, under TLS; the key is the file of an authorised key, which it takes and does not look at.
"""

import json
import sys

import grpc
import yandexcloud
from google.protobuf.field_mask_pb2 import FieldMask
from yandex.cloud.access import access_pb2
from yandex.cloud.compute.v1 import (
    disk_service_pb2,
    disk_service_pb2_grpc,
    image_pb2,
    image_service_pb2,
    image_service_pb2_grpc,
    instance_service_pb2,
    instance_service_pb2_grpc,
    snapshot_pb2,
    snapshot_service_pb2,
    snapshot_service_pb2_grpc,
)

ENDPOINT, FOLDER, CERTIFICATE, KEY = sys.argv[1:5]

with open(CERTIFICATE, "rb") as file:
    certificate = file.read()
with open(KEY) as file:
    key = json.load(file)
sdk = yandexcloud.SDK(endpoint=ENDPOINT, root_certificates=certificate, service_account_key=key)
images = sdk.client(image_service_pb2_grpc.ImageServiceStub)
snapshots = sdk.client(snapshot_service_pb2_grpc.SnapshotServiceStub)
disks = sdk.client(disk_service_pb2_grpc.DiskServiceStub)
instances = sdk.client(instance_service_pb2_grpc.InstanceServiceStub)


def done(operation, response=None):
    """Waits as the SDK does."""
    return sdk.wait_operation_and_get_result(operation, response_type=response).response


def refused(code, call, request):
    try:
        call(request)
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise SystemExit(f"not refused with {code}")


def all_of(call, request, name):
    """All pages of a list, of one item each."""
    found, pages = [], 0
    while True:
        request.page_size = 1
        page = call(request)
        found.extend(getattr(page, name))
        pages += 1
        if not page.next_page_token:
            return found, pages
        request.page_token = page.next_page_token


def disk_of(name):
    request = instance_service_pb2.ListInstancesRequest(folder_id=FOLDER, filter=f'name="{name}"')
    (instance,) = instances.List(request).instances
    assert instance.status == instance.RUNNING, instance
    return instance.boot_disk.disk_id


def create_image(name, disk, **more):
    request = image_service_pb2.CreateImageRequest(
        folder_id=FOLDER, name=name, disk_id=disk, labels={"env": "test"}, **more
    )
    return done(images.Create(request), image_pb2.Image)


def try_images():
    disk = disk_of("web-1")
    first = create_image("by-hand", disk, description="by hand", family="web-server")
    assert first.status == image_pb2.Image.READY, first
    assert first.labels == {"env": "test"} and first.description == "by hand", first
    assert first.storage_size > 0 and first.min_disk_size > 0, first
    second = create_image("by-hand-2", disk, family="web-server")
    listed, pages = all_of(
        images.List, image_service_pb2.ListImagesRequest(folder_id=FOLDER), "images"
    )
    assert {one.id for one in listed} == {first.id, second.id} and pages == 2, listed
    latest = images.GetLatestByFamily(
        image_service_pb2.GetImageLatestByFamilyRequest(folder_id=FOLDER, family="web-server")
    )
    assert latest.id in {first.id, second.id} and latest.created_at.seconds >= first.created_at.seconds
    # Without a mask all that is not said is reset; with one only what it names.
    update = image_service_pb2.UpdateImageRequest(
        image_id=first.id, update_mask=FieldMask(paths=["labels"]), labels={"env": "new"}
    )
    updated = done(images.Update(update), image_pb2.Image)
    assert updated.labels == {"env": "new"} and updated.description == "by hand", updated
    taken = image_service_pb2.CreateImageRequest(folder_id=FOLDER, name="by-hand", disk_id=disk)
    refused(grpc.StatusCode.ALREADY_EXISTS, images.Create, taken)
    bad = image_service_pb2.CreateImageRequest(folder_id=FOLDER, name="Not_A_Name", disk_id=disk)
    refused(grpc.StatusCode.INVALID_ARGUMENT, images.Create, bad)
    of_image = image_service_pb2.CreateImageRequest(
        folder_id=FOLDER, name="by-hand-3", image_id=first.id
    )
    third = done(images.Create(of_image), image_pb2.Image)
    assert third.min_disk_size == first.min_disk_size, third
    return first


def try_bindings(image):
    everybody = access_pb2.AccessBinding(
        role_id="compute.images.user",
        subject=access_pb2.Subject(id="allAuthenticatedUsers", type="system"),
    )
    delta = access_pb2.AccessBindingDelta(
        action=access_pb2.AccessBindingAction.ADD, access_binding=everybody
    )
    request = access_pb2.UpdateAccessBindingsRequest(
        resource_id=image.id, access_binding_deltas=[delta]
    )
    done(images.UpdateAccessBindings(request))
    listed = images.ListAccessBindings(access_pb2.ListAccessBindingsRequest(resource_id=image.id))
    assert list(listed.access_bindings) == [everybody], listed
    done(images.SetAccessBindings(access_pb2.SetAccessBindingsRequest(resource_id=image.id)))
    listed = images.ListAccessBindings(access_pb2.ListAccessBindingsRequest(resource_id=image.id))
    assert not listed.access_bindings, listed


def try_snapshots():
    disk = disk_of("web-2")
    request = snapshot_service_pb2.CreateSnapshotRequest(
        folder_id=FOLDER, disk_id=disk, name="nightly", labels={"slot": "20261121t030000z"}
    )
    # The same key is the same request.
    metadata = (("idempotency-key", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),)
    one = snapshots.Create(request, metadata=metadata)
    made = done(one, snapshot_pb2.Snapshot)
    assert made.source_disk_id == disk and made.disk_size > 0, made
    size = made.disk_size
    restored = disk_service_pb2.CreateDiskRequest(
        folder_id=FOLDER, name="restored", snapshot_id=made.id, size=size, zone_id="hall-a"
    )
    operation = disks.Create(restored)
    done(operation)
    listed = disks.List(disk_service_pb2.ListDisksRequest(folder_id=FOLDER, filter='name="restored"'))
    (disk,) = listed.disks
    assert disk.source_snapshot_id == made.id and not disk.instance_ids, disk
    done(disks.Delete(disk_service_pb2.DeleteDiskRequest(disk_id=disk.id)))
    done(snapshots.Delete(snapshot_service_pb2.DeleteSnapshotRequest(snapshot_id=made.id)))
    gone = snapshot_service_pb2.GetSnapshotRequest(snapshot_id=made.id)
    refused(grpc.StatusCode.NOT_FOUND, snapshots.Get, gone)


def try_deletes():
    listed = images.List(image_service_pb2.ListImagesRequest(folder_id=FOLDER)).images
    for image in listed:
        done(images.Delete(image_service_pb2.DeleteImageRequest(image_id=image.id)))
    assert not images.List(image_service_pb2.ListImagesRequest(folder_id=FOLDER)).images
    elsewhere = image_service_pb2.ListImagesRequest(folder_id="elsewhere")
    refused(grpc.StatusCode.NOT_FOUND, images.List, elsewhere)


try_bindings(try_images())
try_snapshots()
try_deletes()
print("yandexcloud: well")
