# What a step of many commands is made of: `run` runs and times one, and goes on after a failure, which `failed` then tells;
# `skip` says what is not run and why; `driver` builds the CUDA driver of our own.
failed=0

skip() { printf 'skipped: %s: %s\n' "$1" "$2"; }

run() {
    local start=$SECONDS
    printf '\n--> %s\n' "$*"
    "$@" || { printf 'FAILED: %s\n' "$*"; failed=1; }
    printf '%d s\n' $((SECONDS - start))
}

# driver LIBRARY [FILE...]: with more files of its folder than it always has. Programs that load a driver find it there.
driver() {
    local library=$1 shim=backends/cuda/shim
    shift
    g++ -std=c++17 -O2 -ffp-contract=off -Wall -Wextra -Werror -Wno-unknown-pragmas -shared -fPIC -I "$shim" \
        -Wl,-soname,"$(basename "$library")" "$shim"/{shim,libcuda,libcuda_streams}.cpp "${@/#/$shim/}" -o "$library"
}
