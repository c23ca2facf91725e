#!/bin/bash
# How many functions a step passes on its way from a call in C to where it writes the first parameter, counted in the
# source: a function that the compiler has put into its caller counts too. The library is built as for release, with
# lines for the debugger; gdb stops where a second step changes the parameter. Frames of Rust's own library, which
# catches panics, are counted apart. With --all, the frames are printed too.
#
# KOALA_FRAMES_LIBRARY names the folder of another libkoala.a to look at, such as one of an older commit.
set -euo pipefail
cd "$(dirname "$0")/../.."
library=${KOALA_FRAMES_LIBRARY:-}
if [ -z "$library" ]; then
    target=${CARGO_TARGET_DIR:-target}/frames
    CARGO_PROFILE_RELEASE_DEBUG=1 cargo build --quiet --release -p koala-ffi --target-dir "$target"
    library=$target/release
fi
program=$(mktemp)
trap 'rm -f "$program"' EXIT
"${CC:-cc}" -g -Iinclude ffi/benches/frames.c "$library/libkoala.a" -lm -lpthread -ldl -o "$program"

for call in koala_step_tensor koala_optimizer_step; do
    stop=(-ex 'break main' -ex "run $call" -ex 'watch -location parameters[0]' -ex continue -ex continue)
    frames=$(gdb -q -batch -iex 'set debuginfod enabled off' "${stop[@]}" -ex backtrace "$program" 2>/dev/null |
        grep '^#' | sed '/ by_[a-z0-9_]* /,$d')
    ours=$(grep -v ' at /rustc/' <<<"$frames" | sed -E 's/^#[0-9]+ +(0x[0-9a-f]+ in )?//')
    files=$(sed 's/.* at //; s/:[0-9]*$//' <<<"$ours" | sort -u)
    echo "$call: $(wc -l <<<"$ours") frames in $(wc -l <<<"$files") files," \
        "and $(grep -c ' at /rustc/' <<<"$frames") of Rust's library"
    if [ "${1:-}" = --all ]; then sed -E 's/<.*> \(\) at / at /; s/^/    /' <<<"$ours"; fi
done
