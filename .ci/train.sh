# The README's first command, as its second has built it, run in a folder of its own for its picture, and whether
# KOALA++ then has at least 97 % of the held-out digits right.
set -euo pipefail
koala=$PWD/target/release/koala
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$koala" train --json record.json
accuracy=$(python3 -c 'import json; runs = json.load(open("record.json"))["runs"]
print(next(run for run in runs if run["optimizer"] == "koala")["epochs"][-1]["test_accuracy"])')
echo "KOALA++: test accuracy $accuracy"
python3 -c "import sys; sys.exit($accuracy < 0.97)"
