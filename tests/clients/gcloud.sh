#!/bin/sh
# Drives a server with the gcloud program: the commands that people use every day, verbatim, with only
# endpoint and credentials set by the environment. Usage: gcloud.sh ENDPOINT PROJECT SCRATCH, over a copy
# of the example data centre without images, and a server of its own.
set -eu

endpoint=$1
export CLOUDSDK_CORE_PROJECT=$2
export CLOUDSDK_CONFIG=$3/gcloud
export CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE=$endpoint/compute/v1/
export CLOUDSDK_AUTH_DISABLE_CREDENTIALS=true
export CLOUDSDK_CORE_DISABLE_PROMPTS=1
export CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=true
export CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK=true

out=$3/gcloud.out
err=$3/gcloud.err

# Runs a command that must succeed; what it prints is in $out and $err.
compute() {
    if ! gcloud compute "$@" > "$out" 2> "$err"; then
        echo "failed: gcloud compute $*" >&2
        cat "$out" "$err" >&2
        exit 1
    fi
}

# Runs a command that must be refused, with these words.
refused() {
    words=$1
    shift
    if gcloud compute "$@" > "$out" 2> "$err"; then
        echo "not refused: gcloud compute $*" >&2
        exit 1
    fi
    grep -q -e "$words" "$err" || { echo "refused otherwise: gcloud compute $*" >&2; cat "$err" >&2; exit 1; }
}

# Runs a command that must print exactly this.
prints() {
    wanted=$1
    shift
    compute "$@"
    [ "$(cat "$out")" = "$wanted" ] || {
        echo "gcloud compute $* printed" >&2
        cat "$out" >&2
        echo "and not" >&2
        echo "$wanted" >&2
        exit 1
    }
}

says() {
    grep -q -e "$1" "$out" "$err" || { echo "nothing says $1:" >&2; cat "$out" "$err" >&2; exit 1; }
}

# -- machine images
compute machine-images create golden --source-instance=web-1 --source-instance-zone=hall-a \
    --description="before the upgrade" --storage-location=vault --guest-flush
says "not asked to flush"
compute machine-images create silver-1 --source-instance=web-2 --source-instance-zone=hall-b
compute machine-images create silver-2 --source-instance=projects/$CLOUDSDK_CORE_PROJECT/zones/hall-a/instances/web-1
refused "already exists" machine-images create golden --source-instance=web-1 --source-instance-zone=hall-a
refused "storage locations here are" machine-images create other --source-instance=web-1 \
    --source-instance-zone=hall-a --storage-location=moon
prints "$(printf 'NAME    STATUS\ngolden  READY')" \
    machine-images list --format='table(name,status)' --filter='name=golden'
prints "$(printf 'silver-1\nsilver-2')" machine-images list --format='value(name)' --filter='name~silver-.*' --sort-by=name
prints "golden" machine-images list --format='value(name)' --limit=1 --sort-by=name
prints "$(printf 'READY\tbefore the upgrade\tvault')" \
    machine-images describe golden --format='value(status,description,storageLocations)'
compute machine-images describe golden --format=json
says '"sourceInstanceProperties"'
refused "was not found" machine-images describe nothing
compute machine-images delete silver-1 silver-2 --quiet
prints "golden" machine-images list --format='value(name)'

# -- instances out of machine images
compute instances create web-9 --source-machine-image=golden --zone=hall-b --machine-type=e2-small \
    --network=other --metadata=startup-script=hello,colour=blue --labels=env=test
prints "$(printf 'e2-small\ttest\tother')" instances describe web-9 --zone=hall-b \
    --format='value(machineType.basename(),labels.env,networkInterfaces[0].network.basename())'
compute instances describe web-9 --zone=hall-b --format=json
says '"value": "hello"'
compute instances add-labels web-9 --zone=hall-b --labels=team=web
prints "$(printf 'test\tweb')" instances describe web-9 --zone=hall-b --format='value(labels.env,labels.team)'
prints "web-9" instances list --filter='name=web-9' --format='value(name)'
prints "web-9" instances list --zones=hall-b --filter='labels.team=web' --format='value(name)'
prints "TERMINATED" instances describe web-9 --zone=hall-b --format='value(status)'
compute instances start web-9 --zone=hall-b
prints "RUNNING" instances describe web-9 --zone=hall-b --format='value(status)'
compute instances stop web-9 --zone=hall-b
prints "TERMINATED" instances describe web-9 --zone=hall-b --format='value(status)'
refused "which a person wrote" instances stop web-1 --zone=hall-a
compute instances remove-labels web-9 --zone=hall-b --labels=team
compute machine-images create again --source-instance=web-9 --source-instance-zone=hall-b
refused "which a person wrote" instances delete web-1 --zone=hall-a --quiet
compute instances delete web-9 --zone=hall-b --delete-disks=boot --quiet
prints "" instances list --filter='name=web-9' --format='value(name)'
prints "web-9-content" disks list --filter='name:web-9*' --format='value(name)'
compute disks delete web-9-content --zone=hall-b --quiet
compute machine-images delete again --quiet

