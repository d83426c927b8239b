#!/bin/sh
# Makes the disks of the example data centre anew: real file systems with a few files in them.
# The disks are in git; this shows where they come from. Needs e2fsprogs, mtools and qemu-utils.
set -eu
cd "$(dirname "$0")"
rm -rf disks
mkdir disks
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The same bytes on every machine.
export E2FSPROGS_FAKE_TIME=1767225600 SOURCE_DATE_EPOCH=1767225600 MTOOLS_NO_VFAT=0 TZ=UTC
serial=10

# ext4 NAME SIZE: a file system of the files in $work/root
ext4() {
    find "$work/root" -exec touch -h -d @1767225600 {} +
    serial=$((serial + 1))
    uuid=00000000-0000-4000-8000-0000000000$serial
    mke2fs -q -F -t ext4 -O ^has_journal,^resize_inode -m 0 -N 64 -U "$uuid" -E "hash_seed=$uuid,root_owner=0:0,lazy_itable_init=0" \
        -L "${1%%-*}" -d "$work/root" "disks/$1.raw" "$2"
    rm -rf "$work/root"
}

# root HOST ROLE: what every machine of the example has on its boot disk
root() {
    mkdir -p "$work/root/etc" "$work/root/var/log"
    echo "$1" > "$work/root/etc/hostname"
    echo "role=$2" > "$work/root/etc/role"
    seq 1 4000 | sed "s/.*/package-& installed/" > "$work/root/var/log/install.log"
}

root web-1 web
mkdir -p "$work/root/srv/www"
echo '<h1>web</h1>' > "$work/root/srv/www/index.html"
ext4 web-1-boot 3M
mformat -C -i disks/web-1-content.raw -T 4096 -h 64 -s 32 -N 0a0b0c0d -v CONTENT ::
seq 1 2000 | sed 's/.*/article &/' > "$work/articles.txt"
touch -d @1767225600 "$work/articles.txt"
mcopy -m -i disks/web-1-content.raw "$work/articles.txt" ::articles.txt

root web-2 web
mkdir -p "$work/root/srv/www"
echo '<h1>web</h1>' > "$work/root/srv/www/index.html"
ext4 web-2-boot 3M
cp disks/web-1-content.raw disks/web-2-content.raw

root db-1 database
ext4 db-1-boot 3M
mkdir -p "$work/root/postgres"
seq 1 9000 | sed 's/.*/row &, value &&/' > "$work/root/postgres/table.csv"
ext4 db-1-data 8M
qemu-img convert -q -f raw -O qcow2 disks/db-1-data.raw disks/db-1-data.qcow2
rm disks/db-1-data.raw

root bastion-1 bastion
ext4 bastion-1-boot 3M
mkdir -p "$work/root/audit"
seq 1 1000 | sed 's/.*/login &/' > "$work/root/audit/login.log"
ext4 bastion-1-audit 2M

root cache-1 cache
ext4 cache-1-boot 3M
mkdir -p "$work/root/cache"
ext4 cache-1-cache 2M

root lab-1 lab
ext4 lab-1-boot 3M
mkdir -p "$work/root/scratch"
ext4 lab-1-scratch 2M
