# candle's adapter on a CUDA device: candle is built for CUDA by a compiler of our own, backends/cuda/shim/nvcc, and
# linked with a driver of our own, on which the tests of the adapter then run. Nothing of NVIDIA's is needed. All is
# built without optimization, which takes less time. What it skips, it says.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/commands.sh
command -v g++ >/dev/null || bash .ci/apt.sh g++
toolkit=$PWD/target/ci-cuda-toolkit
mkdir -p "$toolkit/lib"
driver "$toolkit/lib/libcuda.so" libcuda_candle.cpp
# One library for all those that candle names.
for library in cublas cublasLt cudart curand nvrtc; do
    ln -sf libcuda.so "$toolkit/lib/lib$library.so"
done

export CUDA_HOME=$toolkit NVCC=$PWD/backends/cuda/shim/nvcc CUDA_COMPUTE_CAP=80 LD_LIBRARY_PATH=$toolkit/lib
cargo test -p koala-candle --features cuda,candle-core/cuda --config profile.dev.opt-level=0 \
    --config profile.dev.package.koala-optim.opt-level=0 --test on_cuda
skip "candle's adapter on a GPU" "there is no GPU that these tests would use"
