#!/usr/bin/env bash
# One task of launch/slurm/train.sbatch: runs its command, and makes its exit code one that counts.
# srun reports the highest code of all tasks, so an error of one task (2) would hide behind the 76 of
# those that lost it. Codes that starting again would not mend are reported as 200 more.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/shell.sh
source "$ROOT/launch/shell.sh"

usage() {
  cat <<'TEXT'
usage: bash launch/slurm/task.sh [--dry-run] COMMAND [ARGUMENT ...]

Runs COMMAND, and hands SIGTERM on to it. Ends with its exit code where that is 0 or says that the
job may start again (75, 76, 134, 137, 143); otherwise with 200 more, and 252 for any above 52.

  --dry-run  prints the command, ready to be pasted, and does not run it
TEXT
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  --dry-run) shift; show "$@"; exit 0 ;;
  "" | -*) usage >&2; exit 2 ;;
esac
child=""
trap 'SIGNALLED=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM
"$@" &
child=$!
wait_for "$child"
case "$CODE" in
  0 | 75 | 76 | 134 | 137 | 143) exit "$CODE" ;;
esac
say "error: task ${SLURM_PROCID:-?} ended with $CODE, which starting again would not mend"
[ "$CODE" -le 52 ] || CODE=52  # 253 is srun's own, for a task that was out of memory
exit $((200 + CODE))
