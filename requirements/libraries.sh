#!/bin/sh
# The bundled mongod links libcurl4, libssl3 and liblzma5, which slim images lack: install them where that is allowed.
set -eu
missing=""
for pair in libcurl.so.4:libcurl4 libssl.so.3:libssl3 liblzma.so.5:liblzma5; do
  so=${pair%%:*}
  package=${pair##*:}
  ldconfig -p 2>/dev/null | grep -q "$so" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "weir: installing$missing for the bundled mongod"
  # shellcheck disable=SC2086
  apt-get -qq update >/dev/null && apt-get -qq install -y $missing >/dev/null && exit 0
fi
echo "weir: the bundled mongod needs$missing; install them (apt-get install$missing), or set WEIR_MONGO_URL" >&2
