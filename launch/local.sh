#!/usr/bin/env bash
# Trains one network in several processes on this machine's CPUs, to try out multi-process runs.
#
#   launch/local.sh --processes=2 --devices=4 --config=configs/cub.py --workdir=runs/cub
#
#   --processes=N   number of processes (default: 2)
#   --devices=M     number of virtual CPU devices of each process (default: 1)
#
# All other arguments go to python -m fgr_jax.main. Ctrl-C and SIGTERM are passed on to every process.
# Exit status: 0 if finished, 143 if saved, otherwise that of the first process that failed.
# PYTHON names another interpreter than .venv/bin/python or python3.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
PATH=$root/.venv/bin:$PATH
python=${PYTHON:-python3}
processes=2 devices=1 arguments=()
for argument in "$@"; do
  case $argument in
    --processes=*) processes=${argument#*=} ;;
    --devices=*) devices=${argument#*=} ;;
    *) arguments+=("$argument") ;;
  esac
done
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')

pids=()
signal_all() { kill "-$1" -- ${pids[@]+"${pids[@]}"} 2>/dev/null || true; }
trap 'pids=(${pids[@]+"${pids[@]/#/-}"}); signal_all KILL' EXIT # whole groups, including child processes

export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="$devices" PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
set -m # every process leads a group of its own, so that Ctrl-C reaches it once, through this script
for ((index = 0; index < processes; index++)); do
  "$python" -m fgr_jax.main --coordinator="localhost:$port" --process_count="$processes" \
    --process_id="$index" ${arguments[@]+"${arguments[@]}"} </dev/null &
  pids+=($!)
done
set +m
trap 'signal_all INT' INT
trap 'signal_all TERM' TERM

saved=0 failed="" deadline=""
while [ ${#pids[@]} -gt 0 ]; do
  for index in "${!pids[@]}"; do
    kill -0 "${pids[index]}" 2>/dev/null && continue
    status=0
    wait "${pids[index]}" 2>/dev/null || status=$?
    unset "pids[index]"
    case $status in
      0) continue ;;
      130 | 143) saved=143 && continue ;; # 130: a single process, after Ctrl-C
    esac
    echo "error: process $index ended with status $status" >&2
    [ -z "$failed" ] || continue
    failed=$status deadline=$((SECONDS + 10)) # seconds that the others have to end
    signal_all TERM
  done
  if [ -n "$failed" ] && [ "$SECONDS" -ge "$deadline" ]; then break; fi
  sleep 0.2 || true
done
exit "${failed:-$saved}"
