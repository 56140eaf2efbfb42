#!/usr/bin/env bash
# Runs on every VM of a slice: launch/tpu/setup.sh copies it there, or it is called in a checkout there.
# Starts the trainer so that it outlives the ssh connection, and says what became of it.
set -euo pipefail

SELF=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")
BASE=${BRANCHNETS_HOME:-$HOME/branchnets-vm}
# Of the newest start: log, process ("TOKEN SUPERVISOR TRAINER", three words for each of the two) and,
# once it has ended, code ("TOKEN CODE").
RUN=$BASE/run
DRY_RUN=""

usage() {
  cat <<'TEXT'
usage: bash on_vm_run.sh [--dry-run] COMMAND

  start [TOKEN] ARGUMENT ...  starts python -m branchnets.main ARGUMENT ... detached; a second
                              start with the same token (a word without dashes in front, which
                              is made up where none is given) does nothing
  status [LINES]              prints one line: worker, token, state (none, running, ended, lost),
                              exit code; worker 0 given LINES also prints its log after so many
  stop [SECONDS]              asks the trainer to save and stop (SIGTERM); kills it after SECONDS
                              (default 120)
  tail [LINES]                prints the end of the log (default 50 lines)
  follow [LINES]              the same, and what comes
  --dry-run                   prints what start and stop would run, and does not run it; comes
                              before the command

environment:
  BRANCHNETS_HOME  where setup put the environment and the source; default: ~/branchnets-vm
TEXT
}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }

# The number of this VM in its slice, from the metadata server that JAX asks as well.
worker() {
  local number
  if [ -s "$BASE/worker" ]; then
    cat "$BASE/worker"
    return
  fi
  number=$(curl --silent --fail --header 'Metadata-Flavor: Google' \
    http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number) \
    || die "the metadata server does not say which worker this VM is"
  [ ! -d "$BASE" ] || printf '%s' "$number" >"$BASE/worker"  # which is there after setup
  printf '%s' "$number"
}

# Tells a process from a later one of the same number, also after the VM was restarted.
identity() {
  local line fields boot
  [[ $1 =~ ^[0-9]+$ ]] || return 1
  read -r line 2>/dev/null <"/proc/$1/stat" || return 1
  read -r -a fields <<<"${line##*) }"
  [ "${fields[0]}" != Z ] || return 1
  read -r boot </proc/sys/kernel/random/boot_id
  printf '%s %s %s\n' "$1" "${fields[19]}" "$boot"
}

# is_alive IDENTITY: whether it is the process that it was.
is_alive() { [ -n "$1" ] && [ "$(identity "${1%% *}")" = "$1" ]; }

# Sets TOKEN, STATE and CODE of the newest start, SUPERVISOR, and TRAINER, which outlives it where
# the supervisor alone was killed.
look() {
  local a b c token code
  TOKEN=- STATE=none CODE=- SUPERVISOR="" TRAINER=""
  [ -s "$RUN/process" ] || return 0
  read -r TOKEN a b c TRAINER <"$RUN/process"
  SUPERVISOR="$a $b $c"
  STATE=running
  # In this order: one that ends in between has left its code.
  if ! is_alive "$SUPERVISOR" && ! is_alive "$TRAINER"; then
    STATE=lost CODE=137  # killed with its supervisor: out of memory, or the VM was restarted
  fi
  if read -r token code 2>/dev/null <"$RUN/code" && [ "$token" = "$TOKEN" ]; then
    STATE=ended CODE=$code
  fi
}

report() {
  look
  # One short write, so that lines of several workers do not mix.
  printf 'branchnets-status worker=%s token=%s state=%s code=%s\n' \
    "$(worker)" "$TOKEN" "$STATE" "$CODE"
}

# log_after LINES: the log of worker 0 from there on, for watch.sh to keep.
log_after() {
  [ "$(worker)" = 0 ] && [ -e "$RUN/log" ] || return 0
  tail -n "+$((10#$1 + 1))" "$RUN/log" | head -n 5000 | sed 's/^/branchnets-log /' || true
}

