#!/usr/bin/env bash
# Runs the conformance suite on the shims of other libraries, and leaves the reports in build/conformance/. That they fail is
# expected: docs/conformance.md says what, and why. Installs each library into .tools/peers from PyPI; takes a quarter of an hour.
#   conformance/peers/report.sh [memoryos] [mem0]
set -euo pipefail
cd "$(dirname "$0")/../.."
out=build/conformance
mkdir -p "$out"
peers=("$@")
((${#peers[@]})) || peers=(memoryos mem0)
for peer in "${peers[@]}"; do
  conformance/peers/setup.sh "$peer"
  status=0
  .venv/bin/mip-conformance run --command "conformance/peers/run.sh $peer" --level core --json "$out/$peer.json" \
    --html "$out/$peer.html" --junit "$out/$peer.xml" --badge "$out/$peer.svg" >"$out/$peer.txt" || status=$?
  ((status <= 1)) || { cat "$out/$peer.txt"; exit "$status"; }
  echo "$peer:"
  tail -n 6 "$out/$peer.txt"
  echo "the failures, and how to repeat them: $out/$peer.html"
done
