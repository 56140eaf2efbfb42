#!/usr/bin/env bash
# What the scripts of this folder share: options, the gcloud commands, what a slice's states mean.
# Sourced by them, after ROOT is set. The commands and states are those of the Cloud SDK 528 and of
#   https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm
#   https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources
#   https://cloud.google.com/tpu/docs/queued-resources and .../tpu/docs/spot
# shellcheck disable=SC2034  # its variables are read by the scripts that source it

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  echo "error: launch/tpu/common.sh is a part of the other scripts and does nothing by itself; see: bash launch/tpu/create.sh --help" >&2
  exit 2
fi
# shellcheck source=launch/shell.sh
source "$ROOT/launch/shell.sh"

new_enough() { [ "$(($1 * 100 + $2))" -ge 404 ]; } # new_enough MAJOR MINOR
new_enough "${BASH_VERSINFO[0]}" "${BASH_VERSINFO[1]}" \
  || die "this is bash $BASH_VERSION, and launch/tpu needs 4.4 or newer; on macOS: brew install bash, and a new shell"

NAME=${TPU_NAME:-} ZONE=${ZONE:-} PROJECT=${PROJECT_ID:-}
ACCELERATOR_TYPE=${ACCELERATOR_TYPE:-} VERSION=${RUNTIME_VERSION:-}
INTERVAL=30 SSH_OPTIONS=() SSH_TRACK=()

# Exit codes of the trainer that say: what was saved is whole, start all workers again.
#   75 preempted; 76 another process was lost; 134 JAX's coordination service aborted, since one was
#   lost; 137 killed (a VM that is short of memory, or was restarted); 143 ended by SIGTERM.
RESTARTABLE="75 76 134 137 143"

stamp() { say "$(date +%H:%M:%S) $*"; }

common_options() {
  cat <<'TEXT'
options of every script in launch/tpu; the variable in brackets is their default:
  --name=NAME              the slice [TPU_NAME]
  --zone=ZONE              its zone, for example us-central1-b [ZONE]
  --project=PROJECT        the Google Cloud project [PROJECT_ID; else what gcloud is set to]
  --accelerator-type=TYPE  v2-8, v3-32, v4-64, v5litepod-16, v5p-8, v6e-8 ... [ACCELERATOR_TYPE]
  --version=VERSION        the image of the VMs [RUNTIME_VERSION; else the one for the type]
  --interval=SECONDS       how long to wait between two looks at the slice [30]
  --ssh-option=OPTION      for gcloud's ssh and scp, for example --ssh-option=--internal-ip; as often
                           as needed. --tunnel-through-iap and --batch-size are gcloud alpha's
  --dry-run                prints the commands, ready to be pasted, and runs none
  --help
TEXT
}

# common_option ARGUMENT: takes an option that every script has; fails on any other.
common_option() {
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --name=*) NAME=${1#*=} ;;
    --zone=*) ZONE=${1#*=} ;;
    --project=*) PROJECT=${1#*=} ;;
    --accelerator-type=*) ACCELERATOR_TYPE=${1#*=} ;;
    --version=*) VERSION=${1#*=} ;;
    --interval=*) INTERVAL=${1#*=} ;;
    --ssh-option=*)
      SSH_OPTIONS+=("${1#*=}")
      # https://cloud.google.com/sdk/gcloud/reference/alpha/compute/tpus/tpu-vm/ssh: nowhere else.
      case "${1#*=}" in --tunnel-through-iap | --batch-size | --batch-size=*) SSH_TRACK=(alpha) ;; esac
      ;;
    --dry-run) DRY_RUN=yes ;;
    *) return 1 ;;
  esac
}

