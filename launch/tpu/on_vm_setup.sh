#!/usr/bin/env bash
# Runs on every VM of a slice: launch/tpu/setup.sh copies it there, or it is called in a checkout there.
# Makes ~/branchnets-vm: the source, and an environment that has branchnets.
set -euo pipefail

BASE=${BRANCHNETS_HOME:-$HOME/branchnets-vm}
# The checkout that this file lies in, if it does.
CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && cd ../.. 2>/dev/null && pwd -P) || CHECKOUT=""
[ -e "$CHECKOUT/launch/tpu/on_vm_setup.sh" ] && [ -e "$CHECKOUT/setup.py" ] || CHECKOUT=""
MIN_MINOR=11  # the lowest Python 3 release that setup.py accepts

usage() {
  cat <<'TEXT'
usage: bash launch/tpu/on_vm_setup.sh [OPTION ...]
       bash launch/tpu/on_vm_setup.sh --check

Makes an environment on this VM that has branchnets: with a Python of the VM that is new enough, or
else with one that uv brings. The source is the checkout that this file lies in, which is used where
it is.

  --archive=FILE  the source is a tar archive (.tar.gz) of a checkout instead
  --git=URL       the source is cloned from a repository instead
  --ref=REF       a branch, tag or commit of it; needs --git
  --extras=NAMES  extras of setup.py; default tpu,gcs
  --python=3.N    this Python; default: any from 3.11 on that is there, else 3.11
  --check         prints what JAX sees of the slice; it answers when it runs on all workers at the
                  same time
  --dry-run       prints the commands, and runs none

environment:
  BRANCHNETS_HOME  the folder to make; default: ~/branchnets-vm
TEXT
}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
perform() { # perform COMMAND...: runs it, or prints it with --dry-run
  if [ -n "$dry" ]; then printf '%q' "$1"; shift; printf ' %q' "$@"; echo; else "$@"; fi
}

archive="" git="" ref="" extras=tpu,gcs python=3.11 check="" dry="" asked=""
for argument in "$@"; do
  case "$argument" in
    -h | --help) usage; exit 0 ;;
    --archive=*) archive=${argument#*=} ;;
    --git=*) git=${argument#*=} ;;
    --ref=*) ref=${argument#*=} ;;
    --extras=*) extras=${argument#*=} ;;
    --python=*) python=${argument#*=} asked=yes ;;
    --check) check=yes ;;
    --dry-run) dry=yes ;;
    *) usage >&2; exit 2 ;;
  esac
done

