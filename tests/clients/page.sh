#!/bin/sh
# Looks at the page in Chromium: light and dark, wide and 400 px narrow, with axe-core, and over 10,000
# sources whose names try to be markup. Run by hand from the root of the project, after `cargo build`; it
# needs python3, node with npm, and chromium (CHROMIUM names another). Pictures are left in a directory that
# may be named: tests/clients/page.sh PROGRAM PICTURES
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
program=$(realpath "${1:-$root/target/debug/stillframe}")
scratch=$(mktemp -d)
pictures=${2:-$scratch/pictures}
server=
leave() {
    if [ -n "$server" ]; then kill "$server" && wait "$server" || true; fi
    rm -rf "$scratch"
}
trap leave EXIT INT TERM

# Nothing of this is installed anywhere else.
environment=${PAGE_ENVIRONMENT:-$scratch/node}
mkdir -p "$environment" "$pictures"
environment=$(realpath "$environment")
pictures=$(realpath "$pictures")
if ! (cd "$environment" && node -e 'require.resolve("axe-core"); require.resolve("puppeteer-core")') 2> /dev/null; then
    (cd "$environment" && npm init -y > /dev/null && npm install --silent axe-core puppeteer-core)
fi
cp "$here/page.mjs" "$environment/page.mjs"

# A file of 10,000 sources.
mkdir "$scratch/many"
cd "$scratch/many"
python3 "$here/page.py" 10000 policies seen.json
"$program" report --html page.html --inventory seen.json
cp page.html "$pictures/"

# A watch over the example data centre.
mkdir "$scratch/few"
cd "$scratch/few"
cp -r "$root/policies" "$root/examples" .
"$program" watch --listen 127.0.0.1:0 > address 2> said &
server=$!
until [ -s address ] && grep -q "round ended" said; do
    kill -0 "$server"
    sleep 0.1
done
cd "$environment"
node page.mjs "$(cat "$scratch/few/address")" "file://$scratch/many/page.html" "$pictures"
