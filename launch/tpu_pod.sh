#!/usr/bin/env bash
# Trains on a Cloud TPU pod slice, one process a host; the processes find one another by what the TPU's hosts know.
#
#   Edit:    nothing; NAME and ZONE are those of a slice that is there already
#   Run:     launch/tpu_pod.sh NAME ZONE --config=configs/cifar10.py:bits=48 --workdir=gs://BUCKET/cifar10_48bits
#   Stop:    gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command="pkill -TERM -f '[a]dsq_jax.main'"
#            all processes save, then end; Ctrl-C here ends only the show of their logs
#   Resume:  the same command; also on another slice, after this one was preempted
#
# Each host gets the last commit of this clone in a folder of its own, ~/adsq_jax-COMMIT, with a Python environment and the log of
# this sitting, run.log. The data must be on every host, where config.data.directory says.
set -euo pipefail
cd "$(dirname "$0")/.."

if (($# < 3)) || [[ $1 == -* || $2 == -* ]]; then
  echo "tpu_pod.sh: NAME, ZONE or flags are missing: launch/tpu_pod.sh NAME ZONE --config=FILE.py --workdir=gs://BUCKET/DIR" >&2
  exit 2
fi
name=$1 zone=$2
shift 2
if [[ -n $(git status --porcelain --untracked-files=no) ]]; then
  echo "tpu_pod.sh: there are changes that are in no commit, and the hosts would not get them: commit them first" >&2
  exit 2
fi
folder=adsq_jax-$(git rev-parse HEAD)
flags=$(printf ' %q' "$@")

packed=$(mktemp -d)
trap 'rm -r "$packed"' EXIT
git archive --prefix="$folder/" --output="$packed/$folder.tar.gz" HEAD
gcloud compute tpus tpu-vm scp "$packed/$folder.tar.gz" "$name:" --zone="$zone" --worker=all

# On each host; what is there already is not made again. The process writes to a file, and so outlives this connection.
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
