#!/usr/bin/env bash
# Follows a run on a TPU slice to its end: restarts what was interrupted, makes anew what was taken.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/tpu/common.sh
source "$ROOT/launch/tpu/common.sh"

usage() {
  cat <<'TEXT'
usage: bash launch/tpu/watch.sh --name=NAME --zone=ZONE [OPTION ...]

Looks at the slice every --interval seconds until the run that launch/tpu/run.sh started has ended
on all workers. Create, setup and run are done again as they were done from this checkout, so it
wants no more options. It may be stopped and started at any time.

  preempted or suspended      deletes the slice, and does create, setup and run again
  a worker ended with 75, 76, 134, 137 or 143: the run starts again on all workers
  a worker ended otherwise    stops the others, shows the log's end, ends with that code
  all workers ended with 0    ends with 0; the slice stays, and costs, until launch/tpu/delete.sh

  --max-restarts=N    how often to start again, in all; default 20
  --max-failures=N    how many looks in a row may fail (gcloud, ssh); default 10
  --grace=SECONDS     how long workers may go on after one has ended, before they are stopped;
                      default 600
  --patience=SECONDS  how long to go on asking for a slice; default 86400

TEXT
  common_options
}

max_restarts=20 max_failures=10 grace=600 patience=86400
for argument in "$@"; do
  case "$argument" in
    --max-restarts=*) max_restarts=${argument#*=} ;;
    --max-failures=*) max_failures=${argument#*=} ;;
    --grace=*) grace=${argument#*=} ;;
    --patience=*) patience=${argument#*=} ;;
    *) common_option "$argument" || unknown_option "$argument" ;;
  esac
done
check_common
whole_number --max-restarts "$max_restarts"
whole_number --max-failures "$max_failures"
whole_number --grace "$grace"
whole_number --patience "$patience"

restarts=0 failures=0 last="" first_end="" queued=""
need_setup="" need_run=""
recall create || say "note: create.sh was not run from this checkout: a slice that is taken will not be made anew"
case " ${RECALLED[*]-} " in *" --queued "*) queued=yes ;; esac

# note MESSAGE: prints what has changed since the last look.
note() {
  [ "$1" = "$last" ] || stamp "$NAME: $1"
  last=$1
}

# again SCRIPT [OPTION ...]: does create, setup or run again as it was done.
again() {
  local what=$1
  shift
  recall "$what" || die "launch/tpu/$what.sh was not run from this checkout, so it cannot be done again"
  bash "$ROOT/launch/tpu/$what.sh" "--name=$NAME" "--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"} \
    "--interval=$INTERVAL" ${DRY_RUN:+--dry-run} "$@" ${RECALLED[@]+"${RECALLED[@]}"}
}

failed() { # failed MESSAGE: one look went wrong
  failures=$((failures + 1))
  note "$1 (look $failures of at most $max_failures)"
  if [ "$failures" -ge "$max_failures" ]; then
    say "error: $failures looks in a row failed; the run may go on. gcloud said:
${WHY:-$(tail -n 5 "$SCRATCH/said" 2>/dev/null)}
$SSH_HINT"
    exit 1
  fi
}

show_log() { # show_log WORKER
  say "--- the end of the log of worker $1:"
  on_workers "$1" "bash on_vm_run.sh tail 50" >&2 || say "(the log could not be read)"
  say "---"
}

count_restart() { # count_restart REASON [WORKER]
  if [ "$restarts" -ge "$max_restarts" ]; then
    [ -z "${2:-}" ] || show_log "$2"
    say "error: $1, and --max-restarts=$max_restarts is used up. What was saved is whole: run.sh and watch.sh go on from it."
    exit 1
  fi
  restarts=$((restarts + 1))
  stamp "$NAME: $1; restart $restarts of at most $max_restarts"
}

# Deletes what is left of a slice, and asks for another until it comes.
make_anew() {
  local start=$SECONDS pause=1
  count_restart "$1"
  recall create || die "the slice is gone and create.sh was not run from this checkout; make it with create.sh, then setup.sh and run.sh"
  until delete_slice && again create; do
    if [ $((SECONDS - start)) -ge "$patience" ]; then
      say "error: no slice in $patience s. What was saved is whole: create.sh, setup.sh, run.sh and watch.sh go on from it."
      exit 1
    fi
    # Twice as long each time, at most sixteen intervals.
    for ((i = 0; i < pause; i++)); do sleep "$INTERVAL"; done
    [ "$pause" -ge 16 ] || pause=$((pause * 2))
  done
  need_setup=yes need_run=yes failures=0 first_end=""
}

