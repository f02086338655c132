# To be sourced in the root of the project: creates .venv and defines `install`.
# PYTHON names another interpreter than python3.

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: $python is $("$python" --version 2>&1), and Python 3.11 or newer is needed:" \
    "name one in PYTHON, as in PYTHON=python3.12 $0" >&2
  exit 1
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv

install() {
  echo "installing into .venv ..."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
}
