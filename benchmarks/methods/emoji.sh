#!/usr/bin/env bash
# Emoji, several labels a picture: trains configs/emoji.py, and the same heads on a backbone that keeps its random weights;
# seeds 0, 1 and 2. Copies each result.json to benchmarks/results/emoji/. Needs npm.
#
#   benchmarks/methods/emoji.sh [FOLDER]      FOLDER for data and runs, default: runs/emoji_benchmark
#   python -m benchmarks.rows --write         their table in docs/results/training.md
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-runs/emoji_benchmark}
[[ -d $folder/data ]] || python -m benchmarks.methods.emoji_lists --out="$folder/data"
mkdir -p benchmarks/results/emoji
for seed in 0 1 2; do
  for net in trained frozen; do
    name=${net}_seed$seed
    frozen=()
    [[ $net == trained ]] || frozen=(--config.optim.trunk_lr_scale=0 --config.data.feature_views=4)
    python -m adsq_jax.main --config=configs/emoji.py --config.seed="$seed" --config.data.directory="$folder/data" \
      "${frozen[@]}" --workdir="$folder/$name"
    cp "$folder/$name/result.json" "benchmarks/results/emoji/$name.json"
  done
done
