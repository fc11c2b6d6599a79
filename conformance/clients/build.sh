#!/usr/bin/env bash
# build.sh [grpcurl|go|ts]...: generates and compiles the clients, all of them by default. git ignores what it makes.
#
# Needs buf (of .tools, or what BUF names) and Go for `go`; buf, Node.js 20 and npm for `ts`. `grpcurl` is a script:
# build.sh only looks whether its tools are there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export BUF=${BUF:-$root/.tools/node_modules/.bin/buf}
need() { command -v "$1" >/dev/null || { echo "build.sh: $1 is not installed" >&2; exit 1; }; }

build_grpcurl() { need grpcurl; need python3; }

build_go() {
  need go
  need "$BUF"
  "$here/go/generate.sh"
  # Without the checkout's revision, which git may refuse to tell another user.
  (cd "$here/go" && go build -buildvcs=false -o build/flow .)
}

build_ts() {
  need npm
  need "$BUF"
  cd "$here/ts"
  # npm writes the second file at the end of an installation.
  if [[ ! node_modules/.package-lock.json -nt package-lock.json ]]; then
    npm ci --silent --ignore-scripts --no-audit --no-fund
  fi
  "$BUF" generate
  npm run --silent build
}

(($#)) || set -- grpcurl go ts
for client in "$@"; do
  case $client in
    grpcurl | go | ts) (build_"$client") ;;
    *) echo "usage: build.sh [grpcurl|go|ts]..." >&2; exit 2 ;;
  esac
done
