#!/bin/sh
# Drives `stillframe serve --dialect gce` with Google's own clients, over copies of the example data
# centre: the Python clients, which it installs into a scratch environment, and the gcloud program where
# it is installed. Run by hand from the root of the project, after `cargo build`, or by .ci/clients; it
# needs python3. A program may be named: tests/clients/gce.sh PROGRAM
# With REQUIRE_GCLOUD=1 it fails where gcloud is not installed, before it does anything.
set -eu

has_gcloud=$(command -v gcloud || true)
if [ -z "$has_gcloud" ] && [ "${REQUIRE_GCLOUD:-0}" = 1 ]; then
    echo "gcloud: not installed, and REQUIRE_GCLOUD=1 says that it is to be tried" >&2
    exit 1
fi

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
program=$(realpath "${1:-$root/target/debug/stillframe}")
scratch=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then kill "$server" && wait "$server" || true; fi
    server=
}
leave() {
    finish
    rm -rf "$scratch"
}
trap leave EXIT INT TERM

# A server over a data centre of its own; its address is in $scratch/NAME/address.
serve() {
    mkdir "$scratch/$1"
    cp -r "$root/policies" "$root/examples" "$scratch/$1/"
    cd "$scratch/$1"
    "$program" serve --dialect gce --project p1 --listen 127.0.0.1:0 > address &
    server=$!
    until [ -s address ]; do
        kill -0 "$server"
        sleep 0.1
    done
}

environment=${CLIENTS_ENVIRONMENT:-$scratch/environment}
if ! "$environment/bin/python" -c 'import google.cloud.compute_v1, googleapiclient' 2> /dev/null; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet google-cloud-compute google-api-python-client
fi
serve python
"$environment/bin/python" "$here/gce.py" "$(cat address)" p1
finish

if [ -n "$has_gcloud" ]; then
    serve gcloud
    "$here/gcloud.sh" "$(cat address)" p1 "$scratch/gcloud"
    echo "gcloud: well"
    finish
else
    echo "gcloud: NOT TRIED: it is not installed, so nothing is known of its commands here"
fi
