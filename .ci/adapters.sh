#!/bin/bash
# The adapters to ndarray, candle and burn. The README's test command has run the tests of the first two; burn's is a
# workspace of its own, which is looked at and tested here without optimization. Then each example trains something.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
cargo build --release --workspace --examples
(
    cd adapters/burn
    export CARGO_TARGET_DIR="$root/target/ci-burn"
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
    cargo test --no-fail-fast
    cargo build --examples
)
for example in target/release/examples/from_ndarray target/release/examples/from_candle \
    target/ci-burn/debug/examples/from_burn; do
    echo "==> $example"
    "$example"
done
