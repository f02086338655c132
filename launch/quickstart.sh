#!/usr/bin/env bash
# Trains a network on photographs of solar cells and prints the results.
#
# Makes a virtual environment in .venv, installs what is needed, and trains. With two CPU cores it
# takes at most ten minutes after the installation. Run again, it resumes where it was stopped.
# Arguments go to the training: ./launch/quickstart.sh --config.duration="2 epochs" --workdir=runs/short
set -euo pipefail
cd "$(dirname "$0")/.."

source launch/virtual_environment.sh
install -r requirements.txt elpv-dataset==1.0.0.post1

echo "The images are those of the package elpv-dataset, licensed under CC BY-NC-SA 4.0:"
echo "they may be used and passed on for non-commercial purposes, with attribution."
exec .venv/bin/python -m fgr_jax.main --config=configs/quickstart.py "$@"
