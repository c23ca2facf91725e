#!/bin/bash
# The CUDA backend, as far as can be without a GPU: the committed PTX is what its kernels compile to, ptxas stays within its
# bounds, and the bundle for a GPU machine is tested on a fake driver. (The tests of the backend itself are among those of
# the README's command, as libkoala has it.) Needs Python 3 with venv, Rust, network, and g++ (which it installs). What it
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
# Beside another user of cudarc, such as candle, who has the driver linked.
run cargo check -p koala-optim --features cuda,cudarc/dynamic-linking

# The bundle: where there is no such device, and on a driver that is no GPU's. With the features of the whole workspace, all
# of it but its own program has been compiled already.
bundle=target/ci-gpu-bundle
rm -rf "$bundle"
run env BUNDLE_OPTIONS=--workspace bash benches/gpu/bundle.sh "$bundle" --without-python
run driver "$environment/libcuda.so.1"
run fails_with 2 env KOALA_CUDA_DEVICE=1000 "$bundle/run"
run env LD_LIBRARY_PATH="$PWD/$environment" "$bundle/run" --quick

skip "the bundle's part for PyTorch" "it needs a GPU"
skip "bits on a GPU, speed, graphs and the real driver's errors" "there is no GPU that these tests would use"
exit "$failed"
