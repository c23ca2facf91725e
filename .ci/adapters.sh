#!/bin/bash
# The examples of the adapters to ndarray, candle and burn, each of which trains something. The README's test command has
# built them, and has run the adapters' tests and the code in their documentation.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --workspace --examples
for example in from_ndarray from_candle from_burn; do
    echo "==> $example"
    "${CARGO_TARGET_DIR:-target}/release/examples/$example"
done
