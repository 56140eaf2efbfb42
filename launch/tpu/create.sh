#!/usr/bin/env bash
# Makes a TPU slice: on demand, as a spot slice, or through the queue.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/tpu/common.sh
source "$ROOT/launch/tpu/common.sh"

usage() {
  cat <<'TEXT'
usage: bash launch/tpu/create.sh --name=NAME --zone=ZONE --accelerator-type=TYPE [OPTION ...]

Makes a slice and waits until it is READY. Where it is there already, nothing is made; a request
that waits in the queue is waited for. It costs money from READY until launch/tpu/delete.sh.

  --spot             cheaper, and may be taken away at any time; launch/tpu/watch.sh makes it anew
  --queued           asks through the queue, and waits there for capacity; goes with --spot
  --timeout=SECONDS  how long to wait for READY; default 1800, with --queued 86400. What was asked
                     for stays: run this again to wait on, or launch/tpu/delete.sh
  --create-option=OPTION  an option for gcloud's create, for example --create-option=--network=NET,
                     --service-account=EMAIL or --reserved; as often as needed

TEXT
  common_options
  cat <<'TEXT'

examples:
  bash launch/tpu/create.sh --name=branchnets --zone=us-central1-b --accelerator-type=v2-8
  bash launch/tpu/create.sh --name=pod --zone=europe-west4-a --accelerator-type=v3-32 --spot --queued
TEXT
}

spot="" queued="" timeout="" more=()
for argument in "$@"; do
  case "$argument" in
    --spot) spot=--spot ;;
    --queued) queued=yes ;;
    --timeout=*) timeout=${argument#*=} ;;
    --create-option=*) more+=("${argument#*=}") ;;
    *) common_option "$argument" || unknown_option "$argument" ;;
  esac
done
check_common
[ -n "$ACCELERATOR_TYPE" ] || die "no accelerator type given: --accelerator-type=v2-8, for example"
[ -z "$timeout" ] || whole_number --timeout "$timeout"

# https://cloud.google.com/tpu/docs/runtimes: the images for JAX.
default_version() {
  case "$1" in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) return 1 ;;
  esac
}
if [ -z "$VERSION" ]; then
  VERSION=$(default_version "$ACCELERATOR_TYPE") \
    || die "no image is known for $ACCELERATOR_TYPE; give --version=VERSION (https://cloud.google.com/tpu/docs/runtimes)"
fi

# explain FILE: what to do about what gcloud said.
explain() {
  local zones="gcloud compute tpus accelerator-types list --zone=ZONE"
  if grep -qiE 'quota' "$1"; then
    say "The project's quota for this type, zone and tier (on demand and spot have one each) is used up or zero.
  What already runs or waits there counts: gcloud compute tpus tpu-vm list and queued-resources list, with --zone=$ZONE.
  Ask for more at https://console.cloud.google.com/iam-admin/quotas (service: Cloud TPU API), or use
  another zone, a smaller type, or ${spot:+on-demand capacity (without }--spot${spot:+)}."
  elif grep -qiE 'no more capacity|insufficient (reserved )?capacity|stockout|RESOURCE_EXHAUSTED|code: 8' "$1"; then
    say "The quota allows it, but the zone has no such slice free now. Wait for one with --queued, or try
  another zone where your quota holds ($zones)."
  elif grep -qiE 'PERMISSION_DENIED|SERVICE_DISABLED|has not been used|(HTTP|code|status|Error)[ =:]*403' "$1"; then
    say "The account may not (it needs the roles TPU Admin, Compute Viewer and Service Account User), or the APIs are off:
  gcloud services enable compute.googleapis.com tpu.googleapis.com"
  elif grep -qiE 'INVALID_ARGUMENT|NOT_FOUND' "$1"; then
    say "The zone may not have $ACCELERATOR_TYPE or $VERSION: $zones, and
  gcloud compute tpus tpu-vm versions list --zone=ZONE."
  fi
}

# ask COMMAND...: runs one of the create commands; explains what it says when it fails.
ask() {
  if [ -n "$DRY_RUN" ]; then
    "$@"
  elif ! "$@" 2>&1 | tee "$SCRATCH/said" >&2; then
    say "error: gcloud did not create $NAME, as it says above."
    explain "$SCRATCH/said"
    exit 1
  fi
}