start() {
  [ $# -ge 1 ] || die "start needs the trainer's arguments: --workdir=gs://BUCKET/RUN --config=FILE"
  local token
  case "$1" in
    -*) token=$(date -u +%Y%m%dT%H%M%SZ)-$$ ;;
    *)
      token=$1
      shift
      ;;
  esac
  if [ -n "$DRY_RUN" ]; then
    printf 'cd %q\nsetsid nohup %q -m branchnets.main%s >>%q 2>&1\n' "$BASE/source" \
      "$BASE/venv/bin/python" "${*:+$(printf ' %q' "$@")}" "$RUN/log"
    return
  fi
  [ -x "$BASE/venv/bin/python" ] || die "$BASE has no environment; run setup.sh first, or on_vm_setup.sh on every worker"
  mkdir -p "$RUN"
  exec 9>"$RUN/lock"
  flock 9  # a start that ssh repeats waits for the first one
  look
  if [ "$TOKEN" = "$token" ]; then
    report
    return
  fi
  [ "$STATE" != running ] || die "worker $(worker) still runs $TOKEN; stop it first (run.sh --stop, or on_vm_run.sh stop on every worker)"
  printf '\n=== %s: start %s: python -m branchnets.main%s\n' "$(date -u +%FT%TZ)" "$token" \
    "${*:+$(printf ' %q' "$@")}" >>"$RUN/log"
  # A session of its own: neither a hang-up of ssh nor its end reaches it.
  setsid nohup bash "$SELF" supervise "$token" "$@" >>"$RUN/log" 2>&1 </dev/null 9>&- &
  local tries=0
  while look && [ "$TOKEN" != "$token" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || die "the trainer's supervisor did not start; see $RUN/log"
    sleep 0.05
  done
  report
}

# Runs the trainer, hands SIGTERM on to it, and keeps its exit code.
supervise() {
  local token=$1 child="" code signalled=yes
  shift
  cd "$BASE/source"
  trap 'signalled=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM
  "$BASE/venv/bin/python" -m branchnets.main "$@" &
  child=$!
  # The trainer's identity may be empty: it has ended already.
  printf '%s %s %s\n' "$token" "$(identity $$)" "$(identity "$child" || true)" >"$RUN/process.new"
  mv "$RUN/process.new" "$RUN/process"
  # A signal ends wait early with a code that is not the child's; once more gives that.
  while [ -n "$signalled" ]; do
    signalled="" code=0
    wait "$child" || code=$?
  done
  printf '=== %s: exit code %s\n' "$(date -u +%FT%TZ)" "$code"
  printf '%s %s\n' "$token" "$code" >"$RUN/code.new"
  mv "$RUN/code.new" "$RUN/code"
}

# The process to stop: the supervisor, which keeps the exit code, or the trainer that outlived it.
target() {
  if is_alive "$SUPERVISOR"; then
    printf '%s' "${SUPERVISOR%% *}"
  elif is_alive "$TRAINER"; then
    printf '%s' "${TRAINER%% *}"
  fi
}

# Kills the process group that the supervisor leads: the trainer, and what the trainer started. Only
# after a living process was found to be the run's own and in that group; any other number could be
# somebody else's group, and "-1" every process of the VM.
kill_group() {
  local leader=${SUPERVISOR%% *} member line fields
  member=$(target)
  [ -n "$member" ] || return 0
  read -r line 2>/dev/null <"/proc/$member/stat" || return 0
  read -r -a fields <<<"${line##*) }"
  if [ "$leader" -le 1 ] || [ "${fields[2]}" != "$leader" ]; then
    die "process $member is not in the group of the run ($leader): not killed"
  fi
  kill -KILL -- "-$leader" 2>/dev/null || true
}

stop() {
  local patience=${1:-120} start=$SECONDS process
  [[ $patience =~ ^[0-9]+$ ]] || die "stop $patience: not a whole number of seconds"
  look
  if [ -n "$DRY_RUN" ]; then
    process=$(if [ "$STATE" = running ]; then target; fi)
    if [ -n "$process" ]; then echo "kill -TERM $process"; else say "# nothing to stop: no run is going on here"; fi
    return
  fi
  if [ "$STATE" = running ]; then
    process=$(target)
    [ -z "$process" ] || kill -TERM "$process" 2>/dev/null || true
    while look && [ "$STATE" = running ]; do
      if [ $((SECONDS - start)) -ge "$patience" ]; then
        say "worker $(worker) did not stop in $patience s: killed"
        kill_group
        break
      fi
      sleep 0.1
    done
    while look && [ "$STATE" = running ]; do sleep 0.05; done
  fi
  report
}

if [ "${1:-}" = --dry-run ]; then DRY_RUN=yes; shift; fi
# After start they would be words for the trainer, of a run that nobody meant.
for word in "${@:2}"; do
  case "$word" in
    --dry-run | --help | -h) die "$word comes before the command: on_vm_run.sh $word $1 ..." ;;
  esac
done
# exit: setup.sh may replace this file meanwhile, and bash would read on in the new one.
case "${1:-}" in
  start) shift; start "$@"; exit ;;
  supervise) shift; supervise "$@"; exit ;;
  status) report; [ -z "${2:-}" ] || log_after "$2"; exit ;;
  stop) stop "${2:-120}"; exit ;;
  tail) tail -n "${2:-50}" "$RUN/log" | sed "s/^/[$(worker)] /"; exit ;;
  follow) tail -n "${2:-50}" -F "$RUN/log" 2>/dev/null | sed -u "s/^/[$(worker)] /"; exit ;;
  -h | --help) usage; exit ;;
  *) usage >&2; exit 2 ;;
esac
