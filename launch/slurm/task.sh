#!/usr/bin/env bash
# One task of launch/slurm/train.sbatch: runs its command, and makes its exit code one that counts.
# srun reports the highest code of all tasks, so an error of one task (2) would hide behind the 76 of
# those that lost it. Codes that starting again would not mend are reported as 200 more.
set -euo pipefail

case "${1:-}" in
  -h | --help)
    echo "usage: bash launch/slurm/task.sh COMMAND [ARGUMENT ...]"
    exit 0
    ;;
esac
"$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true' TERM
while :; do  # a signal ends wait before the child has ended
  code=0
  wait "$child" || code=$?
  kill -0 "$child" 2>/dev/null || break
done
case "$code" in
  0 | 75 | 76 | 134 | 137 | 143) exit "$code" ;;
esac
[ "$code" -le 52 ] || code=52  # 253 is srun's own, for a task that was out of memory
exit $((200 + code))
