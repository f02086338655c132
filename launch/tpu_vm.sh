#!/usr/bin/env bash
# Trains on Cloud TPU VMs, from a laptop with gcloud.
#
#   bash launch/tpu_vm.sh run --type=v5litepod-16 --zone=us-west4-a --spot --delete-after \
#     --data=gs://BUCKET/tfds --config=configs/cub.py --workdir=gs://BUCKET/runs/cub
#
# `run` does all of the following in this order and watches. After a preemption it makes new machines and
# goes on, until the run is finished. Close the laptop or press Ctrl-C: training goes on; the same command
# comes back to it. Each step can be made alone:
#
#   create   makes the machines: on demand, or with --spot, or by waiting in a queue with --queued
#   setup    copies the files that git tracks here to every worker, and installs what is needed there
#   data     puts the data set on every worker's disk
#   train    starts training on every worker and returns
#   follow   shows what worker 0 prints, until training ends
#   status   says what the machines and the workers do
#   fetch    copies the workdir into a folder here
#   delete   deletes the machines, and with that ends what they cost
#
# Which machines (all commands):
#   --name=NAME            what they are called (default: fgr-jax)
#   --zone=ZONE            where, as us-west4-a; needed
#   --project=PROJECT      the Google Cloud project (default: gcloud's own)
#   --queued               they are, or are to be, got through a queued resource of the same name
#   --dry-run              only print the commands, one a line
# create, run:
#   --type=TYPE            accelerator type, as v5litepod-8, v6e-16, v4-32; needed
#   --runtime-version=V    (default: the one for JAX on that type)
#   --spot                 much cheaper, and taken away when somebody pays more
#   --poll-seconds=S       how often to look (default: 30)
# data, train, run:
#   --config=FILE --config.FIELD=VALUE ...   as for python -m fgr_jax.main; needed
#   --data=gs://BUCKET/FOLDER   (data, run) prepared data sets, copied to the workers' disks; without it
#                          every worker runs python -m fgr_jax.prepare
#   --source=PATH          (data, run) for python -m fgr_jax.prepare; may be repeated
#   --workdir=DIR          (train, fetch, run) needed; gs://BUCKET/FOLDER outlives the machines, anything
#                          else is a folder of worker 0, and is for machines with one worker
#   --join_timeout=S       (train, run) as for python -m fgr_jax.main
# follow:
#   --all                  all workers, each line with the worker's number
# fetch, run:
#   --output=FOLDER        where the workdir goes (default: runs)
# run:
#   --delete-after         deletes the machines when the run is finished; a workdir on them is fetched first
#   --capacity-tries=N --capacity-wait=S   how often to ask where there is no room, and how long to wait
#                          in between (default: 20, 60)
#   --max-restarts=N       how often to begin again after preemptions (default: 100)
#
# An SSH key with a passphrase must be in the agent: ssh-add ~/.ssh/google_compute_engine
# Exit status: 0 finished; 130 after Ctrl-C; 1 an error; else that of the worker that failed.
set -euo pipefail
called_in=$PWD
cd "$(dirname "$0")/.."
source launch/common.sh

folder=fgr_jax_launch # in the home folder of every worker; letters that need no quoting

name=fgr-jax zone="" project="" type="" runtime_version="" spot=no queued=no
data="" workdir="" output=runs all=no delete_after=no
poll_seconds=30 capacity_tries=20 capacity_wait=60 max_restarts=100
config_file="" data_dir=""
config=() sources=() join_timeout=()

