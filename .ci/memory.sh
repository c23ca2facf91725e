# The C and C++ programs of ffi/, watched over for wrong reads and writes, undefined behaviour and leaks: by valgrind, and
# by sanitizers in the programs and the library. Both have to see ffi/c/tests/lie.c, or they see nothing. Needs valgrind:
# .ci/install-c.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

programs() { cargo test "${packages[@]}" "${tests[@]}" -- "$@"; }

# has_to_see WORDS: in what is said about lie.c.
has_to_see() {
    local said
    local tests=(--test programs)
    if said=$(programs --ignored --exact a_lie_about_a_length 2>&1) || ! grep -F "$1" <<<"$said"; then
        printf '%s\nlie.c was not seen\n' "$said"
        exit 1
    fi
}

tests=(--test programs --test c_methods --test checkpoints)
sanitizers="-fsanitize=address,undefined -fno-sanitize-recover=all"
# As all tests are built, so that nothing is built again.
packages=(--release --workspace)

# Memory that is still pointed to at the end is none lost: OpenMP keeps its threads.
echo "==> valgrind, which hides AVX-512: the steps run on AVX2"
lost=--errors-for-leak-kinds=definite,indirect
export KOALA_TEST_RUNNER="valgrind --quiet --error-exitcode=9 --leak-check=full $lost"
programs
has_to_see "Invalid read"
unset KOALA_TEST_RUNNER

echo "==> AddressSanitizer in the library and the programs, UndefinedBehaviorSanitizer in the programs"
# Those that .ci/run names together.
packages=(-p koala-optim -p koala-trajectory -p koala-ffi --features koala-optim/rayon --target x86_64-unknown-linux-gnu
    --config profile.dev.package.koala-optim.opt-level=1)
export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_INCREMENTAL=0
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/ci-asan} KOALA_TEST_FLAGS=$sanitizers
programs
has_to_see "heap-buffer-overflow"
