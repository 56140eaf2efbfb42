#!/usr/bin/env bash
# Starts the trainer on every VM of a TPU slice, detached from this connection.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/tpu/common.sh
source "$ROOT/launch/tpu/common.sh"

usage() {
  cat <<'TEXT'
usage: bash launch/tpu/run.sh --name=NAME --zone=ZONE --workdir=gs://BUCKET/RUN --config=FILE [ARGUMENT ...]
       bash launch/tpu/run.sh --name=NAME --zone=ZONE --stop [--grace=SECONDS]

Starts python -m branchnets.main on all workers and returns. The run goes on when this machine is
switched off; launch/tpu/watch.sh follows it, launch/tpu/logs.sh shows what it prints. With the
workdir of a run that is there, it goes on from the newest checkpoint.

  --workdir=FOLDER  the run directory; gs:// where the slice has several workers, since each of
                    them writes its part of a checkpoint. A path of the VM goes with the VM.
  --config=FILE     relative to the repository's root, with arguments after a colon
  ARGUMENT          another flag of branchnets.main, passed to it as it is: --config.seed=1
  --stop            asks all workers to save and stop, and waits for it; launch/tpu/watch.sh then
                    starts nothing again. Fails where one of them did not save
  --grace=SECONDS   how long --stop waits before it kills them (SIGKILL), also amid a save; default
                    120
  --token=TOKEN     a name for this start; workers on which it runs already are left alone

TEXT
  common_options
  cat <<'TEXT'

example:
  bash launch/tpu/run.sh --name=pod --zone=europe-west4-a --workdir=gs://BUCKET/coded_imagenet \
    --config=configs/coded_imagenet.py --config.data.data_dir=gs://BUCKET/tfds
TEXT
}

stop="" grace=120 token="" trainer=()
for argument in "$@"; do
  case "$argument" in
    --stop) stop=yes ;;
    --grace=*) grace=${argument#*=} ;;
    --token=*) token=${argument#*=} ;;
    *)
      common_option "$argument" || trainer+=("$argument")
      ;;
  esac
done
check_common
whole_number --grace "$grace"

if [ -n "$stop" ]; then
  [ "${#trainer[@]}" -eq 0 ] || unknown_option "${trainer[0]}"
  remember stopped # before anything ends, or watch.sh would start it again
  need_ready
  if [ -n "$DRY_RUN" ]; then
    on_workers all "bash on_vm_run.sh stop $grace"
    exit 0
  fi
  read_workers "bash on_vm_run.sh stop $grace"
  cat "$SCRATCH/answers"
  silent=$(silent_workers)
  [ -z "$silent" ] || die "worker $silent did not answer:
$(cat "$SCRATCH/said")"
  for ((worker = 0; worker < WORKERS; worker++)); do
    case "${W_CODE[worker]}" in
      - | 0 | 75 | 76) ;;
      *)
        say "error: worker $worker ended with ${W_CODE[worker]}, and so without a last save; the run goes on from its newest checkpoint"
        exit 1
        ;;
    esac
  done
  exit 0
fi

read_trainer ${trainer[@]+"${trainer[@]}"}
[ -n "$WORKDIR" ] || die "no run directory given: --workdir=gs://BUCKET/RUN"
# What watch.sh starts again was there when it was started first.
if [ -z "${BRANCHNETS_WATCHED:-}" ]; then
  case "$CONFIG" in /*) die "--config=$CONFIG: a path relative to the repository's root, which is elsewhere on the VMs" ;; esac
  need_config
fi
[[ -z $token || $token =~ ^[A-Za-z0-9_.-]+$ ]] || die "--token=$token: letters, digits, dots and dashes"
need_ready
case "$WORKDIR" in
  gs://*) ;;
  /* | runs/*)
    [ "$WORKERS" -eq 1 ] || die "--workdir=$WORKDIR: $NAME has $WORKERS workers, and each would write to its own disk; give --workdir=gs://BUCKET/RUN"
    say "note: $WORKDIR is on the disk of the VM, and goes with it when it is deleted or preempted"
    ;;
  *) die "--workdir=$WORKDIR: gs://BUCKET/RUN, or on one worker an absolute path or runs/RUN" ;;
esac
token=${token:-$(date -u +%Y%m%dT%H%M%SZ)-$$}
command="bash on_vm_run.sh start $token $(show "${trainer[@]}")"
if [ -n "$DRY_RUN" ]; then
  on_workers all "bash on_vm_run.sh status"
  on_workers all "$command"
  exit 0
fi

# try_workers COMMAND: until all of them have answered, at most three times; sets SILENT to the rest.
try_workers() {
  local try
  for try in 1 2 3; do
    read_workers "$1"
    SILENT=$(silent_workers)
    [ -n "$SILENT" ] || return 0
    [ "$try" = 3 ] || sleep "$INTERVAL"
  done
  cat "$SCRATCH/said" >&2
  return 1
}

# First of all whether all of them can start: a run that started on some waits for the others.
if ! try_workers "bash on_vm_run.sh status"; then
  if grep -q 'on_vm_run.sh: No such file' "$SCRATCH/said"; then
    die "worker $SILENT was not set up; run launch/tpu/setup.sh. Nothing was started"
  fi
  die "worker $SILENT did not answer; nothing was started.
$SSH_HINT"
fi
for ((worker = 0; worker < WORKERS; worker++)); do
  if [ "${W_TOKEN[worker]}" = "$token" ]; then
    [ "${W_STATE[worker]}" = running ] \
      || die "$token has ended on worker $worker already, with ${W_CODE[worker]}; give another --token, or none. Nothing was started"
  elif [ "${W_STATE[worker]}" = running ]; then
    die "worker $worker still runs ${W_TOKEN[worker]}; stop it first (run.sh --stop). Nothing was started"
  fi
done
if [ -n "${BRANCHNETS_WATCHED:-}" ]; then
  ! recall stopped || die "it was stopped on request. Nothing was started"
else
  forget stopped
fi
remember run "${trainer[@]}"
remember token "$token"
# A connection may break after the start: the token makes a second one harmless.
if ! try_workers "$command"; then
  die "the run did not start on worker $SILENT; the others wait for it. Run this again with --token=$token, or stop it with --stop.
$SSH_HINT"
fi
stamp "started on $WORKERS worker(s). Next: launch/tpu/watch.sh, launch/tpu/logs.sh"
