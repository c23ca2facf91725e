# What Debian has to add: for Arm a compiler with its libraries (rustc-web is a Rust of Debian's own, beside
# rustup's and out of its way; rustup's targets are not used) and an emulator.
set -euo pipefail
dpkg --add-architecture arm64
exec bash "$(dirname "$0")/apt.sh" qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
    rustc-web libstd-rust-web-dev libstd-rust-web-dev:arm64
