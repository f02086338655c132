#!/usr/bin/env bash
# Installs what the tests need into .venv and runs them all: linter, formatter, types, tests.
# Arguments go to pytest: ./launch/test.sh tests/test_losses.py
set -euo pipefail
cd "$(dirname "$0")/.."

source launch/virtual_environment.sh
install -r requirements.txt --editable '.[test]'

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# A process for each core; the tests of a file stay together, for they share what took long to make.
exec .venv/bin/python -m pytest --numprocesses=logical --dist=loadfile "$@"