# Whether an interpreter is new enough and a release: Ubuntu 22.04 packages 3.11.0rc1.
recent_enough() {
  "$1" -c "import sys; v = sys.version_info; sys.exit(not (v[:2] >= (3, $MIN_MINOR) and v[3] == 'final'))" 2>/dev/null
}
is_asked() { "$1" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$python')" 2>/dev/null; }
can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Makes $BASE/venv with an interpreter of the VM, or else with one that uv brings: the images of
# Cloud TPU are Ubuntu 22.04, whose Python is 3.10.
make_environment() {
  local name
  if "$BASE/venv/bin/python" -m pip --version >/dev/null 2>&1 \
    && { [ -z "$asked" ] || is_asked "$BASE/venv/bin/python"; }; then
    return
  fi
  [ -n "$dry" ] || rm -f "$BASE/installed"
  for name in "python$python" ${asked:+-} python3.13 python3.12 python3.11 python3; do
    [ "$name" != - ] || break # that one and no other was asked for
    if recent_enough "$name" && can_make_venv "$name"; then
      say "${dry:+# }Making $BASE/venv with $name"
      perform "$name" -m venv --clear "$BASE/venv"
      return
    fi
  done
  say "${dry:+# }No fitting Python with venv here: fetching $python with uv"
  # An environment of its own: newer systems forbid pip outside of one (PEP 668).
  perform python3 -m pip install --quiet --target="$BASE/uv" uv \
    || die "pip could not install uv, as it says above; or install Python $python with venv on the VM"
  perform env PYTHONPATH="$BASE/uv" python3 -m uv venv --quiet --seed --clear --python="$python" \
    "$BASE/venv" || die "uv could not make an environment with Python $python, as it says above"
}

# Puts the source into $BASE/source; sets WHAT to what it is.
get_source() {
  if [ -z "$archive$git" ]; then
    WHAT="checkout $CHECKOUT $(cksum <"$CHECKOUT/setup.py")"
    [ ! "$CHECKOUT" -ef "$BASE/source" ] || return 0 # it is there, or is what it leads to
    perform rm -rf "$BASE/source"
    perform ln -s "$CHECKOUT" "$BASE/source"
    return
  fi
  perform rm -rf "$BASE/source.new"
  if [ -n "$archive" ]; then
    [ -s "$archive" ] || [ -n "$dry" ] || die "$archive is missing"
    WHAT="archive $(if [ -n "$dry" ]; then echo "$archive"; else cksum <"$archive"; fi)"
    perform mkdir -p "$BASE/source.new"
    perform tar -xzf "$archive" -C "$BASE/source.new"
  else
    perform git clone --quiet "$git" "$BASE/source.new" || die "git could not clone $git"
    if [ -n "$ref" ]; then
      perform git -C "$BASE/source.new" checkout --quiet "$ref" || die "$git has no $ref"
    fi
    WHAT="commit $(if [ -n "$dry" ]; then echo "${ref:-HEAD} of $git"; else git -C "$BASE/source.new" rev-parse HEAD; fi)"
  fi
  [ -n "$dry" ] || [ -s "$BASE/source.new/setup.py" ] || die "the source has no setup.py"
  # Runs in relative folders outlive a new source; those of the archive are not the VM's.
  perform mkdir -p "$BASE/runs"
  perform rm -rf "$BASE/source.new/runs"
  perform ln -sfn ../runs "$BASE/source.new/runs"
  perform rm -rf "$BASE/source"
  perform mv "$BASE/source.new" "$BASE/source"
}

install() {
  perform mkdir -p "$BASE"
  if [ -z "$dry" ]; then
    exec 9>"$BASE/setup.lock"
    flock 9  # ssh repeats a command whose connection broke, while the first one may go on
  fi
  make_environment
  get_source
  local wanted="$WHAT extras $extras"
  if [ "$(cat "$BASE/installed" 2>/dev/null)" != "$wanted" ]; then
    say "${dry:+# }Installing branchnets[$extras] ($WHAT); a few minutes"
    # From inside the source, since pip takes brackets in a path for extras. Editable: configs and
    # package are those of one checkout.
    [ -n "$dry" ] || rm -f "$BASE/installed"
    perform cd "$BASE/source"
    perform "$BASE/venv/bin/python" -m pip install --quiet \
      --disable-pip-version-check --editable ".${extras:+[$extras]}" \
      || die "the install failed, as pip says above; run this again to go on with it"
    [ -n "$dry" ] || printf '%s\n' "$wanted" >"$BASE/installed"
  fi
  [ -n "$dry" ] || printf 'branchnets-source %s\n' "$WHAT"
}

# The processes of a slice have to find each other before any of them sees its devices. On a TPU VM
# JAX needs no arguments for it: https://docs.jax.dev/en/latest/multi_process.html
CHECK='
import jax
import branchnets
jax.distributed.initialize()
devices = jax.devices()
print(f"branchnets-devices process={jax.process_index()}/{jax.process_count()}"
      f" platform={devices[0].platform} local={jax.local_device_count()} all={len(devices)}",
      flush=True)
'

if [ -n "$ref" ] && [ -z "$git" ]; then
  say "error: --ref=$ref needs --git=URL"
  exit 2
fi
if [ -n "$check" ]; then
  if [ -n "$dry" ]; then
    perform "$BASE/venv/bin/python" -c "$CHECK"
    exit 0
  fi
  cd "$BASE/source"
  exec "$BASE/venv/bin/python" -c "$CHECK"
fi
if [ -z "$archive$git$CHECKOUT" ] || { [ -n "$archive" ] && [ -n "$git" ]; }; then
  usage >&2
  exit 2
fi
install
