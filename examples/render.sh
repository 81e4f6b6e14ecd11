#!/usr/bin/env bash
# Runs the examples and writes each as a notebook, with its outputs, beside it; takes minutes. Needs pip install -e '.[examples]'.
#
#   examples/render.sh [NAME.py ...]     default: all of examples/
set -euo pipefail
cd "$(dirname "$0")"
export PYTHONWARNINGS=ignore # of libraries, with paths of this machine
[[ $# -gt 0 ]] || set -- *.py
kernel='{"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}'
for example in "$@"; do
  notebook=${example%.py}.ipynb
  jupytext --quiet --update --update-metadata "$kernel" --to ipynb --output "$notebook" "$example"
  jupyter nbconvert --log-level=WARN --to notebook --inplace --execute --ExecutePreprocessor.record_timing=False "$notebook"
done
