#!/usr/bin/env bash
# Shows the logs of a run on a TPU slice.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/tpu/common.sh
source "$ROOT/launch/tpu/common.sh"

usage() {
  cat <<'TEXT'
usage: bash launch/tpu/logs.sh --name=NAME --zone=ZONE [OPTION ...]

Prints the end of the trainer's log, each line with its worker's number. Worker 0 alone prints the
progress.

  --worker=N   0 (the default), another number, several (1,4 or 1-3), or all
  --lines=N    how many lines of each; default 50
  --follow     goes on with what comes, until Ctrl-C; the run does not notice

TEXT
  common_options
}

worker=0 lines=50 what=tail
for argument in "$@"; do
  case "$argument" in
    --worker=*) worker=${argument#*=} ;;
    --lines=*) lines=${argument#*=} ;;
    --follow) what=follow ;;
    *) common_option "$argument" || unknown_option "$argument" ;;
  esac
done
check_common
whole_number --lines "$lines"
[[ $worker =~ ^(all|[0-9]+([,-][0-9]+)*)$ ]] || die "--worker=$worker is no worker"
on_workers "$worker" "bash on_vm_run.sh $what $lines"
