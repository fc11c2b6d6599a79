#!/usr/bin/env bash
# Generates gen/ from the protos. The result is committed, so that building needs Go alone. `--check` fails when a byte would
# change.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
buf=${BUF:-$root/.tools/node_modules/.bin/buf}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

"$buf" generate "$root/protos" --template buf.gen.yaml --path "$root/protos/mip/v1" -o "$out"
if [[ "${1:-}" == --check ]]; then
  diff -r "$out/gen" gen
  echo "generated code is up to date"
else
  rm -rf gen
  cp -r "$out/gen" gen
fi
