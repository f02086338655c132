#!/usr/bin/env bash
# Trains on a Kubernetes cluster (GKE), on a TPU slice or on nodes with GPUs.
#
#   bash launch/gke.sh apply --image=REGISTRY/fgr_jax --tpu=tpu-v6e-slice --topology=4x4 --hosts=4 --chips=4 \
#     --config=configs/cub.py --workdir=gs://BUCKET/runs/cub --config.data.data_dir=gs://BUCKET/tfds
#   bash launch/gke.sh apply --image=REGISTRY/fgr_jax --gpu=nvidia-h100-80gb --hosts=2 --chips=8 ...
#   bash launch/gke.sh follow
#   bash launch/gke.sh delete
#
#   apply    fills in launch/jobset.yaml and hands it to kubectl; after a preemption, or after status 143
#            ("saved, run me again"), the cluster starts all pods again, until the run is finished
#   follow   shows what process 0 prints
#   status   says what the pods do
#   delete   ends the run
#
# All commands:
#   --name=NAME             of the run (default: fgr-jax)
#   --namespace=NAMESPACE   (default: kubectl's)
#   --dry-run               only print the command; with apply, the manifest too, in a form to be pasted
# apply:
#   --image=IMAGE           needed; launch/Dockerfile says how to make it
#   --tpu=TYPE --topology=AxB   the node pool's, as tpu-v5-lite-podslice 4x4; or
#   --gpu=TYPE              the node pool's, as nvidia-h100-80gb or nvidia-l4
#   --hosts=N               how many nodes, one process on each (default: 1)
#   --chips=N               TPU chips or GPUs of each node; needed
#   --service-account=NAME  of the cluster, one that may read and write the bucket (default: default)
#   --config=FILE --config.FIELD=VALUE ... --join_timeout=S   as for python -m fgr_jax.main; config needed
#   --workdir=DIR           needed: gs://BUCKET/FOLDER, or an absolute path if you have added a volume to
#                           launch/jobset.yaml; the same for --config.data.data_dir
#
# It costs what its nodes cost, for as long as they are there, used or not: a node pool that scales down
# to nothing by itself is cheapest; else you must delete the pool too.
# Exit status: 0, or 1 after an error.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh

port=8476
name=fgr-jax namespace="" image="" tpu="" topology="" gpu="" hosts=1 chips="" service_account=default
workdir="" data_dir="" config_file=""
training=()

commands="apply follow status delete"
command=${1:-}
case $command in
  -h | --help) usage launch/gke.sh && exit 0 ;;
  "") fail "no command: one of $commands; --help says what they do" ;;
esac
case " $commands " in
  *" $command "*) shift ;;
  *) fail "$command: no such command; one of $commands" ;;
esac

known=(--name --namespace --dry-run --help)
if [ "$command" = apply ]; then
  known+=(--image --tpu --topology --gpu --hosts --chips --service-account --config --join_timeout --workdir)
fi
for argument in "$@"; do
  must_be_known "$argument" "${known[@]}"
  case $argument in
    --help | -h) usage launch/gke.sh && exit 0 ;;
    --dry-run) dry_run=yes ;;
    --name=*) name=${argument#*=} ;;
    --namespace=*) namespace=${argument#*=} ;;
    --image=*) image=${argument#*=} ;;
    --tpu=*) tpu=${argument#*=} ;;
    --topology=*) topology=${argument#*=} ;;
    --gpu=*) gpu=${argument#*=} ;;
    --hosts=*) hosts=${argument#*=} ;;
    --chips=*) chips=${argument#*=} ;;
    --service-account=*) service_account=${argument#*=} ;;
    --config=* | --config.* | --noconfig.* | --workdir=* | --join_timeout=*)
      training+=("$argument")
      case $argument in
        --workdir=*) workdir=${argument#*=} ;;
        --config=*) config_file=${argument#*=} ;;
        --config.data.data_dir=*) data_dir=${argument#*=} ;;
      esac
      ;;
    *) fail "$argument: needs a value, as $argument=VALUE" ;;
  esac
done

# Pods are called NAME-host-0-HOST-xxxxx, and a name has 63 characters at most.
[[ $name =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] || fail "--name=$name: must be lower-case letters, digits \
and hyphens, begin with a letter, and have 40 characters at most"
outlives_a_pod() { # OPTION VALUE
  case $2 in
    gs://?* | /*) ;;
    *) fail "$1=$2: is lost with its pod: name a folder in a bucket, $1=gs://BUCKET/FOLDER" ;;
  esac
}
if [ "$command" = apply ]; then
  [ -n "$image" ] || fail "no image: name one, as in --image=REGISTRY/fgr_jax; launch/Dockerfile says how to make it"
  [ -n "$config_file" ] || fail "no config: name one, as in --config=configs/cub.py"
  [ -n "$tpu$gpu" ] || fail "neither --tpu nor --gpu: name one, as in --tpu=tpu-v6e-slice or --gpu=nvidia-l4"
  [ -z "$tpu" ] || [ -z "$gpu" ] || fail "--tpu=$tpu and --gpu=$gpu: leave out one of the two"
  [ -z "$tpu" ] || [ -n "$topology" ] || fail "--tpu=$tpu: say the node pool's topology too, as in --topology=4x4"
  [ -z "$gpu" ] || [ -z "$topology" ] || fail "--topology=$topology: is for TPUs; leave it out with --gpu=$gpu"
  [ -n "$chips" ] || fail "no --chips: say how many TPU chips or GPUs a node has, as in --chips=4"
  whole_number --hosts "$hosts" 1
  whole_number --chips "$chips" 1
  outlives_a_pod --workdir "$workdir"
  outlives_a_pod --config.data.data_dir "$data_dir"
