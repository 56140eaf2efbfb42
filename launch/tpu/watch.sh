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
wants no more options. It may be stopped and started at any time. What worker 0 prints is kept on this
machine as well, in runs/.launch/PROJECT/ZONE/NAME/log.

  preempted or suspended      deletes the slice, and does create, setup and run again
  a worker ended with 75, 76, 134, 137 or 143: the run starts again on all workers
  a worker ended otherwise    stops the others, shows the log's end, ends with that code
  run.sh --stop was called    starts nothing again, ends with 0
  all workers ended with 0    ends with 0; the slice stays, and costs, until launch/tpu/delete.sh

  --max-restarts=N      how many starts on a slice that stays may follow each other without a run
                        that lasts for --progress; default 20. Preemptions are not among them
  --progress=SECONDS    how long a run lasts that has got somewhere; default 3600
  --max-silence=SECONDS how long looks may go on failing (gcloud, ssh); default 3600
  --grace=SECONDS       how long workers may go on after one has ended, before they are stopped;
                        default 600
  --patience=SECONDS    how long to go on asking for a slice; default 86400. A request that waits in
                        the queue then stays there

TEXT
  common_options
}

max_restarts=20 progress=3600 max_silence=3600 grace=600 patience=86400
for argument in "$@"; do
  case "$argument" in
    --max-restarts=*) max_restarts=${argument#*=} ;;
    --progress=*) progress=${argument#*=} ;;
    --max-silence=*) max_silence=${argument#*=} ;;
    --grace=*) grace=${argument#*=} ;;
    --patience=*) patience=${argument#*=} ;;
    *) common_option "$argument" || unknown_option "$argument" ;;
  esac
done
check_common
whole_number --max-restarts "$max_restarts"
whole_number --progress "$progress"
whole_number --max-silence "$max_silence"
whole_number --grace "$grace"
whole_number --patience "$patience"

# restarts: all of them; in_a_row: those since a run that lasted; silent_since: the first of the looks
# that have failed since one went well.
restarts=0 in_a_row=0 started=$SECONDS silent_since="" last="" first_end="" queued=""
need_setup="" need_run=""
recall create || say "note: create.sh was not run from this checkout: a slice that is taken will not be made anew"
case " ${RECALLED[*]-} " in *" --queued "*) queued=queued ;; esac

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
  BRANCHNETS_WATCHED=yes bash "$ROOT/launch/tpu/$what.sh" "--name=$NAME" "--zone=$ZONE" \
    ${PROJECT:+"--project=$PROJECT"} "--interval=$INTERVAL" ${DRY_RUN:+--dry-run} \
    ${SSH_OPTIONS[@]+"${SSH_OPTIONS[@]/#/--ssh-option=}"} "$@" ${RECALLED[@]+"${RECALLED[@]}"}
}

failed() { # failed MESSAGE: one look went wrong
  silent_since=${silent_since:-$SECONDS}
  note "$1"
  if [ $((SECONDS - silent_since)) -ge "$max_silence" ]; then
    say "error: no look went well for $((SECONDS - silent_since)) s; the run may go on. gcloud said:
${WHY:-$(tail -n 5 "$SCRATCH/said" 2>/dev/null)}
$SSH_HINT"
    exit 1
  fi
}

went_well() { silent_since=""; }

# Ends the script where run.sh --stop was called, also amid a restart.
heed_stop() {
  recall stopped || return 0
  read_slice
  if [ "$STATE" = READY ]; then # where this script was just starting it again
    read_workers "bash on_vm_run.sh stop; bash on_vm_run.sh status $(kept_lines)"
    keep_log
  fi
  stamp "$NAME: stopped on request; run.sh starts it again. The slice costs until launch/tpu/delete.sh"
  exit 0
}

# keep_log: what worker 0 has printed since the last look, which came with its status. A VM that is
# taken takes its log along.
keep_log() {
  sed -n 's/^branchnets-log //p' "$SCRATCH/answers" >"$SCRATCH/log"
  [ -s "$SCRATCH/log" ] || return 0
  cat "$SCRATCH/log" >>"$MEMORY/log"
  remember log_lines "$(($(kept_lines) + $(wc -l <"$SCRATCH/log")))"
}

# How many lines of the log of this VM are kept.
kept_lines() {
  if recall log_lines; then printf '%s' "${RECALLED[0]}"; else printf 0; fi
}