# To be called after the options were taken.
check_common() {
  [ -n "$NAME" ] || die "no slice given: --name=NAME"
  [[ $NAME =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] \
    || die "--name=$NAME: a name has small letters, digits and dashes, and starts with a letter"
  [ -n "$ZONE" ] || die "no zone given: --zone=ZONE, for example --zone=us-central1-b"
  # Also parts of a path: no slash, no dots alone.
  [[ $ZONE =~ ^[a-z][-a-z0-9]*$ ]] || die "--zone=$ZONE is no zone; one is us-central1-b"
  [[ $INTERVAL =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "--interval=$INTERVAL is not a number of seconds"
  [ -n "$DRY_RUN" ] || command -v gcloud >/dev/null \
    || die "gcloud is missing; install the Google Cloud CLI (https://cloud.google.com/sdk/docs/install) and run: gcloud init"
  if [ -z "$PROJECT" ] && [ -n "$DRY_RUN" ]; then
    perform gcloud config get-value project
  elif [ -z "$PROJECT" ]; then
    PROJECT=$(gcloud config get-value project 2>/dev/null </dev/null) || PROJECT=""
    [ -n "$PROJECT" ] || die "no project given: --project=PROJECT, or: gcloud config set project PROJECT"
  fi
  [[ -z $PROJECT || $PROJECT =~ ^[a-z][-a-z0-9.:]*$ ]] || die "--project=$PROJECT is no project ID"
  SCRATCH=$(mktemp -d)
  trap 'rm -rf "$SCRATCH"' EXIT
  PLACE=("--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"} --quiet)
  SSH=(gcloud ${SSH_TRACK[@]+"${SSH_TRACK[@]}"} compute tpus tpu-vm)
  SSH_HINT="  gcloud's ssh needs a network that lets tcp:22 in and, for several workers, its key in the agent of this shell:
  eval \$(ssh-agent); ssh-add ~/.ssh/google_compute_engine
  Its first ssh makes the key: $(show "${SSH[@]}" ssh "$NAME" --worker=0 --command=true "${PLACE[@]}" \
    ${SSH_OPTIONS[@]+"${SSH_OPTIONS[@]}"})"
  # What create, setup and run were given, for watch.sh to do it again; below runs/, which git ignores.
  MEMORY=${BRANCHNETS_LAUNCH_STATE:-$ROOT/runs/.launch}/${PROJECT:-default}/$ZONE/$NAME
}

remember() { # remember WHAT ARGUMENT...
  [ -z "$DRY_RUN" ] || return 0
  mkdir -p "$MEMORY"
  local what=$1
  shift
  : >"$MEMORY/$what.new"
  [ $# -eq 0 ] || printf '%s\0' "$@" >"$MEMORY/$what.new"
  mv "$MEMORY/$what.new" "$MEMORY/$what"
}

forget() { rm -f "$MEMORY/$1"; } # forget WHAT

recall() { # recall WHAT: sets RECALLED; fails where nothing was remembered
  RECALLED=()
  [ -e "$MEMORY/$1" ] || return 1
  mapfile -d '' RECALLED <"$MEMORY/$1"
}

tpu_vm() { # tpu_vm VERB ARGUMENT...
  perform gcloud compute tpus tpu-vm "$@" "${PLACE[@]}"
}

reach() { # reach ssh|scp ARGUMENT...: reads none of our input
  perform "${SSH[@]}" "$@" "${PLACE[@]}" ${SSH_OPTIONS[@]+"${SSH_OPTIONS[@]}"} </dev/null
}

queue() { # queue VERB ARGUMENT...
  perform gcloud compute tpus queued-resources "$@" "${PLACE[@]}"
}

# on_workers WORKER COMMAND: a shell command on one worker or on "all"; its output is theirs. gcloud
# tries ten times to connect, and ends with the exit code of a worker on which it failed.
on_workers() { reach ssh "$NAME" "--worker=$1" "--command=$2"; }

# Whether gcloud says that the slice, or the queued resource, does not exist: not a missing project.
is_missing() { grep -qE 'NOT_FOUND.*(nodes/|queuedResources/|entity)' "$1"; }

# At least how many VMs a slice of this type has: none holds more than 8 of what types count.
least_workers() {
  local number=${1##*-}
  [[ $number =~ ^[1-9][0-9]*$ ]] || number=1
  echo "$(((number + 7) / 8))"
}

# Sets KIND to the type of the slice, as far as it can be known without asking.
guess_kind() {
  local word
  KIND=$ACCELERATOR_TYPE
  if [ -n "$KIND" ] || ! recall create; then return 0; fi
  for word in "${RECALLED[@]}"; do
    case "$word" in --accelerator-type=*) KIND=${word#*=} ;; esac
  done
}

# Sets STATE of the slice (NONE: there is none; UNREADABLE: gcloud failed, WHY says how; else as the
# API has it, whose own UNKNOWN is a slice that could not be repaired), WORKERS, and KIND, its type.
read_slice() {
  local answer
  STATE=UNREADABLE WORKERS=0 KIND="" WHY=""
  if [ -n "$DRY_RUN" ]; then
    tpu_vm describe "$NAME" "--format=value(state,networkEndpoints.len(),acceleratorType)"
    guess_kind
    STATE=${PRETEND_SLICE:-READY} WORKERS=$(least_workers "$KIND")
  elif answer=$(tpu_vm describe "$NAME" \
    "--format=value(state,networkEndpoints.len(),acceleratorType)" 2>"$SCRATCH/why"); then
    IFS=$'\t' read -r STATE WORKERS KIND <<<"$answer"
    KIND=${KIND##*/}
  elif is_missing "$SCRATCH/why"; then
    STATE=NONE
  else
    WHY=$(cat "$SCRATCH/why")
  fi
}

# Sets QUEUE to the state of the queued resource, with NONE and UNREADABLE as above, and NODES to the
# slices that it asks for.
read_queue() {
  local answer format="--format=value(state.state,tpu.nodeSpec[].nodeId)"
  QUEUE=UNREADABLE NODES="" WHY=""
  if [ -n "$DRY_RUN" ]; then
    queue describe "$NAME" "$format"
    QUEUE=${PRETEND_QUEUE:-ACTIVE} NODES=$NAME
  elif answer=$(queue describe "$NAME" "$format" 2>"$SCRATCH/why"); then
    IFS=$'\t' read -r QUEUE NODES <<<"$answer"
    NODES=${NODES//[\[\]\'\" ]/}  # how a list is printed differs between releases
  elif is_missing "$SCRATCH/why"; then
    QUEUE=NONE
  else
    WHY=$(cat "$SCRATCH/why")
  fi
}

# Fails where the queued resource, as it was read, is not for this slice alone.
need_own_queue() {
  [ "$NODES" = "$NAME" ] \
    || die "the queued resource $NAME is for ${NODES:-several slices}, not for the slice $NAME alone, and is left alone; delete it yourself: $(show gcloud compute tpus queued-resources delete "$NAME" "${PLACE[@]}")"
}

# delete_slice [queued]: deletes the slice, if it is there; with "queued" the queued resource with its
# slice. A preempted slice, and a suspended request, stay there and count against the quota until then.
delete_slice() {
  local failed=0 start=$SECONDS
  QUEUE=NONE
  [ -z "${1:-}" ] || read_queue
  case "$QUEUE" in
    NONE) ;;
    UNREADABLE)
      say "$WHY"
      failed=1
      ;;
    *)
      need_own_queue
      # --force: with its slice; otherwise it would have to be gone already.
      queue delete "$NAME" --force || failed=1
      ;;
  esac
  read_slice
  while [ "$STATE" = DELETING ] && [ $((SECONDS - start)) -lt 600 ]; do
    sleep "$INTERVAL"
    read_slice
  done
  case "$STATE" in
    NONE) ;;
    UNREADABLE)
      say "$WHY"
      failed=1
      ;;
    *) tpu_vm delete "$NAME" || failed=1 ;;
  esac
  return "$failed"
}

