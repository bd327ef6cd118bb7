#!/bin/sh
# Install the hashed, pinned set ($2) and this checkout into the environment of $1.
set -eu
echo "weir: installing $2"
"$1" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$2"
"$1" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