start_run() { # start_run TOKEN
  if again run "--token=$1"; then
    need_run="" failures=0 first_end=""
  else
    failed "the run did not start"
  fi
}

# Looks at the workers; ends the script when the run has ended.
look_at_run() {
  local worker token ended=0 running=0 bad="" lost="" code silent
  recall token || die "no run was started from this checkout; start it with launch/tpu/run.sh"
  token=${RECALLED[0]}
  read_workers "bash on_vm_run.sh status"
  silent=$(silent_workers)
  if [ -n "$silent" ]; then
    # Of a slice that was made by hand, or repaired with new disks.
    if grep -q 'on_vm_run.sh: No such file' "$SCRATCH/said"; then
      count_restart "a worker was not set up"
      need_setup=yes need_run=yes
    else
      failed "worker $silent did not answer"
    fi
    return 0
  fi
  failures=0
  for ((worker = 0; worker < WORKERS; worker++)); do
    if [ "${W_TOKEN[worker]}" != "$token" ]; then
      stamp "$NAME: worker $worker does not have the run"
      start_run "$token"
      return 0
    fi
    code=${W_CODE[worker]}
    case "${W_STATE[worker]}" in
      running) running=$((running + 1)) ;;
      *)
        ended=$((ended + 1))
        if [ "$code" = 0 ]; then
          :
        elif [[ " $RESTARTABLE " == *" $code "* ]]; then
          lost=$worker
        else
          bad=${bad:-$worker}
        fi
        ;;
    esac
  done
  if [ "$ended" -eq 0 ]; then
    first_end=""
    note "running on $WORKERS worker(s)"
  elif [ "$running" -gt 0 ]; then
    first_end=${first_end:-$SECONDS}
    note "ended on $ended of $WORKERS workers (codes ${W_CODE[*]})"
    if [ -n "$bad" ] || [ $((SECONDS - first_end)) -ge "$grace" ]; then
      stamp "$NAME: stopping the others"
      read_workers "bash on_vm_run.sh stop"
    fi
  elif [ -n "$bad" ]; then
    show_log "$bad"
    say "error: worker $bad ended with ${W_CODE[bad]}, which starting again would not mend (codes of all: ${W_CODE[*]})"
    exit "${W_CODE[bad]}"
  elif [ -n "$lost" ]; then
    count_restart "ended with ${W_CODE[*]}" "$lost"
    need_run=yes
  else
    stamp "$NAME: finished on $WORKERS worker(s) after $restarts restart(s). The slice costs until launch/tpu/delete.sh"
    exit 0
  fi
}

look() {
  if [ -n "$queued" ]; then
    read_queue
    case "$QUEUE" in
      ACTIVE) ;;
      SUSPENDED | FAILED)
        make_anew "the request is $QUEUE"
        return 0
        ;;
      NONE) die "the queued resource $NAME is gone: somebody deleted it. Nothing was made anew" ;;
      UNKNOWN)
        failed "gcloud does not describe the queued resource"
        return 0
        ;;
      *)
        note "request $QUEUE"
        return 0
        ;;
    esac
  fi
  read_slice
  case "$STATE" in
    READY)
      if [ -n "$need_setup" ]; then
        if again setup; then need_setup="" failures=0; else failed "setup failed"; fi
      elif [ -n "$need_run" ]; then
        start_run "$(date -u +%Y%m%dT%H%M%SZ)-$$-$restarts"
      else
        look_at_run
      fi
      ;;
    # https://cloud.google.com/tpu/docs/preemptible: a slice that was taken stays, as PREEMPTED.
    PREEMPTED | TERMINATED) make_anew "the slice is $STATE" ;;
    NONE)
      [ -n "$queued" ] || die "the slice $NAME is gone: somebody deleted it. Nothing was made anew"
      failed "the request is ACTIVE without a slice"
      ;;
    STOPPED) need_ready ;;
    UNKNOWN) failed "gcloud does not describe the slice" ;;
    *) note "slice $STATE" ;;
  esac
}

if [ -n "$DRY_RUN" ]; then
  say "# every $INTERVAL s"
  [ -z "$queued" ] || read_queue
  read_slice
  on_workers all "bash on_vm_run.sh status"
  say "# when a worker ended with one of $RESTARTABLE"
  if recall run; then again run; fi
  say "# when the slice was taken"
  delete_slice
  for what in create setup run; do
    if recall "$what"; then again "$what"; fi
  done
  exit 0
fi
while :; do
  look
  sleep "$INTERVAL"
done
