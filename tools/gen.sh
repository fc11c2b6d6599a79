#!/usr/bin/env bash
# Generates the code that is committed: the server's messages (protobuf, upb) with type stubs, the SDK's messages
# (betterproto2) and the types of its codec, the descriptor set and the table of error reasons; the conformance runner gets
# the descriptor set and that of its cases. `--check` fails when a byte would change.
set -euo pipefail
cd "$(dirname "$0")/.."
buf=${BUF:-.tools/node_modules/.bin/buf}
[[ -x $buf ]] || npm install --silent --no-fund --no-audit --prefix .tools @bufbuild/buf@1.75.0 >/dev/null
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export PATH="$PWD/.venv/bin:$PATH"

"$buf" build protos --as-file-descriptor-set -o "$out/mip.protoset#format=binpb"
"$buf" build conformance/protos --as-file-descriptor-set --exclude-source-info -o "$out/suite.protoset#format=binpb"
"$buf" generate protos -o "$out"
.venv/bin/python tools/gen_wire.py "$out/mip.protoset" "$out/server/mip/v1" "$out/sdk"
# protoc writes absolute imports of `mip.v1`; the messages live inside the server's package.
find "$out/server" -name '*.py*' -exec sed -i -E 's/^from mip\.v1 import/from memos_server._pb.mip.v1 import/; s/[[:space:]]+$//' {} +
touch "$out/server/mip/__init__.py" "$out/server/mip/v1/__init__.py"
.venv/bin/python tools/gen_reasons.py "$out/mip.protoset" > "$out/sdk/reasons.py"

if [[ "${1:-}" == --check ]]; then
  diff -r -x __pycache__ "$out/server/mip" memos_server/_pb/mip
  diff -r -x __pycache__ "$out/sdk" memos_sdk/_gen
  cmp "$out/mip.protoset" protos/mip.protoset
  cmp "$out/mip.protoset" conformance/mip_conformance/mip.protoset
  cmp "$out/suite.protoset" conformance/mip_conformance/suite.protoset
  echo "generated code is up to date"
else
  rm -rf memos_server/_pb/mip memos_sdk/_gen
  cp -r "$out/server/mip" memos_server/_pb/mip
  cp -r "$out/sdk" memos_sdk/_gen
  cp "$out/mip.protoset" protos/mip.protoset
  cp "$out/mip.protoset" "$out/suite.protoset" conformance/mip_conformance/
fi
