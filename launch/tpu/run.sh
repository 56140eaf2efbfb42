#!/usr/bin/env bash
# Starts the trainer on every VM of a TPU slice, detached from this connection.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/tpu/common.sh
source "$ROOT/launch/tpu/common.sh"

usage() {
  cat <<'TEXT'
usage: bash launch/tpu/run.sh --name=NAME --zone=ZONE --workdir=gs://BUCKET/RUN --config=FILE [ARGUMENT ...]
       bash launch/tpu/run.sh --name=NAME --zone=ZONE --stop

Starts python -m branchnets.main on all workers and returns. The run goes on when this machine is
switched off; launch/tpu/watch.sh follows it, launch/tpu/logs.sh shows what it prints. With the
workdir of a run that is there, it goes on from the newest checkpoint.

  --workdir=FOLDER  the run directory; gs:// where the slice has several workers, since each of
                    them writes its part of a checkpoint. A path of the VM goes with the VM.
  --config=FILE     relative to the repository's root, with arguments after a colon
  ARGUMENT          passed to branchnets.main as it is, for example --config.seed=1
  --stop            asks all workers to save and stop, and waits for it
  --token=TOKEN     a name for this start; workers that have it already are left alone

TEXT
  common_options
  cat <<'TEXT'

example:
  bash launch/tpu/run.sh --name=pod --zone=europe-west4-a --workdir=gs://BUCKET/coded_imagenet \
    --config=configs/coded_imagenet.py --config.data.data_dir=gs://BUCKET/tfds
TEXT
}

stop="" token="" workdir="" previous="" trainer=()
for argument in "$@"; do
  case "$argument" in
    --stop) stop=yes ;;
    --token=*) token=${argument#*=} ;;
    *)
      common_option "$argument" && continue
      case "$previous" in --workdir | -workdir) workdir=$argument ;; esac
      case "$argument" in --workdir=* | -workdir=*) workdir=${argument#*=} ;; esac
      trainer+=("$argument")
      previous=$argument
      ;;
  esac
done
check_common

if [ -n "$stop" ]; then
  [ "${#trainer[@]}" -eq 0 ] || unknown_option "${trainer[0]}"
  if [ -n "$DRY_RUN" ]; then
    on_workers all "bash on_vm_run.sh stop"
    exit 0
  fi
  need_ready
  read_workers "bash on_vm_run.sh stop"
  cat "$SCRATCH/answers"
  silent=$(silent_workers)
  [ -z "$silent" ] || die "worker $silent did not answer:
$(cat "$SCRATCH/said")"
  exit 0
fi

[ -n "$workdir" ] || die "no run directory given: --workdir=gs://BUCKET/RUN"
[[ -z $token || $token =~ ^[A-Za-z0-9_.-]+$ ]] || die "--token=$token: letters, digits, dots and dashes"
need_ready
case "$workdir" in
  gs://*) ;;
  /* | runs/*)
    [ "$WORKERS" -eq 1 ] || die "--workdir=$workdir: $NAME has $WORKERS workers, and each would write to its own disk; give --workdir=gs://BUCKET/RUN"
    say "note: $workdir is on the disk of the VM, and goes with it when it is deleted or preempted"
    ;;
  *) die "--workdir=$workdir: gs://BUCKET/RUN, or on one worker an absolute path or runs/RUN" ;;
esac
token=${token:-$(date -u +%Y%m%dT%H%M%SZ)-$$}
command="bash on_vm_run.sh start $token $(show "${trainer[@]}")"
if [ -n "$DRY_RUN" ]; then
  on_workers all "$command"
  exit 0
fi

# A connection may break after the start: the token makes a second one harmless.
for try in 1 2 3; do
  read_workers "$command"
  silent=$(silent_workers)
  if grep -q 'stop it first' "$SCRATCH/said"; then
    die "$(grep -m1 -o 'worker [0-9]* still runs .*' "$SCRATCH/said")"
  fi
  remember run "${trainer[@]}"
  remember token "$token"
  [ -n "$silent" ] || break
  [ "$try" = 3 ] || sleep "$INTERVAL"
done
if [ -n "$silent" ]; then
  cat "$SCRATCH/said" >&2
  die "the run did not start on worker $silent; the others wait for it. Run this again with --token=$token, or stop it with --stop.
$SSH_HINT"
fi
stamp "started on $WORKERS worker(s). Next: launch/tpu/watch.sh, launch/tpu/logs.sh"
