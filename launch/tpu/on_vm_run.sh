#!/usr/bin/env bash
# Runs on every VM of a slice; launch/tpu/setup.sh copies it there. Starts the trainer so that it
# outlives the ssh connection, and says what became of it.
set -euo pipefail

SELF=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")
BASE=${BRANCHNETS_HOME:-$HOME/branchnets}
RUN=$BASE/run  # of the newest start: log, "TOKEN PROCESS" and, once it ended, "TOKEN CODE"

usage() {
  cat <<'TEXT'
usage: bash on_vm_run.sh COMMAND

  start TOKEN [ARGUMENT ...]  starts python -m branchnets.main ARGUMENT ... detached; a second
                              start with the same token does nothing
  status                      prints one line: worker, token, state (none, running, ended, lost),
                              exit code
  stop [SECONDS]              asks the trainer to save and stop (SIGTERM); kills it after SECONDS
                              (default 120)
  tail [LINES]                prints the end of the log (default 50 lines)
  follow [LINES]              the same, and what comes

environment:
  BRANCHNETS_HOME  where setup put the environment and the source; default: ~/branchnets
TEXT
}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }

# The number of this VM in its slice, from the metadata server that JAX asks as well.
worker() {
  if [ ! -s "$BASE/worker" ]; then
    curl --silent --fail --header 'Metadata-Flavor: Google' \
      http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number \
      >"$BASE/worker" || die "the metadata server does not say which worker this VM is"
  fi
  cat "$BASE/worker"
}

# Tells a process from a later one of the same number, also after the VM was restarted.
identity() {
  local fields
  [ -r "/proc/$1/stat" ] || return 1
  fields=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -r -a fields <<<"${fields##*) }"
  [ "${fields[0]}" != Z ] || return 1
  printf '%s %s %s\n' "$1" "${fields[19]}" "$(cat /proc/sys/kernel/random/boot_id)"
}

# Sets TOKEN, STATE, CODE and PROCESS of the newest start.
look() {
  TOKEN=- STATE=none CODE=- PROCESS=""
  [ -s "$RUN/process" ] || return 0
  read -r TOKEN PROCESS <"$RUN/process"
  STATE=running
  # In this order: one that ends in between has left its code.
  if [ "$(identity "${PROCESS%% *}")" != "$PROCESS" ]; then
    STATE=lost CODE=137  # killed with its supervisor: out of memory, or the VM was restarted
  fi
  local token code
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

start() {
  [ $# -ge 1 ] || die "start needs a token"
  local token=$1
  shift
  [ -x "$BASE/venv/bin/python" ] || die "$BASE has no environment; run launch/tpu/setup.sh first"
  mkdir -p "$RUN"
  exec 9>"$RUN/lock"
  flock 9  # a start that ssh repeats waits for the first one
  look
  if [ "$TOKEN" = "$token" ]; then
    report
    return
  fi
  [ "$STATE" != running ] || die "worker $(worker) still runs $TOKEN; stop it first (run.sh --stop)"
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
  local token=$1 child code=0
  shift
  cd "$BASE/source"
  "$BASE/venv/bin/python" -m branchnets.main "$@" &
  child=$!
  trap 'kill -TERM "$child" 2>/dev/null || true' TERM
  printf '%s %s\n' "$token" "$(identity $$)" >"$RUN/process.new"
  mv "$RUN/process.new" "$RUN/process"
  while :; do  # a signal ends wait before the child has ended
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || break
  done
  printf '=== %s: exit code %s\n' "$(date -u +%FT%TZ)" "$code"
  printf '%s %s\n' "$token" "$code" >"$RUN/code.new"
  mv "$RUN/code.new" "$RUN/code"
}

stop() {
  local patience=${1:-120} start=$SECONDS process
  look
  if [ "$STATE" = running ]; then
    process=${PROCESS%% *}
    kill -TERM "$process" 2>/dev/null || true
    while look && [ "$STATE" = running ]; do
      if [ $((SECONDS - start)) -ge "$patience" ]; then
        say "worker $(worker) did not stop in $patience s: killed"
        # The session's whole process group; "-1" would be every process of the VM.
        [ "$process" -gt 1 ] || die "$process is no process of a run"
        kill -KILL -- "-$process" 2>/dev/null || true
        break
      fi
      sleep 0.1
    done
    while look && [ "$STATE" = running ]; do sleep 0.05; done
  fi
  report
}

case "${1:-}" in
  start) shift; start "$@" ;;
  supervise) shift; supervise "$@" ;;
  status) report ;;
  stop) stop "${2:-120}" ;;
  tail) tail -n "${2:-50}" "$RUN/log" | sed "s/^/[$(worker)] /" ;;
  follow) tail -n "${2:-50}" -F "$RUN/log" 2>/dev/null | sed -u "s/^/[$(worker)] /" ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
