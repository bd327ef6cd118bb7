#!/bin/sh
# Make a virtual environment with the first Python >= 3.11 on the PATH. $1: where.
set -eu
for python in ${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
  if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      apt-get -qq update >/dev/null && apt-get -qq install -y "python$version-venv" >/dev/null || true
    fi
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
      echo "weir: this Python has no venv module; install it with: apt-get install python$version-venv" >&2
      exit 2
    fi
  fi
  echo "weir: making $1 with $("$python" --version)"
  exec "$python" -m venv "$1"
done
echo "weir: Python 3.11 or newer is needed and none was found; install it, or set PYTHON=/path/to/python3" >&2
exit 2
