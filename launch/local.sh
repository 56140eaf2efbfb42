#!/usr/bin/env bash
# Trains on this machine: makes the environment if it is missing, then runs branchnets.main.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
source "$ROOT/launch/environment.sh"

usage() {
  cat <<'TEXT'
usage: bash launch/local.sh [--config=FILE[:ARGUMENTS]] [--workdir=FOLDER] [--dry-run] [ARGUMENT ...]

Makes .venv if it is missing, installs branchnets into it, and trains. Without arguments it
trains configs/coded_digits.py into runs/coded_digits: real handwritten digits, a few minutes
on a laptop. Run it again to go on from the newest checkpoint.

  --config=FILE    the config; arguments follow a colon: configs/coded_cifar10.py:smoke,seed=3
  --workdir=FOLDER the run directory; without it, runs/ and the config's name
  --dry-run        prints the commands, and runs none
  ARGUMENT         passed to branchnets.main as it is, for example --config.seed=1 or --mode=eval

Relative paths start at the repository's root, wherever the script is called from.

environment:
  PYTHON  the Python (3.11 or newer) to make the environment with; default: the newest found
  VENV    the environment's folder; default: .venv
  EXTRA   an extra of setup.py to install too: tpu, cuda, ...

examples:
  bash launch/local.sh
  bash launch/local.sh --config=configs/coded_cifar10.py --workdir=runs/c10
  bash launch/local.sh --workdir=runs/c10 --mode=eval
TEXT
}

given=()
for argument in "$@"; do
  case "$argument" in
    -h | --help)
      usage
      exit 0
      ;;
    --dry-run) DRY_RUN=yes ;;
    *) given+=("$argument") ;;
  esac
done
read_trainer ${given[@]+"${given[@]}"}

defaults=()
# An evaluation reads the config of its run directory, so it gets no default one.
if [ -z "$CONFIG" ] && ! { [ "$MODE" = eval ] && [ -n "$WORKDIR" ]; }; then
  CONFIG=configs/coded_digits.py
  defaults+=("--config=$CONFIG")
fi
need_config
if [ -z "$WORKDIR" ]; then
  file=${CONFIG%%:*}
  name=$(basename "$file" .py)
  if [ "$CONFIG" != "$file" ]; then
    name+=_$(printf '%s' "${CONFIG#*:}" | tr -c 'A-Za-z0-9.=-' '_')
  fi
  defaults+=("--workdir=runs/$name")
fi

ensure_environment "${EXTRA:-}"
perform cd "$ROOT"
# On a CPU, XLA takes its temporaries from malloc anew at every step; with huge pages (glibc 2.35 or
# newer) a step spends a tenth less time, most of it saved from page faults.
perform export "GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
become "$PY" -m branchnets.main ${defaults[@]+"${defaults[@]}"} ${given[@]+"${given[@]}"}
