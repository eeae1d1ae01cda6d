#!/usr/bin/env bash
# A training on two hosts, as network namespaces with addresses of their own: each runs the same
# command as one worker of MultiWorkerMirroredStrategy. In the middle one worker is killed
# (SIGKILL); in the second run one host is cut off for good. Each time the workers that are left
# must end clearly, and the same commands must complete at last with the weights of a run that
# nobody disturbed, bit for bit.
#   sudo benchmarks/two_workers.sh DATA
# DATA is a finished dataset. Needs root and iproute2.
set -euo pipefail
[ "${1-}" != --help ] || { sed -n '2,8s/^# //p' "$0"; exit; }
[ $# = 1 ] || { echo "error: DATA is required (see $0 --help)" >&2; exit 2; }
[ -f "$1/dataset.json" ] || { echo "error: $1 is not a finished dataset" >&2; exit 2; }
data=$(realpath "$1")
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python net=10.77.32 steps=${STEPS:-200}
work=$(mktemp -d) names=(sr-worker0 sr-worker1)
pids=()

clean() {
  for pid in "${pids[@]}"; do kill -9 -- "-$pid" 2>/dev/null || true; done
  for name in "${names[@]}"; do ip netns del "$name" 2>/dev/null || true; done
  rm -rf "$work"
}
trap clean EXIT
say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
fail() { say "$*"; tail -n 20 "$work"/*.log | cut -c 1-300 >&2; exit 1; }

ip netns add sr-worker0
ip netns add sr-worker1
ip link add eth0 netns sr-worker0 type veth peer name eth0 netns sr-worker1
for number in 0 1; do
  ip -n sr-worker$number addr add $net.$((number + 1))/24 dev eth0
  ip -n sr-worker$number link set eth0 up
  ip -n sr-worker$number link set lo up
done

# start RUN: both workers, whose processes are then ${workers[0]} and ${workers[1]}
start() {
  workers=()
  for number in 0 1; do
    local cluster="{\"worker\": [\"$net.1:5000\", \"$net.2:5000\"]}"
    local task="{\"type\": \"worker\", \"index\": $number}"
    TF_CONFIG="{\"cluster\": $cluster, \"task\": $task}" \
      setsid ip netns exec sr-worker$number "$python" -m trainer --data "$data" \
      --output "$work/$1" --config srcnn --precision float32 --steps "$steps" --identity-start \
      --patch-size 20 --batch-size 4 --learning-rate 1e-3 --average 0.99 --log-every 25 \
      --validate-every 100 --validation-crops 2 --checkpoint-every 25 >>"$work/$1.$number.log" 2>&1 &
    workers+=($!) pids+=($!)
  done
}
# reach RUN STEP: until there is a checkpoint of that step or a later one
reach() {
  local end=$((SECONDS + 100))
  until compgen -G "$work/$1/checkpoints/step-*0$2.npz" >/dev/null; do
    kill -0 "${workers[0]}" 2>/dev/null || fail "over before step $2: use more STEPS"
    [ $SECONDS -lt $end ] || fail "no step $2"
    sleep 0.02
  done
}
# complete RUN: both end with status 0
complete() {
  local number
  for number in 0 1; do
    wait "${workers[number]}" || fail "worker $number of $1 ended with status $?"
  done
}
# lost RUN NUMBER: that worker ends by itself with one line
lost() {
  local status=0 cut=$SECONDS
  wait "${workers[$2]}" || status=$?
  local reason; reason=$(tail -n 1 "$work/$1.$2.log")
  say "worker $2 ended with status $status after $((SECONDS - cut)) s: $reason"
  [ "$status" = 1 ] && [[ "$reason" == "failed: another worker is gone"* ]] || fail "not a clear end"
}

start undisturbed
complete undisturbed
say "undisturbed: $steps steps"

start disturbed
reach disturbed 50
disown "${workers[1]}" # or the shell tells of it
kill -9 "${workers[1]}"
say "worker 1 is killed"
lost disturbed 0

start disturbed
reach disturbed 100
ip -n sr-worker1 link set eth0 down
say "the same commands went on; host 1 is cut off"
lost disturbed 0
lost disturbed 1

ip -n sr-worker1 link set eth0 up
start disturbed
complete disturbed
say "the same commands, and completed"
"$python" - "$work/undisturbed" "$work/disturbed" <<'PYTHON' || fail "other weights"
import sys
from pathlib import Path
from benchmarks.kill_training import differences
sys.exit("; ".join(differences(*map(Path, sys.argv[1:]))) or None)
PYTHON
say "weights, optimizer, averages, statistics and losses are equal, bit for bit"
