#!/usr/bin/env bash
# Makes the virtual environment that launch/local.sh and launch/test.sh run in.
# Sourced by them; needs ROOT, the repository's root. Reads two variables:
#   PYTHON  the interpreter to build the environment with (default: the newest one found)
#   VENV    the environment's folder (default: .venv in the repository's root)

MIN_MINOR=11  # the lowest Python 3 release that setup.py accepts

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  echo "error: launch/environment.sh is a part of the other scripts and does nothing by itself; see: bash launch/local.sh --help" >&2
  exit 2
fi
# shellcheck source=launch/shell.sh
source "$ROOT/launch/shell.sh"

# Prints "3.MINOR" of an interpreter; fails where it cannot run (a pyenv shim may not).
python_version() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

recent_enough() {
  case "$1" in
    3.*) [ "${1#3.}" -ge "$MIN_MINOR" ] ;;
    *) return 1 ;;
  esac
}

# Debian ships Python without the parts that venv needs, as packages of their own.
can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Sets BASE_PYTHON to an interpreter that is recent enough and can make environments.
find_python() {
  local name version
  if [ -n "${PYTHON:-}" ]; then
    version=$(python_version "$PYTHON") || die "PYTHON=$PYTHON does not run"
    recent_enough "$version" \
      || die "PYTHON=$PYTHON is Python $version; branchnets needs 3.$MIN_MINOR or newer"
    can_make_venv "$PYTHON" \
      || die "PYTHON=$PYTHON cannot make virtual environments; install its venv package (Debian: apt-get install python$version-venv)"
    BASE_PYTHON=$PYTHON
    return
  fi
  local seen=""
  for name in python3.13 python3.12 python3.11 python3; do
    version=$(python_version "$name") || continue
    if ! recent_enough "$version"; then
      seen+=" $name=$version(too old)"
    elif ! can_make_venv "$name"; then
      seen+=" $name=$version(without venv: apt-get install python$version-venv)"
    else
      BASE_PYTHON=$name
      return
    fi
  done
  die "no Python 3.$MIN_MINOR or newer with venv was found (found:${seen:- none}); install one, or name it with PYTHON=/path/to/python3"
}

# ensure_environment [EXTRA]: sets PY to the interpreter of an environment that has branchnets.
# A stamp per extra holds what was installed; an interrupted install leaves a mark and is redone. With
# DRY_RUN it prints what that takes.
ensure_environment() {
  local extra="${1:-}" venv version stamp wanted install
  case "${VENV:-.venv}" in
    /*) venv=$VENV ;;
    *) venv=$ROOT/${VENV:-.venv} ;;
  esac
  PY=$venv/bin/python
  stamp=$venv/branchnets-installed${extra:+-$extra}

  if ! "$PY" -m pip --version >/dev/null 2>&1; then
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
      die "$venv exists and is not a virtual environment; move it away or set VENV to another folder"
    fi
    find_python
    say "${DRY_RUN:+# }Making $venv with $BASE_PYTHON ($(python_version "$BASE_PYTHON"))"
    perform "$BASE_PYTHON" -m venv --clear "$venv"
  else
    version=$(python_version "$PY")
    recent_enough "$version" \
      || die "$venv has Python $version; branchnets needs 3.$MIN_MINOR or newer. Remove it, or set VENV to another folder"
    if [ -n "${PYTHON:-}" ] && [ "$(python_version "$PYTHON")" != "$version" ]; then
      die "$venv has Python $version and PYTHON=$PYTHON is another; remove it, or set VENV to another folder"
    fi
  fi

  wanted="$ROOT $(cksum <"$ROOT/setup.py")"
  if [ -e "$venv/branchnets-installing" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    say "${DRY_RUN:+# }Installing branchnets${extra:+ with its $extra extra} into $venv (a minute or two)"
    # Editable: what runs is this checkout. From inside the root, since pip would take brackets
    # in a longer path for extras.
    install=("$PY" -m pip install --quiet --disable-pip-version-check --no-warn-script-location
      --editable ".${extra:+[$extra]}")
    if [ -n "$DRY_RUN" ]; then
      show cd "$ROOT"
      show "${install[@]}"
      return
    fi
    touch "$venv/branchnets-installing"
    (cd "$ROOT" && "${install[@]}") \
      || die "the install failed, as pip says above; run this again to go on with it"
    printf '%s\n' "$wanted" >"$stamp"
    # An extra holds everything that the plain install does.
    printf '%s\n' "$wanted" >"$venv/branchnets-installed"
    rm -f "$venv/branchnets-installing"
  fi
}
