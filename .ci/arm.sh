# arm.sh CPU LARGEST SUBCOMMAND OPTIONS...: cargo for 64-bit Arm, its programs run by an emulator of that processor,
# the tests' tensors no longer than LARGEST.
set -euo pipefail
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc CARGO_TARGET_DIR=target/ci-arm CARGO_INCREMENTAL=0
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $1" # With -L threads would never start.
export KOALA_TEST_LARGEST=$2
cargo "$3" --target aarch64-unknown-linux-gnu "${@:4}"