show_log() { # show_log WORKER
  say "--- the end of the log of worker $1:"
  on_workers "$1" "bash on_vm_run.sh tail 50" >&2 || say "(the log could not be read)"
  say "---"
}

count_restart() { # count_restart REASON [WORKER]
  [ $((SECONDS - started)) -lt "$progress" ] || in_a_row=0
  if [ "$in_a_row" -ge "$max_restarts" ]; then
    [ -z "${2:-}" ] || show_log "$2"
    say "error: $1, and --max-restarts=$max_restarts is used up. What was saved is whole: run.sh and watch.sh go on from it."
    exit 1
  fi
  restarts=$((restarts + 1)) in_a_row=$((in_a_row + 1))
  stamp "$NAME: $1; restart $in_a_row of at most $max_restarts"
}

# Whether what is there of a slice or its request will not come up any more.
is_dead() {
  QUEUE=NONE
  [ -z "$queued" ] || read_queue
  read_slice
  case "$QUEUE $STATE" in
    FAILED* | SUSPEND* | *\ PREEMPTED | *\ TERMINATED | *\ UNKNOWN | *\ STOP* | *\ DELETING) ;;
    *) return 1 ;;
  esac
}

# Deletes what is left of a slice, and asks for another until it comes.
make_anew() {
  local start=$SECONDS pause=1 left code deleted=""
  restarts=$((restarts + 1))
  stamp "$NAME: $1; it is made anew"
  recall create || die "the slice is gone and create.sh was not run from this checkout; make it with create.sh, then setup.sh and run.sh"
  forget log_lines
  while :; do
    heed_stop
    left=$((10#$patience - (SECONDS - start)))
    [ "$left" -gt 0 ] || left=0
    # A request that still waits keeps its place; only what will not come is deleted.
    [ -n "$deleted" ] || ! delete_slice "$queued" || deleted=yes
    if [ -n "$deleted" ]; then
      code=0
      again create "--timeout=$left" || code=$?
      [ "$code" -ne 0 ] || break
      [ "$code" -ne 2 ] || exit 2 # it has said what asking again would not mend
    fi
    ! is_dead || deleted=""
    if [ $((SECONDS - start)) -ge "$patience" ]; then
      say "error: no slice in $patience s. What was saved is whole: create.sh, setup.sh, run.sh and watch.sh go on from it."
      [ "$QUEUE" = NONE ] || say "The request $NAME is $QUEUE, and stays until launch/tpu/delete.sh."
      exit 1
    fi
    # Twice as long each time, at most sixteen intervals.
    for ((i = 0; i < pause; i++)); do sleep "$INTERVAL"; done
    [ "$pause" -ge 16 ] || pause=$((pause * 2))
  done
  need_setup=yes need_run=yes first_end=""
  went_well
}

start_run() { # start_run TOKEN
  if again run "--token=$1"; then
    need_run="" first_end="" started=$SECONDS
    went_well
  else
    failed "the run did not start"
  fi
}

stop_all() {
  stamp "$NAME: stopping the others"
  read_workers "bash on_vm_run.sh stop"
}

# Counts what the workers said about the run TOKEN: sets RUNNING and ENDED to numbers, WITHOUT to a
# worker that does not have it, BAD to one whose end starting again would not mend, LOST to one whose
# end it would.
judge() {
  local worker
  RUNNING=0 ENDED=0 WITHOUT="" BAD="" LOST=""
  for ((worker = 0; worker < WORKERS; worker++)); do
    if [ "${W_TOKEN[worker]}" != "$1" ]; then
      WITHOUT=$worker
    elif [ "${W_STATE[worker]}" = running ]; then
      RUNNING=$((RUNNING + 1))
    else
      ENDED=$((ENDED + 1))
      if [ "${W_CODE[worker]}" = 0 ]; then
        :
      elif [[ " $RESTARTABLE " == *" ${W_CODE[worker]} "* ]]; then
        LOST=$worker
      else
        BAD=${BAD:-$worker}
      fi
    fi
  done
}

# Looks at the workers; ends the script when the run has ended.
look_at_run() {
  local token silent
  recall token || die "no run was started from this checkout; start it with launch/tpu/run.sh"
  token=${RECALLED[0]}
  read_workers "bash on_vm_run.sh status $(kept_lines)"
  keep_log
  silent=$(silent_workers)
  if [ -n "$silent" ]; then
    # Of a slice that was made by hand, or repaired with new disks.
    if grep -q 'on_vm_run.sh: No such file' "$SCRATCH/said"; then
      count_restart "a worker was not set up"
      [ -z "$(running_workers)" ] || stop_all
      forget log_lines
      need_setup=yes need_run=yes
    else
      failed "worker $silent did not answer"
    fi
    return 0
  fi
  went_well
  judge "$token"
  if [ -n "$WITHOUT" ] && [ "$ENDED" -eq 0 ] && [ "$RUNNING" -gt 0 ]; then
    stamp "$NAME: worker $WITHOUT does not have the run"
    start_run "$token"
  elif [ -n "$WITHOUT" ]; then
    count_restart "worker $WITHOUT does not have the run"
    [ -z "$(running_workers)" ] || stop_all
    need_run=yes
  elif [ "$ENDED" -eq 0 ]; then
    first_end=""
    note "running on $WORKERS worker(s)"
  elif [ "$RUNNING" -gt 0 ]; then
    first_end=${first_end:-$SECONDS}
    note "ended on $ENDED of $WORKERS workers (codes ${W_CODE[*]})"
    if [ -n "$BAD" ] || [ $((SECONDS - first_end)) -ge "$grace" ]; then stop_all; fi
  elif [ -n "$BAD" ]; then
    show_log "$BAD"
    say "error: worker $BAD ended with ${W_CODE[BAD]}, which starting again would not mend (codes of all: ${W_CODE[*]})"
    exit "${W_CODE[BAD]}"
  elif [ -n "$LOST" ]; then
    count_restart "ended with ${W_CODE[*]}" "$LOST"
    need_run=yes
  else
    stamp "$NAME: finished on $WORKERS worker(s) after $restarts restart(s). The slice costs until launch/tpu/delete.sh"
    exit 0
  fi
}

look() {
  heed_stop
  if [ -n "$queued" ]; then
    read_queue
    case "$QUEUE" in
      ACTIVE) ;;
      SUSPENDED | FAILED)
        make_anew "the request is $QUEUE"
        return 0
        ;;
      NONE) die "the queued resource $NAME is gone: somebody deleted it. Nothing was made anew" ;;
      UNREADABLE)
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
        if again setup; then need_setup="" && went_well; else failed "setup failed"; fi
      elif [ -n "$need_run" ]; then
        start_run "$(date -u +%Y%m%dT%H%M%SZ)-$$-$restarts"
      else
        look_at_run
      fi
      ;;
    # https://cloud.google.com/tpu/docs/preemptible: a slice that was taken stays, as PREEMPTED.
    # UNKNOWN: the cloud could not repair it.
    PREEMPTED | TERMINATED | UNKNOWN) make_anew "the slice is $STATE" ;;
    NONE)
      [ -n "$queued" ] || die "the slice $NAME is gone: somebody deleted it. Nothing was made anew"
      failed "the request is ACTIVE without a slice"
      ;;
    STOPPED) need_ready ;;
    UNREADABLE) failed "gcloud does not describe the slice" ;;
    *) note "slice $STATE" ;;
  esac
}

again_or_say() { # again_or_say SCRIPT
  if recall "$1"; then again "$1"; else say "# what launch/tpu/$1.sh does, which was not run from this checkout"; fi
}

if [ -n "$DRY_RUN" ]; then
  say "# every $INTERVAL s"
  [ -z "$queued" ] || read_queue
  read_slice
  on_workers all "bash on_vm_run.sh status $(kept_lines)"
  say "# when a worker has ended and others go on"
  on_workers all "bash on_vm_run.sh stop"
  say "# when it ended with one of $RESTARTABLE"
  again_or_say run
  say "# when it ended with another code, but 0; where WORKER is that worker"
  on_workers WORKER "bash on_vm_run.sh tail 50"
  say "# when run.sh --stop was called"
  read_slice
  on_workers all "bash on_vm_run.sh stop; bash on_vm_run.sh status $(kept_lines)"
  say "# when the slice was taken"
  delete_slice "$queued"
  for what in create setup run; do again_or_say "$what"; done
  exit 0
fi
while :; do
  look
  sleep "$INTERVAL"
done