read_options() {
  local known argument
  known=(--name --zone --project --dry-run --help)
  case $command in
    create) known+=(--queued --type --runtime-version --spot --poll-seconds) ;;
    setup) ;;
    data) known+=(--config --data --source) ;;
    train) known+=(--config --workdir --join_timeout) ;;
    follow) known+=(--all) ;;
    status | delete) known+=(--queued) ;;
    fetch) known+=(--workdir --output) ;;
    run)
      known+=(--queued --type --runtime-version --spot --poll-seconds --config --data --source --workdir)
      known+=(--join_timeout --output --delete-after --capacity-tries --capacity-wait --max-restarts)
      ;;
  esac
  for argument in "$@"; do
    must_be_known "$argument" "${known[@]}"
    case $argument in
      --help | -h) usage "launch/tpu_vm.sh" && exit 0 ;;
      --dry-run) dry_run=yes ;;
      --spot) spot=yes ;;
      --queued) queued=yes ;;
      --all) all=yes ;;
      --delete-after) delete_after=yes ;;
      --config.* | --noconfig.*)
        config+=("$argument")
        case $argument in --config.data.data_dir=*) data_dir=${argument#*=} ;; esac
        ;;
      --*=*) ;;
      *) fail "$argument: needs a value, as $argument=VALUE" ;;
    esac
    case $argument in
      --name=*) name=${argument#*=} ;;
      --zone=*) zone=${argument#*=} ;;
      --project=*) project=${argument#*=} ;;
      --type=*) type=${argument#*=} ;;
      --runtime-version=*) runtime_version=${argument#*=} ;;
      --poll-seconds=*) poll_seconds=${argument#*=} ;;
      --config=*)
        config+=("$argument")
        config_file=${argument#*=}
        config_file=${config_file%%:*}
        ;;
      --data=*) data=${argument#*=} ;;
      --source=*) sources+=("$argument") ;;
      --workdir=*) workdir=${argument#*=} ;;
      --join_timeout=*) join_timeout=("$argument") ;;
      --output=*) output=${argument#*=} ;;
      --capacity-tries=*) capacity_tries=${argument#*=} ;;
      --capacity-wait=*) capacity_wait=${argument#*=} ;;
      --max-restarts=*) max_restarts=${argument#*=} ;;
    esac
  done
}

