#!/bin/sh
# Drives `stillframe serve --dialect gce` with Google's own Python clients, over a copy of the example
# data centre. Run by hand from the root of the project, after `cargo build`; it needs python3 and
# installs the clients into a scratch environment. A program may be named: tests/clients/gce.sh PROGRAM
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
program=${1:-$root/target/debug/stillframe}
scratch=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then kill "$server" && wait "$server" || true; fi
    rm -rf "$scratch"
}
trap finish EXIT INT TERM

environment=${CLIENTS_ENVIRONMENT:-$scratch/environment}
if [ ! -x "$environment/bin/python" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet google-cloud-compute google-api-python-client
fi

cp -r "$root/policies" "$root/examples" "$scratch/"
cd "$scratch"
"$program" serve --dialect gce --project p1 --listen 127.0.0.1:0 > address &
server=$!
until [ -s address ]; do
    kill -0 "$server"
    sleep 0.1
done
"$environment/bin/python" "$here/gce.py" "$(cat address)" p1