# -- snapshots and disks
compute disks snapshot web-1-boot --zone=hall-a --snapshot-names=snap-1 --labels=env=test --description="by hand"
compute snapshots create snap-2 --source-disk=web-1-content --source-disk-zone=hall-a --storage-location=vault
prints "$(printf 'snap-1\tREADY\nsnap-2\tREADY')" snapshots list --format='value(name,status)' --sort-by=name
prints "snap-1" snapshots list --filter='name=snap-1' --format='value(name)'
prints "snap-1" snapshots list --filter='labels.env=test' --format='value(name)'
compute snapshots add-labels snap-2 --labels=env=prod
compute snapshots update snap-2 --update-labels=team=web
prints "$(printf 'prod\tweb')" snapshots describe snap-2 --format='value(labels.env,labels.team)'
compute snapshots remove-labels snap-2 --labels=team
prints "prod" snapshots describe snap-2 --format='value(labels.env)'
compute disks create disk-1 --zone=hall-a --source-snapshot=snap-2
compute disks create disk-2 --zone=hall-a --size=10GB --type=pd-ssd
compute disks add-labels disk-2 --zone=hall-a --labels=a=b
prints "$(printf '10\tpd-ssd\tb')" disks describe disk-2 --zone=hall-a --format='value(sizeGb,type.basename(),labels.a)'
refused "already being used by" disks delete web-1-boot --zone=hall-a --quiet

# -- disk images and families
compute images create base-1 --source-disk=disk-1 --source-disk-zone=hall-a --family=base --description=first
compute images create base-2 --source-snapshot=snap-2 --family=base
compute images create base-3 --source-image=base-2 --family=base --storage-location=vault
refused "already being used by" images create busy --source-disk=web-1-boot --source-disk-zone=hall-a
compute images create forced --source-disk=web-1-boot --source-disk-zone=hall-a --force
prints "base-3" images describe-from-family base --format='value(name)'
for state in DEPRECATED OBSOLETE DELETED ACTIVE; do
    if [ $state = ACTIVE ]; then
        compute images deprecate base-3 --state=$state
    else
        compute images deprecate base-3 --state=$state --replacement=base-2
        prints "$(printf '%s\tbase-2' $state)" images describe base-3 \
            --format='value(deprecated.state,deprecated.replacement.basename())'
        prints "base-2" images describe-from-family base --format='value(name)'
    fi
done
prints "base-3" images describe-from-family base --format='value(name)'
prints "base-1" images list --no-standard-images --filter='family=base AND name=base-1' --format='value(name)'
compute images add-labels base-1 --labels=env=test
compute images update base-1 --description=second --family=other --architecture=X86_64 \
    --update-labels=team=web,size=small --remove-labels=env
prints "$(printf 'second\tother\tX86_64\tsmall\tweb')" images describe base-1 \
    --format='value(description,family,architecture,labels.size,labels.team)'
prints "" images describe base-1 --format='value(labels.env)'
prints "base-1" images describe-from-family other --format='value(name)'
compute images update base-1 --family=base --description=
prints "$(printf '\tbase')" images describe base-1 --format='value(description,family)'
compute images update base-1 --clear-labels
prints "" images describe base-1 --format='value(labels)'
compute images update base-1 --update-labels=env=test
prints "test" images describe base-1 --format='value(labels.env)'
refused "Must be a match of regex" images update base-1 --family="No Family"
refused "was not found" images update nothing --description=x
compute images add-iam-policy-binding base-1 --member=user:a@example.com --role=roles/compute.imageUser
prints "user:a@example.com" images get-iam-policy base-1 --flatten='bindings[].members' --format='value(bindings.members)'
compute images remove-iam-policy-binding base-1 --member=user:a@example.com --role=roles/compute.imageUser
prints "" images get-iam-policy base-1 --flatten='bindings[].members' --format='value(bindings.members)'
compute disks create disk-3 --zone=hall-a --image=base-1
compute disks create disk-4 --zone=hall-a --image-family=base

# -- and all of it goes
compute disks delete disk-1 disk-2 disk-3 disk-4 --zone=hall-a --quiet
compute images delete base-1 base-2 base-3 forced --quiet
compute snapshots delete snap-1 snap-2 --quiet
compute machine-images delete golden --quiet
prints "" machine-images list --format='value(name)'
prints "" snapshots list --format='value(name)'
prints "" images list --no-standard-images --format='value(name)'
compute instance-templates list
compute resource-policies list
compute operations list --limit=3 --format='value(name)'
compute zones list --format='value(name)'
compute regions list --format='value(name)'
compute project-info describe --format='value(name)'
