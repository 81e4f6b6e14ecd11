#!/usr/bin/env bash
# Starts N processes of adsq_jax.main on this machine, each with its share of the cores: on CPU, what a pod of N hosts would do.
#
#   Edit:    nothing; $PYTHON names another interpreter, $GRACE other seconds than 30 that the rest have once one has failed
#   Run:     launch/local.sh 2 --config=configs/digits.py --workdir=runs/digits
#   Stop:    Ctrl-C, or kill PID: all processes save, then end; a second Ctrl-C ends them at once
#   Resume:  the same command
#
# Exit status: 0 if all gave 0, else that of the first that failed. A GPU is not shared out: see slurm.sh for a process a GPU.
set -euo pipefail
set -m # each process in a group of its own: Ctrl-C reaches them through this script alone, and so once

refuse() {
  echo "local.sh: $1: give the number of processes, then flags, as in launch/local.sh 2 --config=FILE.py --workdir=DIR" >&2
  exit 2
}
count=${1:-}
[[ -n $count ]] || refuse "how many processes is missing"
[[ $count =~ ^[1-9][0-9]{0,3}$ ]] || refuse "$(printf '%q' "$count") is not a number of processes, 1 to 9999"
shift
python=${PYTHON:-python} grace=${GRACE:-30}

port=$("$python" -c 'import socket; print(socket.create_server(("", 0)).getsockname()[1])')
cores=()
if command -v taskset >/dev/null; then
  read -ra cores <<<"$("$python" -c 'import os; print(*sorted(os.sched_getaffinity(0)))')"
fi
each=$((${#cores[@]} / count))

asked=''
trap 'asked=INT' INT
trap 'asked=TERM' TERM HUP
left=()
for ((i = 0; i < count; i++)); do
  command=("$python" -m adsq_jax.main "$@" --coordinator="localhost:$port" --processes="$count" --process="$i")
  if ((each > 0)); then
    share=${cores[*]:i*each:each}
    command=(taskset -c "${share// /,}" "${command[@]}")
  fi
  "${command[@]}" </dev/null &
  left+=($!)
done

status=0 deadline=''
while ((${#left[@]} > 0)); do
  sleep 0.2
  if [[ -n $asked ]]; then
    kill "-$asked" "${left[@]}" 2>/dev/null || true
    asked=''
  fi
  running=()
  for pid in "${left[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      running+=("$pid")
      if [[ -n $deadline ]] && ((SECONDS >= deadline)); then kill -KILL -- "-$pid" 2>/dev/null || true; fi
      continue
    fi
    ended=0
    wait "$pid" || ended=$?
    if ((ended != 0 && status == 0)); then
      status=$ended deadline=$((SECONDS + grace))
    fi
  done
  left=(${running[@]+"${running[@]}"})
done
exit "$status"
