#!/usr/bin/env bash
# Trains on a Cloud TPU pod slice, one process a host; the processes connect by the TPU's metadata.
#
#   Edit:    nothing; NAME and ZONE are those of an existing slice
#   Run:     launch/tpu_pod.sh NAME ZONE --config=configs/cifar10.py:bits=48 --workdir=gs://BUCKET/cifar10_48bits
#   Stop:    gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command="pkill -TERM -f '[a]dsq_jax.main'"
#            all processes save, then end; Ctrl-C here only stops showing their logs
#   Resume:  the same command; after a preemption on another slice, too
#
# Each host gets the last commit of this clone, in the folder ~/adsq_jax-COMMIT with a Python environment and the log, run.log.
# Every host must have the data in config.data.directory.
set -euo pipefail
cd "$(dirname "$0")/.."

if (($# < 3)) || [[ $1 == -* || $2 == -* ]]; then
  echo "tpu_pod.sh: NAME, ZONE or flags are missing; fix: launch/tpu_pod.sh NAME ZONE --config=FILE.py --workdir=gs://BUCKET/DIR" >&2
  exit 2
fi
name=$1 zone=$2
shift 2
if [[ -n $(git status --porcelain --untracked-files=no) ]]; then
  echo "tpu_pod.sh: the hosts would not get your uncommitted changes; fix: commit them first" >&2
  exit 2
fi
folder=adsq_jax-$(git rev-parse HEAD)
flags=$(printf ' %q' "$@")

packed=$(mktemp -d)
trap 'rm -r "$packed"' EXIT
git archive --prefix="$folder/" --output="$packed/$folder.tar.gz" HEAD
gcloud compute tpus tpu-vm scp "$packed/$folder.tar.gz" "$name:" --zone="$zone" --worker=all

# Each host runs this; it makes the environment only once. The process writes to a file, so it outlives this connection.
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
  set -eu
  tar -xzf $folder.tar.gz
  cd $folder
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q --user uv
  [ -x .venv/bin/python ] || python3 -m uv venv -q --python=3.12
  python3 -m uv pip install -q -e '.[gcs,tpu]'
  : >run.log
  nohup .venv/bin/python -m adsq_jax.main$flags >>run.log 2>&1 </dev/null &
  tail --lines=+1 --follow --pid=\$! run.log
  wait \$!"
