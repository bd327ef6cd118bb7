#!/bin/sh
# The unit tests on the source as it is, then every test on the compiled request path. $1: python.
set -eu
export WEIR_COMPILED=0
"$1" -m pytest -n 3 tests/unit
if sh requirements/compiler.sh "$1"; then
  "$1" -m native
  export WEIR_COMPILED=1
else
  echo "weir: nothing can be compiled here, so every test runs on the source as it is"
fi
exec "$1" -m pytest -n 3 --dist loadscope --no-loadscope-reorder
