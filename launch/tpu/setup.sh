#!/usr/bin/env bash
# Installs branchnets on every VM of a TPU slice, and checks that JAX sees the whole slice.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/tpu/common.sh
source "$ROOT/launch/tpu/common.sh"

usage() {
  cat <<'TEXT'
usage: bash launch/tpu/setup.sh --name=NAME --zone=ZONE [OPTION ...]

Copies this checkout, uncommitted changes included, to all workers (or has them clone a git
repository), makes an environment with Python 3.11 or newer there, installs branchnets, and
compares the devices that JAX sees with those that the type of the slice has. Refuses a slice on which
a run is going on.

  --git=URL       install from this repository instead
  --ref=REF       a branch, tag or commit of it
  --archive=FILE  install from this tar archive (.tar.gz) of a checkout instead
  --extras=NAMES  extras of setup.py; default tpu,gcs
  --python=3.N    the Python to use, fetched where the VM lacks it; default: any from 3.11 on that is
                  there, else 3.11

TEXT
  common_options
}

git="" ref="" archive="" extras=tpu,gcs python=""
for argument in "$@"; do
  case "$argument" in
    --git=*) git=${argument#*=} ;;
    --ref=*) ref=${argument#*=} ;;
    --archive=*) archive=${argument#*=} ;;
    --extras=*) extras=${argument#*=} ;;
    --python=*) python=${argument#*=} ;;
    *) common_option "$argument" || unknown_option "$argument" ;;
  esac
done
check_common
[ -z "$git" ] || [ -z "$archive" ] || die "--git and --archive exclude each other"
[ -z "$ref" ] || [ -n "$git" ] || die "--ref needs --git"
[[ $extras =~ ^[a-z_,]*$ ]] || die "--extras=$extras: names of extras, with commas between them"
[[ -z $python || $python =~ ^3\.[0-9]+$ ]] || die "--python=$python is not of the form 3.11"

# The files that git knows or does not ignore, with the commit they are based on, in one archive.
pack_checkout() { # pack_checkout FILE
  local stage=$MEMORY/checkout
  perform rm -rf "$stage"
  # Not a repository around it, which git finds too.
  if [ -e "$ROOT/.git" ]; then
    perform git clone --quiet --depth=1 --no-checkout "file://$ROOT" "$stage"
    perform git "--git-dir=$stage/.git" "--work-tree=$ROOT" -C "$ROOT" add --all
    perform git -C "$stage" checkout-index --all
    perform git -C "$stage" reset --quiet  # what is not committed counts as changed
    perform tar -C "$stage" -czf "$1" .
    perform rm -rf "$stage"
  else
    perform tar -C "$ROOT" '--exclude=./.venv*' --exclude=./runs --exclude=__pycache__ -czf "$1" .
  fi
}

# How many devices JAX has on a slice: v2 to v5p are named by their TensorCores, v5e and v6e by their
# chips; a chip of v4 and v5p is one device with both its cores.
# https://cloud.google.com/tpu/docs/v4, .../v5p, .../v5e, .../v6e
expected_devices() {
  local number=${1##*-}
  case "$1" in
    v4-* | v5p-*) echo $((number / 2)) ;;
    v2-* | v3-* | v5litepod-* | v6e-*) echo "$number" ;;
  esac
}

# several TIMES COMMAND...: ssh is not up yet in the first minute of a VM.
several() {
  local times=$1 try
  shift
  for ((try = 1; try <= times; try++)); do
    "$@" && return
    [ "$try" -eq "$times" ] || { stamp "again (try $((try + 1)) of $times) ..."; sleep "$INTERVAL"; }
  done
  return 1
}

need_ready
copies=("$ROOT/launch/tpu/on_vm_setup.sh" "$ROOT/launch/tpu/on_vm_run.sh")
if [ -n "$git" ]; then
  from="--git=$(show "$git")${ref:+ --ref=$(show "$ref")}"
else
  # Kept, so that a slice that is made anew goes on with the same code.
  kept=$MEMORY/branchnets.tar.gz
  [ -z "$archive" ] || [ -n "$DRY_RUN" ] || [ -s "$archive" ] || die "--archive=$archive does not exist"
  perform mkdir -p "$MEMORY"
  if [ -z "$archive" ]; then
    pack_checkout "$kept"
    # Files that git does not ignore go along, however large.
    [ -n "$DRY_RUN" ] || say "this checkout, packed: $(du -h "$kept" | cut -f1)"
  elif [ ! "$archive" -ef "$kept" ] && [ "$archive" != "$kept" ]; then
    perform cp "$archive" "$kept"
  fi
  archive=$kept
  copies+=("$archive")
  from="--archive=branchnets.tar.gz"
fi

# A run would lose its source under its feet, and the check would ask for the TPU that it holds.
ask="if [ -e on_vm_run.sh ]; then bash on_vm_run.sh status; fi"
ask_workers() {
  read_workers "$ask"
  [ "$REACHED" -eq 0 ]
}
if [ -n "$DRY_RUN" ]; then
  on_workers all "$ask"
else
  if ! several 5 ask_workers; then
    cat "$SCRATCH/said" >&2
    die "not all workers answered; nothing was changed.
$SSH_HINT"
  fi
  running=$(running_workers)
  [ -z "$running" ] || die "$running; stop it first (run.sh --stop). Nothing was changed"
fi
several 5 reach scp "${copies[@]}" "$NAME:" --worker=all || die "the files could not be copied.
$SSH_HINT"

install="bash on_vm_setup.sh $from --extras=$extras${python:+ --python=$python}"
if [ -n "$DRY_RUN" ]; then
  on_workers all "$install"
  on_workers all "bash on_vm_setup.sh --check"
  exit 0
fi
on_workers all "$install" | tee "$SCRATCH/sources" >&2 \
  || die "the install failed on a worker, as it says above"
sources=$(grep -o 'branchnets-source .*' "$SCRATCH/sources" | sort -u || true)
if [ "$(grep -c . <<<"$sources")" -ne 1 ]; then
  die "the workers did not all install the same source; run setup.sh again:
$sources"
fi
if [ -n "$git" ]; then # a branch moves on; a slice that is made anew does not
  remember setup "--git=$git" "--ref=${sources##* }" "--extras=$extras" ${python:+"--python=$python"}
else
  remember setup "--archive=$archive" "--extras=$extras" ${python:+"--python=$python"}
fi

stamp "asking JAX for the devices of the slice ..."
on_workers all "bash on_vm_setup.sh --check" >"$SCRATCH/devices" \
  || die "JAX does not start on all workers, as it says above"
cat "$SCRATCH/devices" >&2
answers=$(grep -c 'branchnets-devices ' "$SCRATCH/devices" || true)
[ "$answers" -eq "$WORKERS" ] || die "$answers of $WORKERS workers answered"
if grep 'branchnets-devices ' "$SCRATCH/devices" | grep -qv ' platform=tpu '; then
  die "JAX does not see the TPU on every worker; is something else using it (run.sh --stop), and is tpu among --extras?"
fi
devices=$(grep -o ' all=[0-9]*' "$SCRATCH/devices" | sort -u)
expected=$(expected_devices "$KIND")
if [ "$devices" != " all=${expected:-${devices# all=}}" ]; then
  die "a $KIND has ${expected:-one number of} devices, and JAX sees:$(tr '\n' ' ' <<<"$devices")"
fi
stamp "$NAME is set up: $WORKERS worker(s),${devices/ all=/ } devices. Next: launch/tpu/run.sh"
