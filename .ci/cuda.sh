#!/bin/bash
# The CUDA backend, as far as can be without a GPU: its kernels compiled for this processor give the scalar backend's bits,
# the committed PTX is what they compile to, ptxas stays within its bounds, the host's side is tested on a fake driver,
# and so is the bundle for a GPU machine. Needs Python 3 with venv, Rust, network, and g++ (which it installs). What it
# skips, it says.
set -uo pipefail
cd "$(dirname "$0")/.."
source .ci/commands.sh
environment=target/ci-cuda

# fails_with STATUS COMMAND...
fails_with() {
    local expected=$1 status=0
    shift
    "$@" || status=$?
    [ "$status" = "$expected" ]
}

command -v g++ >/dev/null || run bash .ci/apt.sh g++
rm -rf "$environment"
run python3 -m venv "$environment"
run "$environment/bin/pip" install --quiet --disable-pip-version-check -r backends/cuda/requirements.txt
# It ends in cargo's words, for the summary of .ci/run.
run "$environment/bin/python" backends/cuda/ptx.py --check

export KOALA_REQUIRE_SHIM=1
# With the features that everything else has been built with: so only the library is built again.
features=(--release -p koala-optim --features cuda,rayon)
run cargo test "${features[@]}" --no-fail-fast --test cuda --test cuda_driver --test cuda_tables
run cargo test "${features[@]}" --doc cuda

# The bundle, where there is no such device, and on a driver that is no GPU's.
bundle=target/ci-gpu-bundle
shim=backends/cuda/shim
rm -rf "$bundle"
run bash backends/cuda/bundle.sh "$bundle" --without-python
run g++ -std=c++17 -O2 -ffp-contract=off -shared -fPIC -Wno-unknown-pragmas -I "$shim" -Wl,-soname,libcuda.so \
    "$shim"/{shim,libcuda,libcuda_streams}.cpp -o "$environment/libcuda.so"
run fails_with 2 env KOALA_CUDA_DEVICE=1000 "$bundle/run"
run env LD_LIBRARY_PATH="$PWD/$environment" "$bundle/run" --quick

skip "the bundle's part for PyTorch" "it needs a GPU"
skip "bits on a GPU, speed, graphs and the real driver's errors" "there is no GPU that these tests would use"
exit "$failed"
