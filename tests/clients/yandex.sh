#!/bin/sh
# Drives `stillframe serve --dialect yandex` with the vendor's own Python SDK, over a copy of the example
# data centre. It needs python3, installs the SDK into a scratch environment, and a program that was built
# with gRPC: cargo build --features grpc-dialect. Run by hand from the root of the project, or by
# .ci/clients. A program may be named: tests/clients/yandex.sh PROGRAM
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
program=$(realpath "${1:-$root/target/debug/stillframe}")
scratch=$(mktemp -d)
server=
leave() {
    if [ -n "$server" ]; then kill "$server" && wait "$server" || true; fi
    rm -rf "$scratch"
}
trap leave EXIT INT TERM

environment=${CLIENTS_ENVIRONMENT:-$scratch/environment}
if ! "$environment/bin/python" -c 'import yandexcloud' 2> /dev/null; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet yandexcloud
fi

cp -r "$root/policies" "$root/examples" "$scratch/"
cd "$scratch"
"$program" serve --dialect yandex --project b1g --listen 127.0.0.1:0 \
    --tls-cert "$root/tests/data/tls/cert.pem" --tls-key "$root/tests/data/tls/key.pem" > address &
server=$!
until [ -s address ]; do
    kill -0 "$server"
    sleep 0.1
done

# An authorised key, as the cloud would write it.
python3 - "$root/tests/data/gce/key-for-tests.pem" > key.json << 'KEY'
import json, sys
with open(sys.argv[1]) as file:
    print(json.dumps({"id": "k1", "service_account_id": "a1", "private_key": file.read()}))
KEY
port=$(sed 's/.*://' address)
"$environment/bin/python" "$here/yandex-sdk.py" "localhost:$port" b1g "$root/tests/data/tls/cert.pem" key.json
