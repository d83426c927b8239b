"""Writes policies and an inventory of so many sources: page.py SOURCES POLICIES INVENTORY"""

import base64
import datetime
import hashlib
import json
import pathlib
import sys

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.timezone.utc)
ODD = [
    "<script>document.title='broken'</script>",
    "<img src=x onerror=document.title='broken'>",
    "\u202edesrever si siht",
    "</script><script>document.title='broken'</script>",
    "שרת-גיבוי",
    "a" * 200,
    "quote\"'`${1}",
]
POLICY = """apiVersion: stillframe/v1
kind: BackupPolicy
metadata: {name: nightly-%d, owner: team-%d}
spec:
  engine: here
  source: {match: [{labels: {group: "%d"}}]}
  schedule: {cron: "0 2 * * *"}
  retention: {daily: 30, monthly: 12}
  objectives: {rpo: 36h}
"""
CONFIG = """apiVersion: stillframe/v1
kind: Config
spec:
  engines:
    here: {local: {instances: instances, store: store, locations: {main: {}}, defaultLocation: main}}
"""


def slots():
    """The slots that thirty days and twelve months leave."""
    last = NOW.replace(hour=2, minute=0)
    days = {last - datetime.timedelta(days=day) for day in range(30)}
    for month in range(1, 12):
        first = (last.year * 12 + last.month - month) // 12, (last.year * 12 + last.month - month) % 12 + 1
        days.add(datetime.datetime(first[0], first[1], 1, 2, tzinfo=datetime.timezone.utc) - datetime.timedelta(days=1))
    return sorted(days)


def image(number, policy, source, name, slot):
    stamp = slot.strftime("%Y%m%dt%H%M%Sz")
    digest = hashlib.sha256(f"stillframe/v1\n{policy}\n{source}\n{stamp}".encode()).digest()
    return {
        "id": str(number),
        "name": f"{policy}-{source}-{stamp}",
        "kind": "machine-image",
        "state": "READY",
        "stage": "ACTIVE",
        "created_at": slot.isoformat().replace("+00:00", "Z"),
        "location": "main",
        "labels": {
            "stillframe-key": base64.b32encode(digest).decode().lower()[:16],
            "stillframe-policy": policy,
            "stillframe-slot": stamp,
            "stillframe-source": source,
        },
        "source": {"id": source, "name": name},
        "stored_bytes": 1 << 30,
        "fingerprint": "f",
    }


def main():
    count, policies, inventory = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    policies.mkdir()
    (policies / "instances").mkdir()
    (policies / "stillframe.yaml").write_text(CONFIG)
    for group in range(20):
        (policies / f"nightly-{group}.yaml").write_text(POLICY % (group, group % 5, group))
    instances, images, all_slots = [], [], slots()
    for number in range(count):
        group = number % 21
        name = ODD[number // 50 % len(ODD)] if number % 50 == 0 else f"server-{number:05}"
        labels = {"group": str(group)}
        # Without a disk nothing could be captured, and no plan would have a change.
        disks = [{"name": "boot", "boot": True, "size_bytes": 10 << 30}]
        instances.append({"id": str(10**6 + number), "name": name, "zone": f"zone-{number % 4}", "labels": labels, "status": "RUNNING", "disks": disks})
        if group == 20:
            continue
        # Some have had none for days.
        last = 5 if number % 97 == 0 else 0
        for slot in all_slots[: len(all_slots) - last]:
            images.append(image(len(images) + 1, f"nightly-{group}", str(10**6 + number), name, slot))
    engine = {
        "name": "here",
        "kind": "local",
        "identity": "here",
        "capabilities": {"kinds": ["machine-image"], "locations": ["main"]},
        "gaps": [],
        "instances": instances,
        "images": images,
    }
    at = NOW.isoformat().replace("+00:00", "Z")
    document = {"format_version": "1.0", "observed_at": at, "engines": [engine]}
    pathlib.Path(inventory).write_text(json.dumps(document))


main()