# read_workers COMMAND: runs one of on_vm_run.sh's commands on all workers; sets W_TOKEN, W_STATE and
# W_CODE by worker number, and REACHED to gcloud's exit code. Worker numbers are in the lines themselves: gcloud mixes the workers'
# output, and its --output-directory does not work in every release.
read_workers() {
  local line
  W_TOKEN=() W_STATE=() W_CODE=() REACHED=0
  on_workers all "$1" >"$SCRATCH/answers" 2>"$SCRATCH/said" || REACHED=$?
  while read -r line; do
    if [[ $line =~ branchnets-status\ worker=([0-9]+)\ token=([^ ]+)\ state=([a-z]+)\ code=([-0-9]+) ]]; then
      W_TOKEN[BASH_REMATCH[1]]=${BASH_REMATCH[2]}
      W_STATE[BASH_REMATCH[1]]=${BASH_REMATCH[3]}
      W_CODE[BASH_REMATCH[1]]=${BASH_REMATCH[4]}
    fi
  done <"$SCRATCH/answers"
}

# Prints the workers without an answer in W_STATE; nothing where all of them gave one.
silent_workers() {
  local worker silent=""
  for ((worker = 0; worker < WORKERS; worker++)); do
    [ -n "${W_STATE[worker]:-}" ] || silent+="${silent:+, }$worker"
  done
  printf '%s' "$silent"
}

# Prints the workers on which the trainer runs, with its token.
running_workers() {
  local worker running=""
  for ((worker = 0; worker < WORKERS; worker++)); do
    [ "${W_STATE[worker]:-}" != running ] \
      || running+="${running:+, }worker $worker runs ${W_TOKEN[worker]}"
  done
  printf '%s' "$running"
}

# Fails with a message unless the slice can be used; sets WORKERS.
need_ready() {
  read_slice
  case "$STATE" in
    READY) ;;
    NONE) die "there is no slice $NAME in $ZONE; make it with launch/tpu/create.sh" ;;
    UNREADABLE) die "gcloud cannot describe $NAME:
$WHY" ;;
    PREEMPTED | TERMINATED | UNKNOWN)
      die "$NAME is $STATE and cannot be used again; launch/tpu/watch.sh makes it anew, or delete.sh and create.sh" ;;
    STOPPED) die "$NAME is stopped; start it with: $(show gcloud compute tpus tpu-vm start "$NAME" "${PLACE[@]}")" ;;
    *) die "$NAME is $STATE, not READY; try again in a few minutes" ;;
  esac
}
