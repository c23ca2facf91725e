#!/bin/bash
# A folder to take to a machine with an NVIDIA GPU, which needs nothing there but the driver: FOLDER/run verifies and
# measures the CUDA backend and prints one table. Needs Rust; a C compiler for the part in C; and Python 3 with pip for the
# part that PyTorch runs.
#
#     bash benches/gpu/bundle.sh FOLDER [--without-python]
set -euo pipefail
largest=60000000

if [ $# -lt 1 ] || [ $# -gt 2 ] || [ "${2:---without-python}" != --without-python ]; then
    sed -n '2,6s/^# \?//p' "$0" >&2
    exit 2
fi
mkdir "$1" || { echo "$1 must be a folder that can be made new" >&2; exit 2; }
folder=$(cd "$1" && pwd)
with_python=$([ $# = 1 ] && echo yes || echo no)
cd "$(dirname "$0")/../.."

# executable SOURCE: where cargo has put what it made of that file.
executable() {
    sed -n 's|.*"src_path":"[^"]*/'"$1"'".*"executable":"\([^"]*\)".*|\1|p' "$folder/cargo.json"
}

# archive: where cargo has put libkoala.a.
archive() {
    sed -n 's|.*"\([^"]*/libkoala\.a\)".*|\1|p' "$folder/cargo.json" | head -n 1
}

# BUNDLE_OPTIONS: more for cargo.
# shellcheck disable=SC2086
cargo test --release ${BUNDLE_OPTIONS:-} -p koala-optim --features koala-optim/cuda,koala-optim/rayon --test cuda \
    --no-run --message-format=json >"$folder/cargo.json"
cp "$(executable tests/cuda/main.rs)" "$folder/tests"
# shellcheck disable=SC2086
cargo build --release ${BUNDLE_OPTIONS:-} -p koala-gpu -p koala-ffi --message-format=json >"$folder/cargo.json"
cp "$(executable benches/gpu/main.rs)" "$folder/run"
if command -v cc >/dev/null; then
    cc -O2 -I include ffi/c/examples/cuda.c "$(archive)" -lm -ldl -lpthread -s -o "$folder/example"
else
    echo "skipped: the example in C, as there is no cc"
fi
rm "$folder/cargo.json"
if [ "$with_python" = yes ]; then
    python3 -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$folder" ./ffi/python
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/python" "$folder"/*.whl
    # For the package's own tests; what it needs of these depends on the Python there.
    python3 -m pip install --quiet --disable-pip-version-check --target "$folder/python" pytest exceptiongroup tomli
    mkdir "$folder/python/tests"
    cp ffi/python/tests/{test_torch_cuda,torch_models}.py "$folder/python/tests"
    cp benches/gpu/torch_steps.py ffi/python/bench/step.py "$folder"
fi
cp LICENSE-MIT LICENSE-APACHE "$folder"

glibc=$(grep -aohE 'GLIBC_2\.[0-9]+' -r "$folder" | sort -uV | tail -n 1)
cat >"$folder/README.txt" <<END
koala-optim, to be verified and measured on an NVIDIA GPU: run ./run in this folder. It takes less than five minutes,
prints one table and writes it to results.txt and results.json. It exits with 0 if nothing failed, with 2 if there is no
GPU that it could use. KOALA_CUDA_DEVICE=1 ./run takes another device than the first; ./run --quick takes small sizes.

Needed: Linux on x86-64 with glibc ${glibc#GLIBC_} or later, a driver for CUDA 12.0 or later, and a GPU of compute
capability 8.0 or later. Whatever else is there is used: a python3 with PyTorch for CUDA and cffi, compute-sanitizer.
END
size=$(du --bytes --summarize "$folder" | cut -f 1)
echo "$folder: $size bytes of at most $largest; needs glibc ${glibc#GLIBC_} or later"
[ "$size" -le "$largest" ]
