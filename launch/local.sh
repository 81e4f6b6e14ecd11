#!/usr/bin/env bash
# Starts N processes of adsq_jax.main on this machine, each on its part of the cores, as a pod of N hosts would on CPU.
#
#   Edit:    nothing; $PYTHON is the interpreter; $GRACE, 30 by default, the seconds that the others have once one has failed
#   Run:     launch/local.sh 2 --config=configs/digits.py --workdir=runs/digits
#   Stop:    Ctrl-C, or kill PID: all processes save, then end; a second Ctrl-C ends them at once
#   Resume:  the same command
#
# Exit status: 0 if all processes end with 0, else that of the first that failed. GPUs are not divided: slurm.sh does that.
set -euo pipefail
set -m # each process in its own group, so that Ctrl-C reaches it only once, through this script

refuse() {
  echo "local.sh: $1; fix: give the number of processes, then flags: launch/local.sh 2 --config=FILE.py --workdir=DIR" >&2
  exit 2
}
count=${1:-}
[[ $count =~ ^[1-9][0-9]{0,3}$ ]] || refuse "expected a number of processes from 1 to 9999, got $(printf '%q' "$count")"
shift
python=${PYTHON:-python} grace=${GRACE:-30}

port=$("$python" -c 'import socket; print(socket.create_server(("", 0)).getsockname()[1])')
cores=()
if command -v taskset >/dev/null; then
  read -ra cores <<<"$("$python" -c 'import os; print(*sorted(os.sched_getaffinity(0)))')"
fi
cores_each=$((${#cores[@]} / count))

received=''
trap 'received=INT' INT
trap 'received=TERM' TERM HUP
running=()
for ((i = 0; i < count; i++)); do
  command=("$python" -m adsq_jax.main "$@" --coordinator="localhost:$port" --processes="$count" --process="$i")
  if ((cores_each > 0)); then
    list=${cores[*]:i*cores_each:cores_each}
    command=(taskset -c "${list// /,}" "${command[@]}")
  fi
  "${command[@]}" </dev/null &
  running+=($!)
done

status=0 deadline=''
while ((${#running[@]} > 0)); do
  sleep 0.2
  if [[ -n $received ]]; then
    kill "-$received" "${running[@]}" 2>/dev/null || true
    received=''
  fi
  alive=()
  for pid in "${running[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      alive+=("$pid")
      if [[ -n $deadline ]] && ((SECONDS >= deadline)); then kill -KILL -- "-$pid" 2>/dev/null || true; fi
      continue
    fi
    ended=0
    wait "$pid" || ended=$?
    if ((ended != 0 && status == 0)); then
      status=$ended deadline=$((SECONDS + grace))
    fi
  done
  running=(${alive[@]+"${alive[@]}"})
done
exit "$status"
