#!/usr/bin/env bash
# Installs a peer in Python into .tools/peers/NAME, from the exact versions of its requirements.txt.
#   conformance/peers/setup.sh mem0
#   conformance/peers/setup.sh memoryos
# PYTHON names the interpreter, 3.11 or later.
set -euo pipefail
cd "$(dirname "$0")/../.."

name=${1:?mem0 or memoryos}
requirements=conformance/peers/$name/requirements.txt
[[ -f $requirements ]] || { echo "setup: there is no $requirements; choose mem0 or memoryos" >&2; exit 2; }
venv=.tools/peers/$name
stamp=$venv/.requirements.txt
if cmp -s "$requirements" "$stamp"; then
  echo "$venv is as $requirements says"
  exit 0
fi

python=${PYTHON:-python3}
"$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' || { echo "setup: $python is no Python 3.11 or later" >&2; exit 1; }
start=$SECONDS
rm -rf "$venv"
mkdir -p "$(dirname "$venv")"
"$python" -m venv "$venv"
# --no-deps: the list is whole, and says why what the packages declare is not followed.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$requirements"
cp "$requirements" "$stamp"
echo "installed $name in $venv: $(du -sm "$venv" | cut -f1) MB, $((SECONDS - start)) s"
