#!/bin/sh
# Drives `stillframe serve --dialect twcc` with the vendor's own program, twccli 0.6.1, over a copy of the
# example data centre, and then looks at it with our own engine: what the one has made, the other must see.
# Run by hand from the root of the project, after `cargo build`, or by .ci/clients; it needs python3.11,
# since twccli does not install on later ones. A program may be named: tests/clients/twcc.sh PROGRAM
# With REQUIRE_TWCCLI=1 it fails where there is no python3.11, before it does anything.
set -eu

python=${PYTHON:-python3.11}
if ! command -v "$python" > /dev/null; then
    if [ "${REQUIRE_TWCCLI:-0}" = 1 ]; then
        echo "twccli: there is no $python, and REQUIRE_TWCCLI=1 says that it is to be tried" >&2
        exit 1
    fi
    echo "twccli: not tried: there is no $python"
    exit 0
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

fail() {
    echo "twccli: $1" >&2
    exit 1
}

# A server over a data centre of its own, with numbers for ids as the service has them.
cp -r "$root/policies" "$root/examples" "$scratch/"
cd "$scratch"
sed -i 's/^  name: web-1$/  name: web-1\n  id: "918628"/' examples/datacenter/instances/web-1.yaml
serve() {
    : > address
    "$program" serve --dialect twcc --project GOV000001 --listen 127.0.0.1:0 > address &
    server=$!
    until [ -s address ]; do
        kill -0 "$server"
        sleep 0.1
    done
    address=$(cat address)
}
serve

# The program knows one host, which is in its package, and at its first start it asks other services who
# and where it is: all that is written down for it beforehand.
environment=${CLIENTS_ENVIRONMENT:-$scratch/environment}
if ! "$environment/bin/python" -c 'import twccli' 2> /dev/null || [ ! -x "$environment/bin/twccli" ]; then
    "$python" -m venv "$environment"
    "$environment/bin/pip" install --quiet 'TWCC-CLI==0.6.1'
fi
package=$("$environment/bin/python" -c 'import importlib.util; print(importlib.util.find_spec("twccli").submodule_search_locations[0])')
point() {
    sed -i "s#^  host: .*#  host: \"$address\"#" "$package/yaml/TWCC_API.yaml"
}
point
export TWCC_DATA_PATH="$scratch/twcc" LANG=C.UTF-8 LC_ALL=C.UTF-8
mkdir -p "$TWCC_DATA_PATH/log"
cat > "$TWCC_DATA_PATH/credential" << 'END'
_default:
  twcc_username: stillframe
  twcc_api_key: 00000000-0000-4000-8000-000000000000
  twcc_proj_code: GOV000001
  twcc_s3_access_key: none
  twcc_s3_secret_key: none
_meta:
  cli_version: 0.6.1
  ctime: 2026-01-01 00:00:00
projects:
  GOV000001: {CNTR: 101, COS: 101, HPCJ: 101, VCS: 101}
END
cat > "$TWCC_DATA_PATH/releases.xml" << 'END'
<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0"><channel><title>twcc-cli</title><item><title>0.6.1</title></item></channel></rss>
END
twccli() {
    "$environment/bin/twccli" "$@" || fail "twccli $* has failed"
}
# Whether a text is in what the program prints; all of that is read, or it would fail.
prints() {
    text=$1
    shift
    case $(twccli "$@") in *"$text"*) return 0 ;; *) return 1 ;; esac
}
# A field of the first entry of what twccli prints as JSON, or of the only one.
field() {
    "$environment/bin/python" -c '
import json, sys
text = sys.stdin.read()
value = json.loads(text[min(at for at in (text.find("["), text.find("{")) if at >= 0):])
value = value[0] if isinstance(value, list) else value
print(value[sys.argv[1]])' "$1"
}

prints 918628 ls vcs -json || fail "the site is not listed"
prints web-1 ls vcs -s 918628 -json || fail "the site is not shown"
twccli ls vcs Ubuntu -img > /dev/null
# What the vendor's page on scheduled images has in its crontab.
twccli mk vcs -s 918628 -cus-img
state=
for _ in $(seq 100); do
    state=$(twccli ls vcs -cus-img -json | field status)
    case $state in ACTIVE | ERROR) break ;; esac
    sleep 0.2
done
[ "$state" = ACTIVE ] || fail "the image is $state"
image=$(twccli ls vcsi -json | field id)
prints "\"id\": $image" ls vcs -cus-img -s 918628 -json || fail "the image is not of the site"
prints 'twccli created from' ls vcsi -id "$image" -json || fail "no description"
twccli ch vcsi -id "$image" -d 'made by hand'
[ "$(twccli ls vcsi -id "$image" -json | field desc)" = 'made by hand' ] || fail "it was not changed"

# What twccli has made is nobody's to our own engine, which makes another one beside it.
mkdir own
cat > own/stillframe.yaml << END
apiVersion: stillframe/v1
kind: Config
spec:
  ledger: ../ledger.ndjson
  engines:
    vcs: {twcc: {project: GOV000001, endpoint: "$address"}}
---
apiVersion: stillframe/v1
kind: BackupPolicy
metadata: {name: nightly}
spec:
  source: {match: [{names: [web-1]}]}
  capture: {disks: boot}
  schedule: {cron: "0 * * * *"}
  retention: {days: 30}
END
"$program" --policies own apply --auto-approve
"$program" --policies own plan --detailed-exitcode > /dev/null || fail "a second plan has something to do"
prints 'sf1:nightly/918628/' ls vcsi -json || fail "our record is not shown"

# All of it is there after a restart.
finish
serve
point
[ "$(twccli ls vcsi -id "$image" -json | field desc)" = 'made by hand' ] || fail "a restart has lost it"
twccli rm vcs -cus-img -cus-img-id "$image" -f
for _ in $(seq 100); do
    prints 'made by hand' ls vcsi -json || break
    sleep 0.2
done
if prints 'made by hand' ls vcsi -json; then fail "it was not deleted"; fi
"$program" --policies own --engine-endpoint "$address" list > listed
grep -q nightly listed || fail "our image is gone as well"
echo "twccli: well"
