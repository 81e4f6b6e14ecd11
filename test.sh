#!/usr/bin/env bash
# Runs the tests. Needs a Python of 3.11, 3.12 or 3.13 and pip, nothing else.
#
#   ./test.sh                  what every change must pass
#   ./test.sh tests/retrieval  the tests of the part that you changed, slow ones too: tests/ mirrors the package
#   ./test.sh --all            also lint, types, slow tests, those of benchmarks/, those that compare with PyTorch or need system
#                              packages or a Milvus server (which they install and start by launch/milvus/local.py); no skips
#   ./test.sh --lint           lint and types alone, after installing what --all needs
#   ./test.sh --python=3.13    with that Python, in an environment of its own (.venv-test-3.13)
#   ./test.sh --quick          what shows soonest whether another Python works: losses, measures, codes, commands, a small training
#   ./test.sh [...] ARGUMENTS  what follows goes to pytest: ./test.sh tests/test_codes.py -k pack; with --pdb it wants -n0 too;
#                              --random-order --random-order-bucket=global shuffles the tests
#
# Tests of benchmarks/ run too where benchmarks/ differs from the branch main. What XLA compiles is kept in .cache/xla.
# Takes the active virtual environment; without one, or with --python, makes .venv-test-VERSION.
set -euo pipefail
cd "$(dirname "$0")"
unset PYTHONDONTWRITEBYTECODE # with it, each process that tests start would compile all packages anew

all='' lint='' quick=() version=''
while [[ ${1:-} == --all || ${1:-} == --lint || ${1:-} == --quick || ${1:-} == --python=* ]]; do
  case $1 in
    --all) all=yes ;;
    --lint) all=yes lint=yes ;;
    --quick) quick=(tests/test_codes.py tests/test_command_line.py tests/test_light_core.py tests/methods/test_objective.py
      tests/methods/test_recipes.py tests/retrieval/test_hamming.py tests/retrieval/test_metrics.py
      tests/training/test_fit.py::test_a_database_of_several_labels) ;;
    *) version=${1#--python=} ;;
  esac
  shift
done

find_python() { # a Python of version $1: on the PATH, or one of pyenv's
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "test.sh: no Python $1 found: install it, or leave out --python" >&2
  exit 2
}

if [[ -n ${VIRTUAL_ENV:-} && -z $version ]]; then
  python=$VIRTUAL_ENV/bin/python
else
  base=python3
  [[ -z $version ]] || base=$(find_python "$version")
  place=.venv-test-$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  [[ -x $place/bin/python ]] || "$base" -m venv "$place"
  python=$PWD/$place/bin/python
fi

pip=("$python" -m pip --disable-pip-version-check)
settings=$("${pip[@]}" config list) # NAME='VALUE' lines, the environment's first
setting() { sed -nE "s/^(:env:|global)\.$1='(.*)'\$/\2/p" <<<"$settings" | head -n 1 | sed 's/\\n/ /g'; }
# uv takes seconds where pip takes minutes. It gets pip's own settings, also in the tests that install the package.
UV_DEFAULT_INDEX=$(setting index-url) UV_INDEX=$(setting extra-index-url) UV_FIND_LINKS=$(setting find-links)
UV_CONSTRAINT=$(setting constraint)
export UV_DEFAULT_INDEX UV_INDEX UV_FIND_LINKS UV_CONSTRAINT UV_INDEX_STRATEGY=unsafe-best-match UV_SYSTEM_CERTS=true
install() { # what $1 names
  "${pip[@]}" install --quiet uv || return 1
  "$python" -m uv pip install --quiet --python "$python" -e "$1"
}
packages=".[${all:+dev,reference,}test]"
install "$packages" || "${pip[@]}" install --quiet -e "$packages"
"$python" -c 'import sys, jax; print("Python", sys.version.split()[0], "with jax", jax.__version__)'
base=$(git merge-base HEAD origin/main 2>/dev/null || git rev-parse --verify --quiet main || true)
leave_out='not slow and not system and not reference'
if [[ -z $base ]] || git diff --quiet "$base" -- benchmarks tests/benchmarks; then leave_out+=' and not benchmark'; fi
for argument in "$@"; do
  [[ $argument != tests/* ]] || leave_out=${leave_out#not slow and } # of a part that is named, slow ones too
done
tests=(-m "$leave_out")
[[ -n $all ]] || echo "runs what is $leave_out; all: ./test.sh --all"
if [[ -n $all ]]; then
  "$python" -m ruff check .
  "$python" -m ruff format --check .
  "$python" -m mypy
  tests=(--no-skips)
fi
[[ -z $lint ]] || exit 0
# One process alone leaves half of two cores idle.
exec "$python" -m pytest --numprocesses=2 --dist=worksteal "${tests[@]}" "${quick[@]}" "$@"
