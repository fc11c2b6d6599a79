#!/usr/bin/env bash
# Generates the stubs into gen/, from the protos alone. Needs Go and buf; the generators are pinned in go.mod.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
buf=${BUF:-$root/.tools/node_modules/.bin/buf}
"$buf" generate "$root/protos" --path "$root/protos/mip/v1" --template buf.gen.yaml
