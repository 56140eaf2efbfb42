#!/usr/bin/env bash
# Submits a training run to SLURM: a job that saves before its time limit and queues itself again.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/shell.sh
source "$ROOT/launch/shell.sh"

usage() {
  cat <<'TEXT'
usage: bash launch/slurm/submit.sh --workdir=FOLDER --config=FILE [OPTION ...] [ARGUMENT ...]

Submits launch/slurm/train.sbatch. Run it on the login node, from a checkout that the nodes see too,
as they do the workdir. JAX finds the other tasks of the job by itself.

  --nodes=N         default 1
  --gpus=N          GPUs a node; default 1
  --tasks=gpu|node  one process a GPU (the default), or one a node
  --cpus=N          CPUs of a process, which decode streamed images; default: what the cluster gives
                    by itself, often one
  --time=LIMIT      time limit, as sbatch has it; default 24:00:00
  --notice=SECONDS  how long before the limit the run is asked to save; default 300
  --max-restarts=N  how many failures may follow each other without a run that lasts for --progress;
                    default 20. The time limit and preemptions are not among them
  --progress=SECONDS  how long a run lasts that has got somewhere; default 3600
  --python=FILE     the Python of an environment that has branchnets; default .venv/bin/python
  --sbatch=OPTION   an option for sbatch, for example --sbatch=--partition=gpu; as often as needed
  --workdir=FOLDER  the run directory, on a shared file system or gs://
  --config=FILE     relative to the repository's root, with arguments after a colon
  ARGUMENT          another flag of branchnets.main, passed to it as it is: --config.seed=1
  --dry-run         prints the command, ready to be pasted, and runs none
  --help

The job is queued again when the trainer ended because of the time limit or a preemption (75),
because another task was lost (76, 134) or because it was killed (137); not after scancel, and not
after other codes. Its output is in runs/slurm-JOB.out. To save and stop: scancel --signal=TERM JOB;
scancel without the signal kills the run. A preemption saves where the cluster has a GraceTime that is
long enough; without one it kills the run, which goes on from its newest checkpoint, and queueing it
again (PreemptMode=REQUEUE) is up to SLURM, which does it by itself.

example, with a python3 of 3.11 or newer, and .[cuda12] where the driver is older than 580:
  python3 -m venv .venv && .venv/bin/pip install ".[cuda]"
  bash launch/slurm/submit.sh --nodes=2 --gpus=4 --cpus=8 --sbatch=--partition=gpu \
    --workdir=runs/coded_imagenet --config=configs/coded_imagenet.py --config.data.data_dir=/data/tfds
TEXT
}

nodes=1 gpus=1 tasks=gpu cpus="" limit=24:00:00 notice=300 restarts=20 progress=3600
python=$ROOT/.venv/bin/python
dry="" more=() trainer=()
for argument in "$@"; do
  case "$argument" in
    -h | --help) usage; exit 0 ;;
    --nodes=*) nodes=${argument#*=} ;;
    --gpus=*) gpus=${argument#*=} ;;
    --tasks=*) tasks=${argument#*=} ;;
    --cpus=*) cpus=${argument#*=} ;;
    --time=*) limit=${argument#*=} ;;
    --notice=*) notice=${argument#*=} ;;
    --max-restarts=*) restarts=${argument#*=} ;;
    --progress=*) progress=${argument#*=} ;;
    --python=*) python=${argument#*=} ;;
    --sbatch=*) more+=("${argument#*=}") ;;
    --dry-run) dry=yes ;;
    *) trainer+=("$argument") ;;
  esac
done
read_trainer ${trainer[@]+"${trainer[@]}"}
whole_number --nodes "$nodes"
whole_number --gpus "$gpus"
whole_number --notice "$notice"
whole_number --max-restarts "$restarts"
whole_number --progress "$progress"
whole_number --cpus "${cpus:-1}"
if [ "$nodes" -lt 1 ] || [ "$gpus" -lt 1 ] || [ "${cpus:-1}" -lt 1 ]; then
  die "--nodes, --gpus and --cpus start at 1"
fi
# sbatch: a time before the limit is between 0 and 65535 seconds.
[ "$notice" -le 65535 ] || die "--notice=$notice: at most 65535 seconds"
[ -n "$WORKDIR" ] || die "no run directory given: --workdir=FOLDER"
need_config
case "$tasks" in
  gpu) per_node=$gpus ;;
  node) per_node=1 ;;
  *) die "--tasks=$tasks: gpu or node" ;;
esac
if [ -z "$dry" ]; then
  command -v sbatch >/dev/null || die "sbatch is missing: run this on a login node of the cluster"
  [ -x "$python" ] || die "$python does not run; make it with Python 3.11 or newer: python3 -m venv .venv && .venv/bin/pip install \".[cuda]\", or give --python=FILE"
fi

# --gpus-per-node and not --gpus-per-task: every task sees all GPUs of its node, as those that
# exchange gradients have to; each takes its share (branchnets/engine/hosts/cluster.py).
# --signal=B: the batch script alone is told of the limit, and so can tell it from scancel.
command=(sbatch "--nodes=$nodes" "--ntasks-per-node=$per_node" "--gpus-per-node=$gpus"
  ${cpus:+"--cpus-per-task=$cpus"} "--time=$limit" "--signal=B:USR1@$notice" --requeue --open-mode=append "--chdir=$ROOT"
  ${more[@]+"${more[@]}"} "$ROOT/launch/slurm/train.sbatch"
  "--python=$python" "--max-restarts=$restarts" "--progress=$progress"
  -- "${trainer[@]}")

if [ -n "$dry" ]; then
  show "${command[@]}"
else
  mkdir -p "$ROOT/runs"  # where the job's output goes
  "${command[@]}"
fi
