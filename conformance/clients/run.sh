#!/usr/bin/env bash
# run.sh grpcurl|go|ts ADDRESS TOKEN_FILE: runs the core flow through one client. build.sh makes the client first.
#
# Status 0: every step held. 1: one did not, and stderr says which. 2: used wrongly, or not built.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
(($# == 3)) || { echo "usage: run.sh grpcurl|go|ts ADDRESS TOKEN_FILE" >&2; exit 2; }
name=$1
shift
built() { [[ -f $1 ]] || { echo "run.sh: $1 is missing; build.sh $name makes it" >&2; exit 2; }; }
case $name in
  grpcurl) exec "$here/grpcurl/flow.sh" "$@" ;;
  go) built "$here/go/build/flow"; exec "$here/go/build/flow" "$@" ;;
  ts) built "$here/ts/dist/src/flow.js"; exec node "$here/ts/dist/src/flow.js" "$@" ;;
  *) echo "run.sh: no client named $name" >&2; exit 2 ;;
esac
