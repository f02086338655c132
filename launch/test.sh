#!/usr/bin/env bash
# Installs what the tests need into .venv and .venv-skypilot, and runs the linter, formatter, type checker
# and tests. Arguments go to pytest: ./launch/test.sh tests/losses
set -euo pipefail
cd "$(dirname "$0")/.."

source launch/virtual_environment.sh
install -r requirements.txt --editable '.[test]'
# The tests load launch/sky_*.yaml with SkyPilot, which needs an older click than requirements.txt has.
[ -x .venv-skypilot/bin/python ] || "$python" -m venv .venv-skypilot
.venv-skypilot/bin/python -m pip install --quiet --disable-pip-version-check skypilot==0.14.1
# The tests open the report in a browser.
if ! command -v "${CHROMIUM:-chromium}" chromium-browser google-chrome >/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: the tests open the report in Chromium, which is missing: install it" \
      "(sudo apt-get install chromium), or name the program in CHROMIUM" >&2
    exit 1
  fi
  echo "installing Chromium ..."
  apt-get update -qq
  apt-get install -qq --no-install-recommends chromium >/dev/null
fi
# The tests open the page that export writes, which needs onnxruntime-web.
if [ -z "${ONNXRUNTIME_WEB:-}" ] && [ ! -d node_modules/onnxruntime-web ]; then
  if ! command -v npm >/dev/null; then
    echo "error: the tests need the npm package onnxruntime-web: install npm, or name the package's folder in" \
      "ONNXRUNTIME_WEB" >&2
    exit 1
  fi
  npm install --no-save --no-package-lock --ignore-scripts --silent onnxruntime-web@1.30.0
fi

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# One process per core. The tests of a file stay together, since they share slow fixtures. The order of
# the files is that of tests/conftest.py.
exec .venv/bin/python -m pytest --numprocesses=logical --dist=loadfile --no-loadscope-reorder "$@"
