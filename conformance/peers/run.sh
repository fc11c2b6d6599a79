#!/usr/bin/env bash
# Starts a peer in Python, as `mip-conformance run --command` wants it: configuration on standard input, address on
# standard output.
#   conformance/peers/run.sh mem0
set -euo pipefail
cd "$(dirname "$0")/../.."
name=${1:?mem0 or memoryos}
[[ -x .tools/peers/$name/bin/python ]] || { echo "run: conformance/peers/setup.sh $name comes first" >&2; exit 2; }
exec ".tools/peers/$name/bin/python" -m "conformance.peers.$name" --stdin
