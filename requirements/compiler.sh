#!/bin/sh
# What compiling needs beside the packages: a C compiler and Python's headers. Install them where that is allowed. $1: python.
set -eu
missing=""
command -v "${CC:-gcc}" >/dev/null || missing=" gcc libc6-dev"
include=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "$include/Python.h" ] || missing="$missing $("$1" -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])')"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "weir: installing$missing to compile with"
  # shellcheck disable=SC2086
  apt-get -qq update >/dev/null && apt-get -qq install -y --no-install-recommends $missing >/dev/null && exit 0
fi
echo "weir: compiling needs$missing; install them (apt-get install$missing). Without, everything runs interpreted" >&2
exit 2