fi
[ "$dry_run" = yes ] || command -v kubectl >/dev/null || fail "kubectl: is not installed here: \
gcloud components install kubectl, then: gcloud container clusters get-credentials CLUSTER"

kube=(kubectl)
[ -z "$namespace" ] || kube+=("--namespace=$namespace")

# A string as JSON, which is YAML too.
json() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\t'/\\t}
  printf '"%s"' "$text"
}

# Kubernetes replaces $(NAME) in arguments, and reads $$ as $: what the user typed must arrive as it is.
arguments_as_json() {
  local argument listed="" dollar='$'
  if [ -n "$tpu" ]; then
    listed='"--distributed"' # GKE tells the pods of a slice about each other
  else
    # The pods' names are JobSet's: NAME-JOB-0-INDEX.NAME. JOB_COMPLETION_INDEX is set in every pod.
    listed=$(json "--coordinator=$name-host-0-0.$name:$port")
    listed+=", $(json "--process_count=$hosts"), $(json "--process_id=${dollar}(JOB_COMPLETION_INDEX)")"
  fi
  for argument in "${training[@]}"; do
    listed+=", $(json "${argument//$dollar/$dollar$dollar}")"
  done
  printf '[%s]' "$listed"
}

manifest() {
  local selector resources text
  if [ -n "$tpu" ]; then
    selector="{\"cloud.google.com/gke-tpu-accelerator\": $(json "$tpu"), \"cloud.google.com/gke-tpu-topology\": $(json "$topology")}"
    resources="{\"google.com/tpu\": $chips}"
  else
    selector="{\"cloud.google.com/gke-accelerator\": $(json "$gpu")}"
    resources="{\"nvidia.com/gpu\": $chips}"
  fi
  # awk, told through the environment: values may hold any character, and none is special there.
  text=$(FILL_JOBSET=$(json "$name") FILL_IMAGE=$(json "$image") FILL_HOSTS=$hosts \
    FILL_NODE_SELECTOR=$selector FILL_RESOURCES=$resources \
    FILL_SERVICE_ACCOUNT=$(json "$service_account") FILL_ARGUMENTS=$(arguments_as_json) awk '
      /^ *#/ { next }
      match($0, /__[A-Z_]+__$/) {
        name = substr($0, RSTART + 2, RLENGTH - 4)
        if (!(("FILL_" name) in ENVIRON)) { print "error: launch/jobset.yaml: __" name "__ is none of the values that " \
          "launch/gke.sh fills in" > "/dev/stderr"; exit 1 }
        print substr($0, 1, RSTART - 1) ENVIRON["FILL_" name]
        next
      }
      /__[A-Z_]+__/ { print "error: launch/jobset.yaml: a value to be filled in must be the whole value: " $0 \
        > "/dev/stderr"; exit 1 }
      { print }' launch/jobset.yaml) || exit 1
  printf '%s\n' "$text"
}

remove_words=("${kube[@]}" delete jobset "$name")

case $command in
  apply)
    filled=$(manifest)
    say "$hosts node(s) of $tpu$gpu cost $(cost_of "$(chip_price "$tpu")" $((hosts * chips))), for as long \
as they are there; to end the run: $(shell_words "${remove_words[@]}")"
    if [ "$dry_run" = yes ]; then
      printf "%s <<'END'\n%s\nEND\n" "$(shell_words "${kube[@]}" apply --filename=-)" "$filled"
      exit 0
    fi
    "${kube[@]}" apply --filename=- <<<"$filled" || fail "kubectl apply: did not work; the lines above say \
why. 'no matches for kind \"JobSet\"' means that the cluster lacks JobSet: https://jobset.sigs.k8s.io"
    say "started: bash launch/gke.sh follow --name=$name"
    ;;
  follow)
    # --pod-running-timeout: the nodes may have to be made first.
    perform "${kube[@]}" logs --follow --pod-running-timeout=30m \
      "--selector=jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0" --tail=100 ||
      fail "kubectl logs: nothing to be seen of $name; bash launch/gke.sh status --name=$name"
    ;;
  status)
    perform "${kube[@]}" get "jobset/$name"
    perform "${kube[@]}" get pods "--selector=jobset.sigs.k8s.io/jobset-name=$name" --output=wide
    ;;
  delete)
    perform "${remove_words[@]}" || fail "kubectl delete: did not work; is --name=$name right? kubectl get jobsets"
    ;;
esac
