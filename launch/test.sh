#!/usr/bin/env bash
# Installs what the tests need into .venv and runs them all: linter, formatter, types, tests.
# Arguments go to pytest: ./launch/test.sh tests/test_losses.py
set -euo pipefail
cd "$(dirname "$0")/.."

source launch/virtual_environment.sh
install -r requirements.txt --editable '.[test]'
# The tests let SkyPilot read launch/sky_*.yaml. It needs an older click than requirements.txt has.
[ -x .venv-skypilot/bin/python ] || "$python" -m venv .venv-skypilot
.venv-skypilot/bin/python -m pip install --quiet --disable-pip-version-check skypilot==0.14.1
# The report is looked at in a browser.
if ! command -v "${CHROMIUM:-chromium}" chromium-browser google-chrome >/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: no Chromium, in which the tests look at the report: install it" \
      "(sudo apt-get install chromium), or name a browser of its kind in CHROMIUM" >&2
    exit 1
  fi
  echo "installing Chromium ..."
  apt-get update -qq
  apt-get install -qq --no-install-recommends chromium >/dev/null
fi

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# A process for each core; the tests of a file stay together, for they share what took long to make.
exec .venv/bin/python -m pytest --numprocesses=logical --dist=loadfile "$@"
