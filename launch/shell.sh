# shellcheck shell=bash
# What the scripts of this folder and below share. Sourced by them, after ROOT is set; those that run
# on a TPU VM (launch/tpu/on_vm_*.sh) are copied there alone, and do without it.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }
unknown_option() { die "unknown argument $1; options are written --option=value (see --help)"; }

whole_number() { # whole_number OPTION VALUE
  [[ $2 =~ ^[0-9]+$ ]] || die "$1=$2 is not a whole number"
}

# Prints a command so that a shell reads it back as it is.
show() {
  local word line=""
  for word in "$@"; do
    if [[ ! $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
      word="'${word//\'/\'\\\'\'}'"
    fi
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# wait_for CHILD: sets CODE to its exit code. A signal ends bash's wait early, with a code that is not
# the child's; traps that let the script go on say so with SIGNALLED=yes, and it waits once more.
# shellcheck disable=SC2034  # CODE is read by those that call it
wait_for() {
  SIGNALLED=yes
  while [ -n "$SIGNALLED" ]; do
    SIGNALLED="" CODE=0
    wait "$1" || CODE=$?
  done
}
