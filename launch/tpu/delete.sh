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

if [ -z "$yes" ] && [ -z "$DRY_RUN" ]; then
  read -r -p "Delete the slice $NAME in $ZONE, with the disks of its VMs? Type its name: " answer || answer=""
  [ "$answer" = "$NAME" ] || die "nothing was deleted"
fi
if ! delete_slice; then
  say "error: not everything was deleted, as gcloud says above; run this again. Until then it may cost money."
  exit 1
fi
[ -z "$DRY_RUN" ] || exit 0
if [ "$QUEUE" = NONE ] && [ "$STATE" = NONE ]; then
  stamp "there is no $NAME in $ZONE: nothing to delete"
else
  stamp "$NAME is deleted"
fi
rm -rf "$MEMORY"
