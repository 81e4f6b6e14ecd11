#!/usr/bin/env bash
# Fashion-MNIST, 24 and 48 bits, seeds 0, 1 and 2: trains, and copies each result.json to benchmarks/results/.
# One run at a time: each takes some minutes on two cores. After a stop, repeat the same command.
#
#   benchmarks/methods/fashion_mnist.sh [FOLDER]      FOLDER for the runs, default: runs/benchmark
#   python -m benchmarks.rows --write                 their table in docs/results/training.md
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-runs/benchmark}
for seed in 0 1 2; do
  for bits in 24 48; do
    name=fashion_mnist_${bits}bits_seed$seed
    python -m adsq_jax.main --config=configs/fashion_mnist.py:bits="$bits" --config.seed="$seed" --workdir="$folder/$name"
    mkdir -p benchmarks/results
    cp "$folder/$name/result.json" "benchmarks/results/$name.json"
  done
done
