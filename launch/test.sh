#!/usr/bin/env bash
# Runs the tests: makes the environment if it is missing, then runs pytest.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
source "$ROOT/launch/environment.sh"

usage() {
  cat <<'TEXT'
usage: bash launch/test.sh [--dry-run] [PYTEST ARGUMENT ...]

Makes .venv if it is missing, installs branchnets with its test extra into it, and runs the
fast tests. Arguments go to pytest; --dry-run prints the commands, and runs none.

Relative paths start at the repository's root, wherever the script is called from.

environment:
  PYTHON   the Python (3.11 or newer) to make the environment with; default: the newest found
  VENV     the environment's folder; default: .venv
  WORKERS  test processes; default: one a core, eight at most

examples:
  bash launch/test.sh
  bash launch/test.sh tests/nn -k grouped
  bash launch/test.sh -m slow
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

ensure_environment test
perform cd "$ROOT"
# One file stays in one process, which compiles what its tests share once.
become "$PY" -m pytest -n "${WORKERS:-auto}" --maxprocesses=8 --dist=loadfile \
  ${given[@]+"${given[@]}"}
