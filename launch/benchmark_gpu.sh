#!/usr/bin/env bash
# Prints what a GPU does with ResNet-50 at 448×448 pixels, in ten minutes or less.
#
# Each part has a time limit of its own, and one that fails or takes too long does not keep the others from
# running. Arguments are passed on to each: ./launch/benchmark_gpu.sh --config.data.crop=224
# PYTHON names the interpreter (default: python). PyTorch is compared with if it is installed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python}
failed=0

run() { # SECONDS ARGUMENT ...
  local limit=$1
  shift
  echo
  echo "\$ python -m fgr_jax.benchmark --config=configs/cub.py $*"
  timeout "$limit" "$python" -m fgr_jax.benchmark --config=configs/cub.py "$@" || {
    echo "(ended with status $?)"
    failed=1
  }
}

"$python" -c 'import jax; print("jax", jax.__version__, jax.devices())' || exit 1
nvidia-smi --query-gpu=name,driver_version,power.limit --format=csv 2>/dev/null
for batch in 16 64 256; do
  run 60 --part=step --rounds=10 --config.network.compute_dtype=bfloat16 --config.batch_size=$batch "$@"
done
run 60 --part=step --rounds=10 --config.batch_size=64 "$@"
if "$python" -c 'import torch' 2>/dev/null; then
  for dtype in bfloat16 float32; do
    run 75 --part=pytorch --rounds=10 --config.network.compute_dtype=$dtype --config.batch_size=64 "$@"
  done
fi
run 60 --part=determinism --rounds=5 "$@"
run 60 --part=layers --rounds=5 --config.network.compute_dtype=bfloat16 --config.batch_size=64 "$@"
run 45 --part=input --rounds=3 --pictures=1024 "$@"
run 45 --part=predict --rounds=3 --pictures=256 "$@"
exit $failed
