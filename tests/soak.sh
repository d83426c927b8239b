#!/bin/sh
# Watches the example data centre for real minutes (30 unless the first argument says otherwise) with a
# policy of every minute, and reloads, mistakes and kills in between. Then each slot has one image, and
# none is missing but those of minutes in which nothing ran. Not part of the tests: it takes its time.
set -eu
minutes=${1:-30}
here=$(cd "$(dirname "$0")/.." && pwd)
program=${STILLFRAME:-$here/target/debug/stillframe}
work=$(mktemp -d)
watch=
cleanup() { [ -z "$watch" ] || kill "$watch" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT INT TERM

cp -r "$here/policies" "$here/examples" "$work"
cd "$work"
rm policies/database.yaml policies/operations.yaml policies/*.test.yaml 2>/dev/null || true
write() {
    sed -e "s/cron: .*/cron: \"* * * * *\"/" "$here/policies/web.yaml" >web.new
    printf '  retention: {last: %s}\n  lifecycle: {grace: 0}\n' "$1" >>web.new
    mv web.new policies/web.yaml
}
start() {
    "$program" watch --log-format json 2>>log.ndjson &
    watch=$!
}
write 60
start
end=$(($(date +%s) + minutes * 60))
round=0
kills=0
while [ "$(date +%s)" -lt "$end" ]; do
    sleep $((20 + round * 7 % 25))
    case $((round % 4)) in
    0) write $((50 + round % 20)) ;;
    1) kill -KILL "$watch" && { wait "$watch" 2>/dev/null || true; } && kills=$((kills + 1)) && start ;;
    2) sed 's/schedule:/shedule:/' policies/web.yaml >web.new && mv web.new policies/web.yaml ;;
    3) write 60 && kill -HUP "$watch" ;;
    esac
    round=$((round + 1))
done
write 60
kill -TERM "$watch"
wait "$watch"
watch=
"$program" list --all --json >list.json
"$program" verify >/dev/null
python3 - "$minutes" "$kills" "$round" <<'PY'
import collections, json, sys
minutes, kills, rounds = map(int, sys.argv[1:])
images = [row["image"] for row in json.load(open("list.json"))["images"]]
slots = collections.Counter((image["labels"]["stillframe-source"], image["labels"]["stillframe-slot"]) for image in images)
twice = [key for key, count in slots.items() if count > 1]
assert not twice, twice
sources = collections.Counter(source for source, _ in slots)
said = [json.loads(line) for line in open("log.ndjson")]
errors = [line["fields"]["message"] for line in said if line["level"] == "ERROR"]
other = [text for text in errors if not text.startswith(("invalid policy", "what was in force"))]
assert not other, other
print(f"{minutes} minutes, {rounds} disturbances, {kills} kills: {dict(sources)} images, none twice, {len(errors)} errors told of invalid policies")
least = min(sources.values())
assert least >= minutes - 1, f"{least} of {minutes} minutes"
PY
