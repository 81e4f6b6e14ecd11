#!/usr/bin/env bash
# Makes the comparison in docs/results/: every method on four sets with a frozen trunk and on digits; ADSQ and its nearest
# baselines on harder data; variants of ADSQ; last from scratch: Fashion-MNIST and CIFAR-10 for ADSQ and six baselines each.
# Can be stopped and repeated at any time; one core takes a day. On stamps, digits and from scratch ADSQ has its config's own
# settings and isn't tuned. Lines of an earlier config are refused: ADSQ's of stamps and digits, and those of variants and
# conditions, are of an earlier form, and must be removed before a repetition; so must a data/emoji without validation_3.
# Needs dataset-fashion-mnist, tuxpaint-stamps-default, npm, pip install -e '.[pretrained,test]', and the pictures that the
# headers of configs/cifar10_frozen.py and configs/imagenet100_frozen.py name.
#
#   benchmarks/methods/compare.sh [JOBS]     runs at a time, default: 2
set -euo pipefail
cd "$(dirname "$0")/../.."
jobs=${1:-2}
[[ -d data/emoji/validation_3 ]] || python -m benchmarks.methods.emoji_lists --out=data/emoji

baselines=$(python -c 'from adsq_jax.methods import METHODS; print(*(name for name in METHODS if name != "adsq"), sep=",")')

digits() { python -m benchmarks.methods.compare --jobs="$jobs" --config=configs/digits.py "$@"; }
stamps() { python -m benchmarks.methods.compare --jobs="$jobs" --config=configs/stamps.py "$@"; }
emoji() {
  python -m benchmarks.methods.compare --jobs="$jobs" --config=configs/emoji_frozen.py \
    --held-out=data.lists=data/emoji/validation{,_2,_3} "$@"
}
fashion() { # 12 epochs a network, not the config's 30
  python -m benchmarks.methods.compare --jobs="$jobs" --config=configs/fashion_mnist.py --set=train.rounds=4 "$@"
}
cifar10() { python -m benchmarks.methods.compare --jobs="$jobs" --config=configs/cifar10_small.py "$@"; }

python -m benchmarks.methods.compare --jobs="$jobs" --config=configs/cifar10_frozen.py --validation=1000
python -m benchmarks.methods.compare --jobs="$jobs" --config=configs/imagenet100_frozen.py --validation=2600
stamps --validation=200 --methods="$baselines"
stamps --trials=0 --methods=adsq
emoji
digits --validation=300 --methods="$baselines"
digits --trials=0 --methods=adsq
conditions=noise20,noise40,few100,few50,few20,unseen
emoji --methods=adsq,classify,dsh,dhn,greedyhash --bits=24 --conditions=$conditions
stamps --validation=200 --methods=orthohash,dseh,csq --bits=24 --conditions=$conditions
stamps --trials=0 --methods=adsq --bits=24 --conditions=$conditions
emoji --methods=adsq --bits=24 --variants=all
stamps --trials=0 --methods=adsq --bits=24 --variants=all
fashion --validation=1000 --methods=greedyhash,classify,dadh,adsh,orthohash,hashnet --bits=24
fashion --validation=1000 --methods=greedyhash --bits=12,48
fashion --trials=0 --methods=adsq
cifar10 --validation=1000 --methods=greedyhash,csq,dadh,dpn,orthohash,classify --bits=24
cifar10 --validation=1000 --methods=greedyhash,csq --bits=12,48
cifar10 --validation=1000 --methods=dadh --bits=48
cifar10 --trials=0 --methods=adsq
python -m benchmarks.rows --write
