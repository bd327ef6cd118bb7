#!/bin/sh
# The heart of the tests on the compiled request path, where it can be compiled here; then every test on the source as it is.
# With `compiled` as $2 every test on the compiled path instead. $1: python.
set -eu
together="-n 3 --dist loadscope --no-loadscope-reorder"
heart="tests/unit tests/fuzz tests/integration/test_main_job.py tests/integration/test_ends.py tests/integration/test_link.py
  tests/integration/test_settler.py tests/integration/test_sessions.py tests/integration/test_garbage.py"
if sh requirements/compiler.sh "$1"; then
  "$1" -m native
  [ "${2:-}" = compiled ] && heart=""
  # shellcheck disable=SC2086
  WEIR_COMPILED=1 "$1" -m pytest $together $heart
else
  echo "weir: nothing can be compiled here, so every test runs on the source as it is"
fi
[ "${2:-}" = compiled ] && exit
export WEIR_COMPILED=0
# shellcheck disable=SC2086
exec "$1" -m pytest $together
