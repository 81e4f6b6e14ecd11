#!/usr/bin/env bash
# Trains on several machines with GPUs by Slurm, one process a GPU; the processes connect by Slurm's variables.
#
#   Edit:    the #SBATCH lines, config and workdir; all nodes must see workdir, the data and the Python environment
#   Run:     sbatch launch/slurm.sh [more flags of adsq_jax.main], in the clone, with the environment active
#   Stop:    scontrol update JobId=ID Requeue=0 && scancel --signal=TERM ID    all processes save, then end
#   Resume:  the same command; after its time limit or a preemption a job resumes by itself
#
#SBATCH --job-name=adsq_jax
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#
# Under Slurm JAX gives the process with SLURM_LOCALID i only GPU i of its node, so there is one process a GPU. To find it a process
# must see all of them: --gpus-per-node and --gpu-bind=none, not --gpus-per-task. The signal goes to the processes, not to this
# script, 120 seconds before the time limit, to save.
set -euo pipefail
config=configs/cifar10.py:bits=48
workdir=runs/cifar10_48bits

# srun doesn't inherit --cpus-per-task from sbatch
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --gpu-bind=none --kill-on-bad-exit=1 \
  python -m adsq_jax.main --config="$config" --workdir="$workdir" "$@"

# All processes have ended with 0: the run is finished, or stopped and saved. A failure would have ended this script above.
if [[ ! -e $workdir/result.json ]]; then
  echo "slurm.sh: saved but not finished: requeueing; if Slurm refuses that, resume with the same command"
  scontrol requeue "$SLURM_JOB_ID"
fi
