# shellcheck shell=bash
# What the scripts of this folder and below share. Sourced by them, after ROOT is set; those that run
# on a TPU VM (launch/tpu/on_vm_*.sh) are copied there alone, and do without it.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  die "launch/shell.sh is a part of the other scripts and does nothing by itself; see: bash launch/local.sh --help"
fi
DRY_RUN=""  # "yes": commands are printed, and none runs
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

perform() { # perform COMMAND...: runs it, or prints it with --dry-run
  if [ -n "$DRY_RUN" ]; then show "$@"; else "$@"; fi
}

become() { # become COMMAND...: in place of this script
  if [ -n "$DRY_RUN" ]; then show "$@"; else exec "$@"; fi
}

# read_trainer WORD...: what branchnets.main is to be given. Sets WORKDIR, CONFIG and MODE; fails on a
# word that it does not take, which is a mistyped option of the script that calls this, too.
# shellcheck disable=SC2034  # WORKDIR is read by those that call it
read_trainer() {
  local word name wanted=""
  WORKDIR="" CONFIG="" MODE=train
  for word in "$@"; do
    name=${word%%=*}
    name=${name#-}
    name=${name#-}
    if [ -n "$wanted" ]; then
      trainer_value "$wanted" "$word"
      wanted=""
      continue
    fi
    case "$word" in -*) ;; *) unknown_option "$word" ;; esac
    case "$name" in
      config.?* | noconfig.?*) continue ;;
      workdir | config | mode | checkpoint | coordinator_address | num_processes | process_id | \
        initialization_timeout) ;;
      *) unknown_option "$word" ;;
    esac
    case "$word" in
      *=*) trainer_value "$name" "${word#*=}" ;;
      *) wanted=$name ;;
    esac
  done
  [ -z "$wanted" ] || die "--$wanted needs a value: --$wanted=VALUE"
  case "$MODE" in train | eval) ;; *) die "--mode=$MODE: train or eval" ;; esac
}

# shellcheck disable=SC2034  # as above
trainer_value() { # trainer_value FLAG VALUE
  case "$1" in
    workdir) WORKDIR=$2 ;;
    config) CONFIG=$2 ;;
    mode) MODE=$2 ;;
  esac
}

# Fails where read_trainer has found no config that is there. An evaluation takes that of its run.
need_config() {
  [ "$MODE" != eval ] || return 0
  [ -n "$CONFIG" ] || die "no config given: --config=FILE, for example --config=configs/coded_digits.py"
  (cd "$ROOT" && [ -f "${CONFIG%%:*}" ]) \
    || die "--config=$CONFIG: there is no file ${CONFIG%%:*} in $ROOT"
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
