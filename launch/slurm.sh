#!/usr/bin/env bash
# Trains on several machines with GPUs by Slurm, one process a GPU; the processes find one another by Slurm's variables.
#
#   Edit:    the #SBATCH lines, config and workdir; workdir, the data and the Python environment lie where all nodes see them
#   Run:     sbatch launch/slurm.sh [more flags of adsq_jax.main], in the clone, with the environment active
#   Stop:    scontrol update JobId=ID Requeue=0 && scancel --signal=TERM ID    all processes save, then end
#   Resume:  the same command; what its time limit or a preemption stopped resumes by itself, as the same job
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
# A process a GPU, since under Slurm JAX gives the process with SLURM_LOCALID i the GPU i of its node, and no other. It must see all
# of them to find that one: --gpus-per-node and --gpu-bind=none, not --gpus-per-task. The signal goes to the processes, not to this
# script, 120 seconds before the time limit: as long as saving may take.
set -euo pipefail
config=configs/cifar10.py:bits=48
workdir=runs/cifar10_48bits

# srun does not take --cpus-per-task over from sbatch
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --gpu-bind=none --kill-on-bad-exit=1 \
  python -m adsq_jax.main --config="$config" --workdir="$workdir" "$@"

# Here all processes gave 0: the run is finished, or was stopped and saved. A failure has ended this script above, and the job.
if [[ ! -e $workdir/result.json ]]; then
  echo "slurm.sh: saved, not finished: asks for a requeue; where that is refused, resume with the same command"
  scontrol requeue "$SLURM_JOB_ID"
fi
