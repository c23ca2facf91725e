# The adapters to ndarray, candle and burn: clippy has seen them already; this builds all three once, without
# optimization, and runs their tests, the examples in their documentation and in the README, and those in examples/.
set -euo pipefail
adapters=(-p koala-optim --features ndarray,candle,burn,checkpoint --config profile.dev.opt-level=0
    --config profile.dev.package.koala-optim.opt-level=0)
cargo test "${adapters[@]}" --no-fail-fast --test 'adapter_*' --examples
cargo test "${adapters[@]}" --doc -- adapters Readme
for example in from_ndarray from_candle from_burn; do
    echo "==> $example"
    cargo run "${adapters[@]}" --example "$example"
done
