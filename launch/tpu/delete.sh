#!/usr/bin/env bash
# Deletes a TPU slice and its place in the queue.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/tpu/common.sh
source "$ROOT/launch/tpu/common.sh"

usage() {
  cat <<'TEXT'
usage: bash launch/tpu/delete.sh --name=NAME --zone=ZONE [--yes] [OPTION ...]

Deletes the queued resource and the slice of that name, with everything on the disks of its VMs.
What is on gs:// stays. Where neither exists, nothing happens.

  --yes  does not ask

TEXT
  common_options
}

yes=""
for argument in "$@"; do
  case "$argument" in
    --yes) yes=yes ;;
    *) common_option "$argument" || unknown_option "$argument" ;;
  esac
done
check_common

# What create, setup, run and watch remember of the slice; the log of its runs, as watch.sh kept it,
# outlives it.
forget_all() {
  local log
  if [ -s "$MEMORY/log" ]; then
    log=$MEMORY-$(date -u +%Y%m%dT%H%M%SZ).log
    mv "$MEMORY/log" "$log"
    say "the log that launch/tpu/watch.sh kept: $log"
  fi
  rm -rf "$MEMORY"
}

if [ -n "$DRY_RUN" ]; then
  read_queue
  read_slice
  say "# and, after the question"
else
  read_queue
  found=""
  case "$QUEUE" in
    NONE) ;;
    UNREADABLE) found+="the queued resource $NAME (gcloud cannot describe it), " ;;
    *)
      need_own_queue
      found+="the queued resource $NAME ($QUEUE), "
      ;;
  esac
  read_slice
  [ "$STATE" = NONE ] || found+="the slice $NAME ($STATE${KIND:+, a $KIND}) with the disks of its VMs, "
  if [ -z "$found" ]; then
    stamp "there is no $NAME in $ZONE of $PROJECT: nothing to delete"
    forget_all
    exit 0
  fi
  if [ -z "$yes" ]; then
    say "In $ZONE of $PROJECT: ${found%, }."
    read -r -p "Delete? Type its name: " answer || answer=""
    [ "$answer" = "$NAME" ] || die "nothing was deleted"
  fi
fi
if ! delete_slice queued; then
  say "error: not everything was deleted, as gcloud says above; run this again. Until then it may cost money."
  exit 1
fi
[ -z "$DRY_RUN" ] || exit 0
stamp "$NAME is deleted"
forget_all
