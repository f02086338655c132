#!/usr/bin/env bash
# Starts several processes on this machine that train one network together.
#
#   bash launch/local.sh --processes=2 --devices=4 --config=configs/cub.py --workdir=runs/cub
#   bash launch/local.sh --gpus --config=configs/cub.py --workdir=runs/cub
#
# All arguments but these go to python -m fgr_jax.main, which needs --config:
#   --processes=N     how many processes (default: 2; with --gpus, one for each GPU of this machine)
#   --devices=M       virtual CPU devices of each process (default: 1)
#   --gpus            one GPU for each process, in the order of nvidia-smi
#   --port=PORT       of process 0, where the others meet it (default: a free one)
#   --restart         run again while all processes saved and asked for it (status 143), unless this
#                     script itself was told to stop
#   --grace=SECONDS   if one process fails, how long the others have to end by themselves (default: 10)
#   --poll-seconds=S  how often to look at the processes (default: 0.2)
#   --dry-run         only print the commands, one a line
#
# One process with all devices is faster on one machine: python -m fgr_jax.main. This is for trying out
# what happens on several. PYTHON names another interpreter than .venv/bin/python or python3.
#
# Every line of output of process 1 and later begins with [1], [2], ...; process 0 has the terminal.
# Ctrl-C or SIGTERM is handed on to every process: they save and end. Once more stops them at once.
# Exit status: 0 finished; 143 saved, run me again; else that of the process that failed first.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
source "$root/launch/common.sh"

options=(--processes --devices --gpus --port --restart --grace --poll-seconds --dry-run --help --config
  --workdir --join_timeout)
processes="" devices="" gpus=no port="" restart=no grace=10 poll_seconds=0.2
training=()
for argument in "$@"; do
  case $argument in
    --help | -h) usage "$0" && exit 0 ;;
    --processes=*) processes=${argument#*=} ;;
    --devices=*) devices=${argument#*=} ;;
    --gpus) gpus=yes ;;
    --port=*) port=${argument#*=} ;;
    --restart) restart=yes ;;
    --grace=*) grace=${argument#*=} ;;
    --poll-seconds=*) poll_seconds=${argument#*=} ;;
    --dry-run) dry_run=yes ;;
    --config=* | --config.* | --noconfig.* | --workdir=* | --join_timeout=*)
      training+=("$argument")
      ;;
    --coordinator* | --process_count* | --process_id* | --distributed)
      fail "${argument%%=*}: is set by this script, for every process; leave it out"
      ;;
    *) unknown_option "$argument" "${options[@]}" ;;
  esac
done
case " ${training[*]+"${training[*]}"}" in
  *" --config="*) ;;
  *) fail "no config: name one, as in --config=configs/quickstart.py" ;;
esac
[ "$gpus" = no ] || [ -z "$devices" ] || fail "--devices=$devices: is for CPUs; with --gpus every \
process has one GPU: leave out one of the two"
if [ -z "$processes" ]; then
  processes=2
  if [ "$gpus" = yes ] && [ "$dry_run" = no ]; then
    command -v nvidia-smi >/dev/null || fail "--gpus: no nvidia-smi here, so the GPUs cannot be \
counted: say how many with --processes=N"
    processes=$(nvidia-smi --list-gpus | wc -l | tr -d ' ')
  elif [ "$gpus" = yes ]; then
    fail "--gpus --dry-run: say how many with --processes=N, since a dry run asks no nvidia-smi"
  fi
fi
whole_number --processes "$processes" 1
whole_number --devices "${devices:-1}" 1
seconds --grace "$grace"
seconds --poll-seconds "$poll_seconds"
[ -z "$port" ] || whole_number --port "$port" 1

python=${PYTHON:-}
if [ -z "$python" ]; then
  python=python3
  [ ! -x "$root/.venv/bin/python" ] || python=$root/.venv/bin/python
fi

free_port() {
  "$python" -c 'import socket
with socket.socket() as free:
    free.bind(("localhost", 0))
    print(free.getsockname()[1])'
}

# The words that start process $1 for the meeting place at port $2.
words_of() {
  words=(env)
  if [ "$gpus" = yes ]; then
    words+=("CUDA_VISIBLE_DEVICES=$1")
  else
    words+=(JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=${devices:-1}")
  fi
  words+=("PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -m fgr_jax.main)
  words+=("--coordinator=localhost:$2" "--process_count=$processes" "--process_id=$1")
  words+=("${training[@]}")
}

if [ "$dry_run" = yes ]; then
  for ((index = 0; index < processes; index++)); do
    words_of "$index" "${port:-PORT}"
    shell_words "${words[@]}"
  done
  exit 0
fi

told_to_stop=no
pids=()
hand_on() {
  told_to_stop=yes
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do
    kill "-$1" "$pid" 2>/dev/null || true
  done
}
trap 'hand_on INT' INT
trap 'hand_on TERM' TERM
# Whatever happens to this script, no process is left behind with the port and the GPUs.
trap 'for pid in ${pids[@]+"${pids[@]}"}; do kill -KILL -- "-$pid" 2>/dev/null || true; done' EXIT

start_all() {
  local index where=${port:-$(free_port)}
  pids=()
  # Job control gives every process a group of its own: Ctrl-C at the terminal reaches this script
  # alone, which hands it on once. Without it, bash would start them with Ctrl-C ignored.
  set -m
  for ((index = 0; index < processes; index++)); do
    words_of "$index" "$where"
    if [ "$index" = 0 ]; then
      "${words[@]}" </dev/null &
    else
      # The reader of the output must outlive the Ctrl-C that its writer is saving after.
      "${words[@]}" </dev/null > >(trap '' INT TERM && exec awk -v n="[$index] " '{ print n $0; fflush() }') \
        2>&1 &
    fi
    pids+=($!)
  done
  set +m
  # A signal that came while they were being started.
  [ "$told_to_stop" = no ] || hand_on TERM
}

# Waits for all; sets `outcome`, to the status of the one that failed first, 143 or 0.
wait_for_all() {
  local index pid status running saved=no deadline="" failed=""
  local ended=()
  outcome=0
  while :; do
    running=0
    for ((index = 0; index < processes; index++)); do
      [ -z "${ended[index]:-}" ] || continue
      pid=${pids[index]}
      if kill -0 "$pid" 2>/dev/null; then
        running=$((running + 1))
        continue
      fi
      status=0
      wait "$pid" 2>/dev/null || status=$?
      ended[index]=$status
      case $status in
        0) ;;
        130 | 143) saved=yes ;; # 130: one process alone, after Ctrl-C
        *)
          if [ -z "$failed" ]; then
            failed=$index outcome=$status
            say "error: process $index ended with status $status; the others have $grace s to end"
            deadline=$(awk -v grace="$grace" -v each="$poll_seconds" 'BEGIN { print int(grace / each) + 1 }')
            [ "$told_to_stop" = yes ] || for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
          else
            say "error: process $index ended with status $status"
          fi
          ;;
      esac
    done
    [ "$running" -gt 0 ] || break
    if [ -n "$deadline" ]; then
      if [ "$deadline" -le 0 ]; then
        # Their group: the worker processes that read pictures must go too.
        for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
      fi
      deadline=$((deadline - 1))
    fi
    sleep "$poll_seconds" || true # Ctrl-C ends the sleep too
  done
  pids=()
  if [ -z "$failed" ] && [ "$saved" = yes ]; then outcome=143; fi
}

while :; do
  start_all
  wait_for_all
  [ "$outcome" = 143 ] && [ "$restart" = yes ] && [ "$told_to_stop" = no ] || break
  say "all processes saved; running again"
done
exit "$outcome"