# Everything that can be known to be wrong is said before anything is made.
check_options() {
  [ -n "$zone" ] || fail "no zone: name one, as in --zone=us-west4-a; gcloud compute tpus locations list"
  [[ $name =~ ^[a-z]([a-z0-9-]{0,60}[a-z0-9])?$ ]] || fail "--name=$name: must be lower-case letters, \
digits and hyphens, and begin with a letter"
  seconds --poll-seconds "$poll_seconds"
  seconds --capacity-wait "$capacity_wait"
  whole_number --capacity-tries "$capacity_tries" 1
  whole_number --max-restarts "$max_restarts" 0
  case $command in
    create | run) check_type ;;
  esac
  case $command in
    data | train | run) check_config ;;
  esac
  case $data in
    "" | gs://?*) ;;
    *) fail "--data=$data: must be gs://BUCKET/FOLDER; a folder here does not reach the workers" ;;
  esac
  [ -z "$data" ] || [ ${#sources[@]} = 0 ] || fail "--data=$data: is prepared already; leave out --source"
  case $data/$data_dir in
    gs://*/gs://*) fail "--data=$data: leave it out; --config.data.data_dir=$data_dir is copied by the run" ;;
  esac
  case $command in
    train | fetch | run)
      [ -n "$workdir" ] || fail "no workdir: name one, as in --workdir=gs://BUCKET/runs/NAME"
      ;;
  esac
  if [ "$command" = run ]; then
    case $workdir in
      gs://*) ;;
      *)
        [ "$spot" = no ] || fail "--workdir=$workdir: is lost when spot machines are taken away: name a \
folder in a bucket, --workdir=gs://BUCKET/FOLDER, or leave out --spot"
        [ "$(host_count)" = 1 ] || [ "${workdir:0:1}" = / ] || fail "--workdir=$workdir: $type has \
$(host_count) workers, and all must see the workdir: name a folder in a bucket, --workdir=gs://BUCKET/FOLDER"
        ;;
    esac
  fi
  case $output in
    /*) ;;
    *) output=$called_in/$output ;;
  esac
  if [ "$dry_run" = no ]; then
    command -v gcloud >/dev/null || fail "gcloud: is not installed here; see \
https://cloud.google.com/sdk/docs/install, then: gcloud auth login"
  fi
}

check_config() {
  [ -n "$config_file" ] || fail "no config: name one, as in --config=configs/cub.py"
  [ -f "$config_file" ] || fail "--config=$config_file: no such file in $PWD"
  git ls-files --error-unmatch -- "$config_file" >/dev/null 2>&1 || fail "--config=$config_file: git \
does not track it, and only what git tracks is copied to the workers: git add $config_file"
}

check_type() {
  [ -n "$type" ] || fail "no type: name one, as in --type=v5litepod-8; \
gcloud compute tpus accelerator-types list --zone=$zone"
  [[ $type =~ ^[a-z0-9]+-[0-9]+$ ]] || fail "--type=$type: is no accelerator type such as v5litepod-8 or v4-32"
  [ -z "$runtime_version" ] || return 0
  case $type in
    v2-* | v3-* | v4-*) runtime_version=tpu-ubuntu2204-base ;;
    v5litepod-*) runtime_version=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime_version=v2-alpha-tpuv5 ;;
    v6e-*) runtime_version=v2-alpha-tpuv6e ;;
    *) fail "--type=$type: give --runtime-version too, this script knows those of v2 to v6e; \
gcloud compute tpus tpu-vm versions list --zone=$zone" ;;
  esac
}

# Types of v2 to v5p count cores, two a chip; v5litepod and v6e count chips.
chip_count() {
  case $type in
    v5litepod-* | v6e-*) echo "${type##*-}" ;;
    *) echo $(((${type##*-} + 1) / 2)) ;;
  esac
}

host_count() {
  local chips
  chips=$(chip_count)
  case $type in
    v5litepod-* | v6e-*) [ "$chips" -gt 8 ] || chips=4 ;; # up to eight chips are one host
  esac
  echo $(((chips + 3) / 4))
}

where=()
set_where() {
  where=("--zone=$zone" --quiet)
  [ -z "$project" ] || where+=("--project=$project")
}

delete_command() {
  local words=(bash launch/tpu_vm.sh delete "--name=$name" "--zone=$zone")
  [ -z "$project" ] || words+=("--project=$project")
  [ "$queued" = no ] || words+=(--queued)
  shell_words "${words[@]}"
}

say_cost() {
  local about less=""
  about=$(cost_of "$(chip_price "$type")" "$(chip_count)")
  [ "$spot" = no ] || less="; spot usually less than half of that"
  say "$name ($type) costs $about$less, until: $(delete_command)"
}

# --- gcloud ---

error_file() { echo "$scratch/errors"; }

# What went wrong, in one line with the way out. 75: there is no room now, later there may be.
explain() { # WHAT
  local text
  text=$(grep -v '^ *$' "$(error_file)" | tr '\n' ' ' | cut -c 1-400)
  case $text in
    *[Qq]uota*)
      say "error: $1: your project's quota does not allow it in $zone: ask for more (console, IAM, quotas, \
TPU), or take another --zone or --type; spot and queued machines have quotas of their own ($text)"
      return 1
      ;;
    *"no more capacity"* | *"nsufficient"*"capacity"* | *RESOURCE_EXHAUSTED* | *STOCKOUT* | *"enough resources"*)
      say "error: $1: $zone has no room for $type now: take another --zone, --spot, or wait in the queue \
with --queued ($text)"
      return 75
      ;;
    *"already exists"* | *ALREADY_EXISTS*)
      say "error: $1: --name=$name is taken in $zone: use it (setup, train), take another --name, or: \
$(delete_command)"
      return 1
      ;;
    *NOT_FOUND* | *"not found"*)
      say "error: $1: there is no $name in $zone: make it with create, or look at --name, --zone and \
--project ($text)"
      return 1
      ;;
    *) say "error: $1: gcloud said: ${text:-nothing}" && return 1 ;;
  esac
}

# Runs gcloud, its standard error kept for `explain`.
gcloud_quietly() { gcloud "$@" </dev/null 2>"$(error_file)"; }

on_workers() { # WORKERS COMMAND
  gcloud_quietly compute tpus tpu-vm ssh "$name" "--worker=$1" "--command=$2" "${where[@]}"
}

# A step on all workers, printed in a dry run.
step_on_workers() { # WHAT COMMAND
  if [ "$dry_run" = yes ]; then
    perform gcloud compute tpus tpu-vm ssh "$name" --worker=all "--command=$2" "${where[@]}"
    return
  fi
  say "$1 ..."
  on_workers all "$2" || { # what a worker's own program said comes from there as well
    tail -n 20 "$(error_file)" >&2
    say "error: $1: did not work on every worker of $name; the lines above say where and why"
    return 1
  }
}

# READY, WAITING (for a queue), GONE, UNKNOWN (gcloud does not say) or another of gcloud's states.
machine_state() {
  local state
  if [ "$queued" = yes ]; then
    if ! state=$(gcloud_quietly compute tpus queued-resources describe "$name" "${where[@]}" \
      '--format=value(state.state)'); then
      missing_or_unknown
      return
    fi
    case $state in
      ACTIVE) ;;
      SUSPENDED | SUSPENDING | FAILED | DELETING) echo "$state" && return ;;
      *) echo WAITING && return ;;
    esac
  fi
  if state=$(gcloud_quietly compute tpus tpu-vm describe "$name" "${where[@]}" '--format=value(state)'); then
    echo "${state:-UNKNOWN}"
  else
    missing_or_unknown
  fi
}

missing_or_unknown() {
  if grep -qi 'not_found\|not found' "$(error_file)"; then echo GONE; else echo UNKNOWN; fi
}

is_lost() {
  case $1 in
    GONE | PREEMPTED | TERMINATED | STOPPED | STOPPING | DELETING | SUSPENDED | SUSPENDING | FAILED) return 0 ;;
  esac
  return 1
}

# --- the steps; each returns a status ---

create() {
  local words=() status=0
  if [ "$queued" = yes ]; then
    words=(gcloud compute tpus queued-resources create "$name" "--node-id=$name")
    words+=("--accelerator-type=$type" "--runtime-version=$runtime_version")
  else
    words=(gcloud compute tpus tpu-vm create "$name")
    words+=("--accelerator-type=$type" "--version=$runtime_version")
  fi
  [ "$spot" = no ] || words+=(--spot)
  words+=("${where[@]}")
  if [ "$dry_run" = yes ]; then
    shell_words "${words[@]}"
    return
  fi
  say "creating $name ($type) in $zone ..."
  phase=creating
  "${words[@]}" </dev/null >/dev/null 2>"$(error_file)" || {
    explain "create" || status=$?
    return "$status"
  }
  [ "$queued" = no ] || wait_until_ready
}

# Waiting in the queue costs nothing, so it has no limit but the user's patience.
wait_until_ready() {
  local state told=""
  while :; do
    state=$(machine_state)
    [ "$state" != READY ] || return 0
    if is_lost "$state"; then
      say "error: $name: is $state: $zone had no room for it in time, or the request was refused: another \
--zone or --type; the reason: gcloud compute tpus queued-resources describe $(shell_words "$name" "${where[@]}")"
      return 75
    fi
    [ "$state" = "$told" ] || say "$name: $state; looking every $poll_seconds s"
    told=$state
    sleep "$poll_seconds"
  done
}

setup() {
  local jax gcsfs archive=build/$name-code.tar.gz deleted pack unpack install
  jax=$(pinned_jax)
  gcsfs=$(pinned_gcsfs)
  deleted=$(git ls-files --deleted | tr '\n' ' ')
  [ -z "$deleted" ] || fail "${deleted% }: deleted here, but git still tracks it: git rm it, or bring it back"
  # What git tracks, with changes that are not committed: what is on the screen is what runs.
  pack="mkdir -p build && git ls-files -z | tar --null -T - -czf $archive"
  # The old code goes only when the new one is there.
  unpack="mkdir -p $folder && cd $folder && rm -rf new && mkdir new && tar -xzf ../$folder.tar.gz -C new"
  unpack+=" && rm -rf code && mv new code"
  # The machines' own Python is 3.10, where requirements.txt is for 3.11 and 3.12: uv brings another.
  # PIP_BREAK_SYSTEM_PACKAGES: newer systems let pip --user do nothing without it, older ones ignore it.
  install="[ -x venv/bin/python ] || { made=; for p in python3.12 python3.11; do if"
  install+=" \$p -c 'import ensurepip' 2>/dev/null; then \$p -m venv venv && made=yes && break; fi; done;"
  install+=" [ \"\$made\" ] || { PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv"
  install+=" && python3 -m uv venv --quiet --seed --python 3.12 venv; }; }"
  # gcsfs: for workdirs and data sets in buckets.
  install+=" && venv/bin/python -m pip install --quiet --disable-pip-version-check -r code/requirements.txt"
  install+=" 'jax[tpu]==$jax' $gcsfs"
  if [ "$dry_run" = yes ]; then
    echo "$pack"
  else
    bash -c "$pack" || { say "error: $archive: could not be written" && return 1; }
    say "copying the code to all workers ..."
  fi
  if [ "$dry_run" = yes ]; then
    perform gcloud compute tpus tpu-vm scp "$archive" "$name:$folder.tar.gz" --worker=all "${where[@]}"
  else
    gcloud_quietly compute tpus tpu-vm scp "$archive" "$name:$folder.tar.gz" --worker=all "${where[@]}" \
      >/dev/null || {
      explain "setup" || true
      return 1
    }
  fi
  step_on_workers "installing on all workers" "$unpack && $install"
}

# The data folder as the worker's shell reads it: what --config.data.data_dir says, or one of ours.
remote_data_dir() {
  if [ -n "$data_dir" ]; then shell_words "$data_dir"; else echo "\"\$HOME\"/$folder/data"; fi
}

remote_config() {
  shell_words "${config[@]}"
  [ -n "$data_dir" ] || echo "--config.data.data_dir=$(remote_data_dir)"
}

put_data() {
  local target remote
  target=$(remote_data_dir)
  case $data_dir in
    gs://*)
      say "data: --config.data.data_dir=$data_dir is copied by the run itself; nothing to do"
      return
      ;;
  esac
  if [ -n "$data" ]; then
    # Copied, not mounted: pictures are read in random order, thousands a second, and gcsfuse would ask
    # the bucket for each. Disks are small (100 GB), so look first. `have`: what an earlier copy brought.
    remote="set -e; mkdir -p $target; need=\$(gcloud storage du --summarize $(shell_words "$data") | awk '{ printf \"%.0f\", \$1 / 1024 }');"
    remote+=" [ \"\$need\" ] || { echo \"error: $(shell_words "$data") cannot be read by this machine\" >&2; exit 1; };"
    remote+=" have=\$(du -sk $target | awk '{ print \$1 }'); free=\$(df -Pk $target | awk 'NR == 2 { print \$4 }');"
    remote+=" if [ \"\$((need - have))\" -gt \"\$free\" ]; then"
    remote+=" echo \"error: the data needs \$((need / 1048576)) GB and the disk has \$((free / 1048576)) GB left:"
    remote+=" attach a larger disk, or name another folder, as in --config.data.data_dir=/dev/shm/data\" >&2; exit 1; fi;"
    remote+=" gcloud storage rsync --recursive $(shell_words "$data") $target"
    step_on_workers "copying the data to all workers" "$remote"
  else
    remote="cd $folder/code && ../venv/bin/python -m fgr_jax.prepare $(remote_config | tr '\n' ' ')"
    remote+=$(shell_words ${sources[@]+"${sources[@]}"})
    step_on_workers "preparing the data on all workers" "${remote% }"
  fi
}

remote_workdir() {
  case $workdir in
    gs://* | /*) shell_words "$workdir" ;;
    *) echo "\"\$HOME\"/$folder/$(shell_words "$workdir")" ;; # beside the code, which setup replaces
  esac
}

train() {
  local inner remote
  # setsid and nohup: so that training outlives the connection. The exit status is left in a file, whole or
  # not at all, with the time: the first worker that failed is the one to look at. `trap : TERM`: when the
  # machine is taken away, this shell must not die before the run has saved.
  inner="trap : TERM; cd \"\$HOME\"/$folder/code && ../venv/bin/python -m fgr_jax.main --distributed"
  inner+=" $(remote_config | tr '\n' ' ')--workdir=$(remote_workdir)"
  [ ${#join_timeout[@]} = 0 ] || inner+=" $(shell_words "${join_timeout[@]}")"
  inner+="; echo \"\$? \$(date +%s%N)\" > ../status.new; mv ../status.new ../status"
  remote="cd $folder || exit 1; if [ ! -f status ] && kill -0 \"\$(cat pid 2>/dev/null)\" 2>/dev/null; then"
  remote+=" echo \"error: a run is going on here already: wait for it (follow), or delete the machines\" >&2; exit 1; fi;"
  remote+=" curl -sf -H 'Metadata-Flavor: Google' http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number > worker ||"
  remote+=" { echo \"error: the machine does not know which worker it is\" >&2; exit 1; };"
  remote+=" rm -f status; setsid nohup bash -c $(shell_words "$inner") >> log.txt 2>&1 < /dev/null & echo \$! > pid"
  step_on_workers "starting training on all workers" "$remote"
}

# One line a worker: "worker NUMBER running", "worker NUMBER STATUS TIME", or "worker NUMBER vanished". The
# status is looked for twice: it may come while the first look finds none and the second no process.
report_command() {
  local status_or="if [ -f status ]; then echo \"worker \$n \$(cat status)\"; el"
  echo "cd $folder && n=\$(cat worker) && ${status_or}if kill -0 \"\$(cat pid)\" 2>/dev/null; then" \
    "echo \"worker \$n running\"; else ${status_or}se echo \"worker \$n vanished\"; fi; fi"
}

follow() {
  local remote workers=0
  remote="tail -n 100 --pid=\"\$(cat $folder/pid)\" -F $folder/log.txt"
  if [ "$all" = yes ]; then
    workers=all
    remote+=" | sed -u \"s/^/worker \$(cat $folder/worker): /\""
  fi
  if [ "$dry_run" = yes ]; then
    perform gcloud compute tpus tpu-vm ssh "$name" "--worker=$workers" "--command=$remote" "${where[@]}"
    return
  fi
  phase=training
  on_workers "$workers" "$remote" || {
    explain "follow" || true
    return 1
  }
  on_workers all "$(report_command)" | sort -k 2n >&2 || true
}

say_status() {
  local state
  if [ "$dry_run" = yes ]; then
    perform gcloud compute tpus tpu-vm describe "$name" "${where[@]}" '--format=value(state)'
    perform gcloud compute tpus tpu-vm ssh "$name" --worker=all "--command=$(report_command)" "${where[@]}"
    return
  fi
  state=$(machine_state)
  [ "$state" != UNKNOWN ] || { explain "status" || exit 1; }
  echo "$name: $state"
  [ "$state" = READY ] || return 0
  on_workers all "$(report_command)" >"$scratch/report" || say "not all workers have begun a run"
  sort -k 2n "$scratch/report"
  say "it costs money until: $(delete_command)"
}

fetch() {
  local words
  case $workdir in
    gs://*) words=(gcloud storage cp --recursive "$workdir" "$output") ;;
    *)
      words=(gcloud compute tpus tpu-vm scp --recurse)
      case $workdir in
        /*) words+=("$name:$workdir" "$output") ;;
        *) words+=("$name:$folder/$workdir" "$output") ;;
      esac
      words+=(--worker=0 "${where[@]}")
      ;;
  esac
  perform mkdir -p "$output"
  if [ "$dry_run" = yes ]; then
    shell_words "${words[@]}"
    return
  fi
  "${words[@]}" </dev/null 2>"$(error_file)" || {
    explain "fetch" || true
    return 1
  }
  say "fetched: $output/$(basename "$workdir")"
}

delete() {
  local words=(gcloud compute tpus tpu-vm delete "$name" "${where[@]}")
  # --force: with the machines that it holds.
  [ "$queued" = no ] || words=(gcloud compute tpus queued-resources delete "$name" --force "${where[@]}")
  if [ "$dry_run" = yes ]; then
    shell_words "${words[@]}"
    return
  fi
  say "deleting $name ..."
  "${words[@]}" </dev/null >/dev/null 2>"$(error_file)" || {
    explain "delete" || true
    return 1
  }
  say "deleted: $name costs nothing any more"
}

# --- run ---

# What worker 0 has printed since the last time.
show_log() {
  on_workers 0 "tail -c +$((shown + 1)) $folder/log.txt" >"$scratch/log" || return 0
  cat "$scratch/log"
  shown=$((shown + $(wc -c <"$scratch/log")))
}

# Sets `outcome`: finished, saved (status 143), lost (the machines) or failed.
watch() {
  local state report failures last_look=no unreached=0
  while :; do
    state=$(machine_state)
    if is_lost "$state"; then
      say "$name: $state"
      outcome=lost
      return
    fi
    if [ "$state" != READY ] || ! on_workers all "$(report_command)" >"$scratch/report"; then
      unreached=$((unreached + 1))
      # A laptop that slept, a machine under repair: wait for it, but not for ever.
      [ "$unreached" -lt 10 ] || fail "$name: state $state, and not all workers answered $unreached times \
in a row: training may go on there. The same command looks again; to end it: $(delete_command)"
      sleep "$poll_seconds"
      continue
    fi
    unreached=0
    report=$(grep '^worker ' "$scratch/report" || true)
    show_log
    failures=$(echo "$report" | awk '$3 != "running" && $3 != 0 && $3 != 143' | sort -k 4n)
    if [ -n "$failures" ]; then
      # When machines are taken away, the first one to go fails the others, before the state says so.
      if [ "$last_look" = yes ]; then
        outcome=failed
        say_failures "$failures"
        return
      fi
      last_look=yes
    elif ! echo "$report" | grep -q ' running$'; then
      outcome=finished
      ! echo "$report" | grep -q '^worker [0-9]* 143 ' || outcome=saved
      return
    fi
    sleep "$poll_seconds"
  done
}

say_failures() {
  local worker status first="" line
  while read -r _ worker status _; do
    say "error: worker $worker: ended with status $status"
    if [ -z "$first" ]; then
      first=$worker
      failed_status=$status
    fi
  done <<<"$1"
  say "the last lines of worker $first, which failed first:"
  on_workers "$first" "tail -n 20 $folder/log.txt" >"$scratch/log" || true
  while IFS= read -r line; do say "  $line"; done <"$scratch/log"
  # The others wait for it in vain, and can save nothing without it.
  on_workers all "kill -KILL -- -\"\$(cat $folder/pid)\" 2>/dev/null || true" >/dev/null || true
  [ "$failed_status" -gt 0 ] 2>/dev/null || failed_status=1 # vanished
}

create_with_patience() {
  local tries=1 status
  while :; do
    status=0
    create || status=$?
    [ "$status" != 0 ] || return 0
    [ "$status" = 75 ] || exit 1
    [ "$tries" -lt "$capacity_tries" ] || fail "$zone had no room for $type, asked $tries times: take \
another --zone, --spot or --queued"
    tries=$((tries + 1))
    say "asking again in $capacity_wait s (try $tries of $capacity_tries)"
    sleep "$capacity_wait"
    # What a failed request leaves behind would be in the way.
    [ "$(machine_state)" = GONE ] || delete || true
  done
}

# Brings the machines to training; returns 1 where they were lost on the way.
bring_up() {
  local state step fresh=no
  state=$(machine_state)
  case $state in
    UNKNOWN) explain "run" || exit 1 ;;
    READY) say "$name is there already; going on with it" ;;
    GONE) fresh=yes ;;
    *)
      if is_lost "$state"; then
        delete || exit 1
        fresh=yes
      else
        wait_until_ready || return 1
      fi
      ;;
  esac
  if [ "$fresh" = yes ]; then
    create_with_patience
    shown=0
    set_up=no
  fi
  phase=created
  # Come back to a run that goes on.
  if on_workers all "$(report_command)" >"$scratch/report" && grep -q ' running$' "$scratch/report"; then
    say "a run is going on there; watching it"
    phase=training
    return 0
  fi
  for step in setup put_data train; do
    [ "$step" = train ] || [ "$set_up" = no ] || continue
    if ! "$step"; then
      state=$(machine_state)
      is_lost "$state" || exit 1
      say "$name: $state"
      return 1
    fi
  done
  set_up=yes
  phase=training
}

run() {
  local restarts=0
  if [ "$dry_run" = yes ]; then
    create
    setup
    put_data
    train
    perform gcloud compute tpus tpu-vm ssh "$name" --worker=all "--command=$(report_command)" "${where[@]}"
    perform gcloud compute tpus tpu-vm ssh "$name" --worker=0 "--command=tail -c +1 $folder/log.txt" "${where[@]}"
    if [ "$delete_after" = yes ]; then
      case $workdir in gs://*) ;; *) fetch ;; esac
      delete
    fi
    return
  fi
  while :; do
    outcome=lost
    if bring_up; then watch; fi
    case $outcome in
      finished) break ;;
      failed)
        say "stopped, and the machines are kept for you to look at: $(delete_command)"
        exit "$failed_status"
        ;;
    esac
    case $outcome/$workdir in
      saved/* | lost/gs://*) ;;
      *) fail "$name: the machines are lost, and --workdir=$workdir with them" ;;
    esac
    [ "$restarts" -lt "$max_restarts" ] || fail "$name: begun again $restarts times, and not finished; \
the same command goes on (--max-restarts). To end what it costs: $(delete_command)"
    restarts=$((restarts + 1))
    say "going on from the last checkpoint (restart $restarts)"
    sleep "$poll_seconds" # a machine that is being taken away says so a little later
  done
  say "finished: $workdir"
  if [ "$delete_after" = yes ]; then
    case $workdir in gs://*) ;; *) fetch ;; esac
    delete
  else
    say "do not forget: $(delete_command)"
    say_cost
  fi
}

interrupted() {
  trap - INT
  case ${phase:-} in
    training) say "training goes on without this terminal; the same command comes back to it" ;;
    creating | created) say "stopped before training began; the machines may be there" ;;
    *) exit 130 ;;
  esac
  say "to end it, and what it costs: $(delete_command)"
  exit 130
}

commands="create setup data train follow status fetch delete run"
command=${1:-}
case $command in
  -h | --help) usage "launch/tpu_vm.sh" && exit 0 ;;
  "") fail "no command: one of $commands; --help says what they do" ;;
esac
case " $commands " in
  *" $command "*) shift ;;
  *) fail "$command: no such command; one of $commands" ;;
esac
read_options "$@"
check_options
set_where
outcome="" failed_status=1 phase="" shown=0 set_up=no
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap interrupted INT
case $command in
  create | run) say_cost ;;
esac
case $command in
  data) put_data ;;
  status) say_status ;;
  create) create || exit 1 ;;
  *) "$command" ;;
esac
