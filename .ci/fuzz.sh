# fuzz.sh SECONDS [OPTIONS...]: ffi/fuzz for that long, under AddressSanitizer, from what target/fuzz-corpus has kept. The
# options are libFuzzer's. The flags are those of cargo-fuzz, which is not needed.
set -euo pipefail
cd "$(dirname "$0")/../ffi/fuzz"
seconds=${1:?how many seconds}
shift
target=x86_64-unknown-linux-gnu
corpus=$(realpath -m ../../target/fuzz-corpus)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-../../target/ci-fuzz} CARGO_INCREMENTAL=0 RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1 --cfg fuzzing"
# Inputs are tiny: the core is optimized a little, which takes half as long.
cargo build --release --locked --target "$target" --config 'profile.release.package.koala-optim.opt-level=1'
mkdir -p "$corpus"
# An input that fails is kept beside the corpus. The last lines tell of the executions, of the coverage (cov), and of
# the inputs that the corpus has.
"$CARGO_TARGET_DIR/$target/release/calls" -max_total_time="$seconds" -max_len=1000 -len_control=0 \
    -print_final_stats=1 -artifact_prefix="$corpus-" "$@" "$corpus"
