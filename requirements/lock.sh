#!/bin/sh
# Write both lock files: universal (Python >= 3.11), hashed, with no address of any index in them. $1: python.
set -eu
"$1" -m pip install --quiet uv
uv="$(dirname "$1")/uv"
common="--universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate"
# hatchling builds the editable install; it must be in the first set because build isolation is off.
# shellcheck disable=SC2086
echo "hatchling" | "$uv" pip compile $common --quiet --extra bundled pyproject.toml - -o requirements/run.lock
# shellcheck disable=SC2086
"$uv" pip compile $common --quiet --extra bundled --extra dev -c requirements/run.lock pyproject.toml -o requirements/dev.lock
