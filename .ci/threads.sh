# ffi/tests/threads.rs under ThreadSanitizer, which sees a read and a write of the same memory that nothing orders. The
# standard library has to be built with it too, else its locks are not seen: from Debian's source, by Debian's compiler,
# with the sanitizer's own library from rustup's Rust, as Debian has none.
set -euo pipefail
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu

if ! [ -x /usr/bin/rustc ] || ! [ -d /usr/lib/rustlib/src/rust/library ]; then
    bash .ci/apt.sh rustc-web libstd-rust-web-dev rust-web-src
fi
runtime=$(rustc --print sysroot)/lib/rustlib/$target/lib/librustc-stable_rt.tsan.a
[ -e "$runtime" ] || { echo "rustup's Rust lacks $runtime" >&2; exit 1; }
ln -sf "$runtime" "/usr/lib/rustlib/$target/lib/"

export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=thread CARGO_INCREMENTAL=0
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/ci-tsan}
# It is orders that are watched, not speed: the core is optimized a little, which takes half as long.
exec cargo test -Zbuild-std --target "$target" -p koala-ffi --test threads \
    --config 'profile.dev.package.koala-optim.opt-level=1'
