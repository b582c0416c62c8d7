#!/bin/sh
# Choose versions and write the locks: run.txt, many.txt, test.txt and npm's. No address stands in any of them, so that any
# mirror serves; nothing younger than a week is chosen, so that a poisoned release has time to be found.
set -eu

cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/uv"
"$scratch/uv/bin/python" -m pip install -q --disable-pip-version-check uv

cd requirements
for name in run many test; do
    "$scratch/uv/bin/uv" pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-emit-find-links \
        --universal --python-version 3.11 --exclude-newer '7 days' --custom-compile-command 'make locks' \
        "$name.in" -o "$name.txt"
done

cd ../tests/journeys/node
npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund --loglevel=error
