#!/usr/bin/env bash
# What RESULTS.md is made of: every method on two sets with a frozen trunk and on digits, then what is beyond mAP, then changed
# ADSQs. Can be stopped and given again at any time. Needs tuxpaint-stamps-default, npm, and pip install -e '.[pretrained,test]'.
#
#   benchmarks/compare.sh [JOBS]     runs at a time, 2 if left out
set -euo pipefail
cd "$(dirname "$0")/.."
compare() { python -m benchmarks.compare --jobs="${jobs}" "$@"; }
jobs=${1:-2}
[[ -d data/emoji ]] || python benchmarks/emoji_lists.py --out=data/emoji
compare --config=configs/stamps.py --validation=200
compare --config=configs/emoji_frozen.py --validation=600
compare --config=configs/digits.py --validation=300
python -m benchmarks.report --write
