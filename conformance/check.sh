#!/usr/bin/env bash
# Runs the conformance suite against the reference server and against the Go server, judges the suite by its mutants, and
# leaves the reports in build/conformance/. Needs .venv (make setup-dev) and Go; without Go it says what was not run.
#   conformance/check.sh [reference] [go] [records] [mutants] [broken]     all of them without an argument
# MUTANTS_SHARE=3 tries a third of the mutants, each day another one.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
out=build/conformance
mkdir -p "$out"
parts=("$@")
((${#parts[@]})) || parts=(reference go records mutants broken)
failed=0

run() { # run NAME ARGUMENTS... runs the suite and writes its reports
  local name=$1
  shift
  mip-conformance run "$@" --json "$out/$name.json" --html "$out/$name.html" --junit "$out/$name.xml" \
    --badge "$out/$name.svg"
}

build_go() { (cd conformance/peers/go && go build -o "$OLDPWD/$out/mip-go-peer" .); }

for part in "${parts[@]}"; do
  printf '\n-- conformance: %s\n' "$part"
  case $part in
    reference) run reference --command "python -m conformance.mutants.reference" || failed=1 ;;
    go)
      if ! command -v go >/dev/null; then
        echo "not run: go is not installed"
        continue
      fi
      build_go && run go --command "$out/mip-go-peer --stdin" --level core --level history || failed=1
      ;;
    records)
      # What either server wrote, read by the suite's functions; the Go server's own tests read the same files.
      mip-conformance verify-record conformance/vectors/cubes/*.json || failed=1
      if command -v go >/dev/null; then (cd conformance/peers/go && go vet ./... && go test ./...) || failed=1; fi
      ;;
    mutants) python -m conformance.mutants.run --share "${MUTANTS_SHARE:-1}" || failed=1 ;;
    broken) python -m conformance.mutants.broken || failed=1 ;;
    *) echo "conformance: there is no part $part" >&2; exit 2 ;;
  esac
done
exit $failed