create() {
  if [ -n "$queued" ]; then
    ask queue create "$NAME" "--node-id=$NAME" "--accelerator-type=$ACCELERATOR_TYPE" \
      "--runtime-version=$VERSION" ${spot:+"$spot"} ${more[@]+"${more[@]}"}
  else
    ask tpu_vm create "$NAME" "--accelerator-type=$ACCELERATOR_TYPE" "--version=$VERSION" \
      ${spot:+"$spot"} ${more[@]+"${more[@]}"}
  fi
}

# What watch.sh does again when the slice is taken. Of one that is there, as it was made: this call
# made nothing, and may have been typed with less.
keep_in_mind() { # keep_in_mind [there]
  if [ -n "${1:-}" ] && recall create; then
    say "note: launch/tpu/watch.sh would make it anew as it was made: $(show "${RECALLED[@]}")"
    return 0
  fi
  remember create "--accelerator-type=$ACCELERATOR_TYPE" "--version=$VERSION" ${spot:+"$spot"} \
    ${queued:+--queued} ${more[@]+"${more[@]/#/--create-option=}"}
}

# 1 and not 2, since it may go well the next time: watch.sh goes on asking.
unreadable() { # unreadable WHAT
  say "error: gcloud cannot describe $1:
$WHY"
  exit 1
}

# Makes what is not there. A slice may be promised by a request that this call does not know of.
find_or_create() {
  read_slice
  case "$STATE" in
    NONE) ;;
    UNREADABLE) unreadable "$NAME" ;;
    *)
      [ -z "$KIND" ] || [ "$KIND" = "$ACCELERATOR_TYPE" ] \
        || die "$NAME is there already, and is a $KIND, not a $ACCELERATOR_TYPE; give it another name, or delete the other with launch/tpu/delete.sh"
      stamp "$NAME is there already: $STATE"
      keep_in_mind there
      return 0
      ;;
  esac
  read_queue
  case "$QUEUE" in
    NONE)
      create
      keep_in_mind
      [ -n "$DRY_RUN" ] || forget log_lines # of an earlier slice, whose log went with it
      ;;
    UNREADABLE) unreadable "the queued resource $NAME" ;;
    *)
      need_own_queue
      stamp "the queued resource $NAME is there already: $QUEUE"
      queued=yes
      keep_in_mind there
      ;;
  esac
}

# Waits for the queue to give the slice, then for the slice to be READY.
wait_until_ready() {
  local start=$SECONDS last="" now
  while :; do
    now="" QUEUE=ACTIVE
    [ -z "$queued" ] || read_queue
    case "$QUEUE" in
      FAILED | SUSPENDING | SUSPENDED | DELETING)
        queue describe "$NAME" >"$SCRATCH/said" 2>&1 || true
        cat "$SCRATCH/said" >&2
        explain "$SCRATCH/said"
        say "error: the request $NAME is $QUEUE and will not be filled; launch/tpu/delete.sh, then ask again"
        exit 1
        ;;
      NONE) die "the queued resource $NAME is gone: somebody deleted it" ;;
      ACTIVE)
        read_slice
        now="slice $STATE"
        case "$STATE" in
          READY) return ;;
          PREEMPTED | TERMINATED | UNKNOWN | STOPPED | STOPPING | DELETING)
            say "error: the slice $NAME is $STATE; launch/tpu/delete.sh, then make it anew"
            exit 1
            ;;
        esac
        ;;
      *) now="request $QUEUE" ;;
    esac
    [ "$now" = "$last" ] || stamp "$NAME: $now"
    last=$now
    if [ $((SECONDS - start)) -ge "$timeout" ]; then
      say "error: $NAME was not READY in $timeout s ($now). What was asked for stays: run this again to wait on, or launch/tpu/delete.sh to give it up.${WHY:+
$WHY}"
      exit 1
    fi
    sleep "$INTERVAL"
  done
}

# shellcheck disable=SC2034  # what common.sh pretends with --dry-run
PRETEND_SLICE=NONE PRETEND_QUEUE=NONE
find_or_create
timeout=${timeout:-$([ -n "$queued" ] && echo 86400 || echo 1800)}
if [ -n "$DRY_RUN" ]; then
  say "# then, every $INTERVAL s, until READY"
  [ -z "$queued" ] || read_queue
  read_slice
  exit 0
fi
wait_until_ready
stamp "$NAME is READY: ${KIND:-$ACCELERATOR_TYPE}, $WORKERS worker(s). Next: launch/tpu/setup.sh"
