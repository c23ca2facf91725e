# libkoala on 32-bit x86, without optimization: the layout of its structs, the bits of trajectories and methods, and
# checkpoints. Installs what Debian has to add: libraries, a compiler, and a Rust of Debian's own.
set -euo pipefail
cd "$(dirname "$0")/.."
dpkg --add-architecture i386
bash .ci/apt.sh gcc-i686-linux-gnu libc6-dev-i386-cross rustc-web libstd-rust-web-dev libstd-rust-web-dev:i386
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc CARGO_TARGET_DIR=target/ci-i686 CARGO_INCREMENTAL=0
export CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_LINKER=i686-linux-gnu-gcc CC=i686-linux-gnu-gcc
exec cargo test --target i686-unknown-linux-gnu -p koala-ffi --config profile.dev.opt-level=0 \
    --config profile.dev.package.koala-optim.opt-level=1 --no-fail-fast \
    --test layout --test trajectories --test c_methods --test checkpoints
