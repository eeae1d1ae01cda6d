#!/usr/bin/env bash
# A build across three hosts, as network namespaces with addresses of their own: driver and job
# service; workers; object store and web. The workers' host is cut off for good in the middle:
# the build must fail clearly, and the same command must complete once the host is back.
#   sudo benchmarks/three_hosts.sh PHOTOS WORKER_PYTHON
# PHOTOS is a folder of JPEGs; WORKER_PYTHON that of an environment with the base and aws extras,
# setuptools and pip. Needs root, iproute2, and Beam's boot program and versitygw from `go install`.
set -euo pipefail
[ "${1-}" != --help ] || { sed -n '2,7s/^# //p' "$0"; exit; }
[ $# = 2 ] || { echo "error: PHOTOS and WORKER_PYTHON are required (see $0 --help)" >&2; exit 2; }
photos=$(realpath "$1") worker=$(realpath -s "$2")
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python bin=${GOBIN:-$HOME/go/bin} net=10.77.31 silence_s=${SILENCE_S:-60}
work=$(mktemp -d) names=(sr-driver sr-workers sr-store sr-switch)
pids=()

clean() {
  for pid in "${pids[@]}"; do kill -9 -- "-$pid" 2>/dev/null || true; done
  for name in "${names[@]}"; do ip netns del "$name" 2>/dev/null || true; rm -rf "/etc/netns/$name"; done
  rm -rf "$work"
}
trap clean EXIT
say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
fail() { say "$*"; tail -n 20 "$work"/*.log | cut -c 1-300 >&2; exit 1; }
# on HOST LOG COMMAND...: in the background, in a session of its own
on() { local host=$1 log=$2; shift 2; setsid ip netns exec "$host" "$@" >>"$work/$log" 2>&1 & pids+=($!); }
until_true() {
  local end=$((SECONDS + 200))
  until "$@"; do [ $SECONDS -lt $end ] || fail "waited in vain for: $*"; sleep 0.1; done
}
answers() { ip netns exec sr-driver "$python" -c \
  "import socket; socket.create_connection(('$1', $2), 1)" 2>/dev/null; }
tables() { find "$work/root/bucket/set/fetched" -name '*.table.parquet' 2>/dev/null | grep -q .; }

ip netns add sr-switch
ip -n sr-switch link add switch type bridge
ip -n sr-switch addr add $net.9/24 dev switch
ip -n sr-switch link set switch up
number=0
for name in sr-driver sr-workers sr-store; do
  number=$((number + 1))
  ip netns add "$name"
  ip link add sr-tmp$number type veth peer name eth0 netns "$name"
  ip link set sr-tmp$number netns sr-switch
  ip -n sr-switch link set sr-tmp$number master switch up
  ip -n "$name" addr add $net.$number/24 dev eth0
  ip -n "$name" link set eth0 up
  ip -n "$name" link set lo up
  mkdir -p "/etc/netns/$name"
  # Workers dial the job service by the driver's own name.
  printf '127.0.0.1 localhost\n%s.1 %s\n' $net "$(hostname)" >"/etc/netns/$name/hosts"
done

export AWS_ENDPOINT_URL=http://$net.3:7070 AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret-secret
export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
mkdir -p "$work/root/bucket" "$work/site" "$work/jobs"
index=0
for photo in $(ls -S "$photos"/*.jpg | head -16); do
  cp "$photo" "$work/site/$index.jpg"
  printf 'n01440764_%d\thttp://%s.3:8000/%d.jpg\n' $index $net $index
  index=$((index + 1))
done >"$work/list.txt"
touch "$work/hold"
cat >"$work/site.py" <<'PYTHON'
import http.server, os, sys, time
class Site(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        while self.path == "/5.jpg" and os.path.exists(sys.argv[1]):
            time.sleep(0.1)
        super().do_GET()
os.chdir(sys.argv[2])
http.server.ThreadingHTTPServer(("", 8000), Site).serve_forever()
PYTHON
printf '#!/bin/sh\nexec %s --semi_persist_dir=%s "$@"\n' "$bin/container" "$work" >"$work/boot"
chmod +x "$work/boot"

on sr-store store.log env ROOT_ACCESS_KEY=key ROOT_SECRET_KEY=secret-secret \
  "$bin/versitygw" --port $net.3:7070 posix "$work/root"
on sr-store site.log "$python" "$work/site.py" "$work/hold" "$work/site"
on sr-driver jobs.log "$python" -m apache_beam.runners.portability.local_job_service_main \
  --port 8099 --staging_dir "$work/jobs"
cd "$work" # the workers' package is the staged one
on sr-workers pool.log env PATH="$(dirname "$worker"):$PATH" RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 \
  "$worker" -m apache_beam.runners.worker.worker_pool_main --service_port=50000 \
  --container_executable="$work/boot"
cd - >/dev/null
until_true answers localhost 8099; until_true answers $net.2 50000
until_true answers $net.3 7070; until_true answers $net.3 8000
ip netns exec sr-driver "$python" -c \
  "import boto3; boto3.client('s3').upload_file('$work/list.txt', 'bucket', 'list.txt')"
say "three hosts: driver and job service $net.1, workers $net.2, store and web $net.3"

build=("$python" -m pipelines --urls s3://bucket/list.txt --output s3://bucket/set --crawlers 1
  --num-shards 4 --splits train=1 --allow-host "$net.3" --timeout 300 --silence "$silence_s"
  --runner=PortableRunner --job_endpoint=localhost:8099 --environment_type=EXTERNAL
  "--environment_config=$net.2:50000" --setup_file=./setup.py)

on sr-driver first.log "${build[@]}"
first=$!
until_true tables
say "shards are fetched by the workers' host; it is cut off"
ip -n sr-workers link set eth0 down
cut=$SECONDS
status=0; wait "$first" || status=$?
reason=$(tail -n 1 "$work/first.log")
say "status $status after $((SECONDS - cut)) s: $reason"
[ "$status" = 1 ] && [[ "$reason" == failed:* ]] || fail "not a clear failure"
[ ! -e "$work/root/bucket/set/dataset.json" ] || fail "a dataset without its workers"

ip -n sr-workers link set eth0 up
rm "$work/hold"
say "the host is back; the same command"
on sr-driver second.log "${build[@]}"
status=0; wait $! || status=$?
[ "$status" = 0 ] || fail "the same command ended with status $status"
say "$(tail -n 1 "$work/second.log" | sed 's/.*pipelines.build.build: //')"
ip netns exec sr-driver "$python" -m pipelines.verify s3://bucket/set >"$work/verify.log" 2>&1 ||
  fail "not a whole dataset"
say "verified"
