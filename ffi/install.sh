#!/bin/sh
# Builds libkoala and installs it for C and C++: see --help.
set -eu

usage() {
  cat <<'END'
usage: ffi/install.sh PREFIX

Builds libkoala with cargo, and installs into the folder PREFIX:
  lib/        libkoala, shared and static; packages for pkg-config and CMake
  bin/        koala.dll, on Windows only, whose import library is in lib/
  include/    koala.h and koala.hpp
  share/      koala/installed-files.txt, the list of all these files

To uninstall: cd PREFIX && xargs rm -- < share/koala/installed-files.txt

Environment:
  DESTDIR             a folder to put before PREFIX, for packagers
  CARGO_TARGET_DIR    where cargo builds
END
}

fail() {
  echo "install.sh: $*" >&2
  exit 1
}

# Fills a template of ffi/install.
fill() {
  sed -e "s/@VERSION@/$version/g" -e "s/@MAJOR@/$major/g" -e "s/@MINOR@/$minor/g" \
    -e "s,@SHARED@,$folder/$shared,g" -e "s,@SONAME@,$identity,g" -e "s/@FLAGS@/$flags/g" \
    -e "s/@NEEDED@/$needed/g" "$here/install/$1"
}

# The path of a file that cargo has built, by its name.
built() {
  sed -n 's,.*"filenames":\[.*"\([^"]*[/\\]'"$1"'\)".*,\1,p' "$work/messages" | tail -n 1
}

# Makes one object of a static library, in which nothing is global but koala_*: else two static libraries written in
# Rust could not be linked into one program. What no koala_* function needs is left out.
seal() {
  nm -D --defined-only "$library" | sed 's/.* /--undefined=/' > "$work/wanted"
  [ -s "$work/wanted" ] || fail "nm finds no functions in the shared library"
  ld -r --gc-sections --force-group-allocation --strip-debug "@$work/wanted" --whole-archive "$1" -o "$work/open.o"
  objcopy --strip-unneeded --wildcard --keep-global-symbol='koala_*' \
    --remove-section='.llvm*' --remove-section=.comment "$work/open.o" "$work/koala.o"
  ar -rcs "$2" "$work/koala.o"
}

case ${1-} in
  -h | --help) usage; exit 0 ;;
esac
[ $# -eq 1 ] && [ -n "$1" ] || { usage >&2; fail "one PREFIX is needed"; }
case $1 in
  -*) usage >&2; fail "unknown option $1" ;;
  /*) prefix=$1 ;;
  *) prefix=$PWD/$1 ;;
esac
target=${DESTDIR-}$prefix
command -v cargo > /dev/null || fail "cargo is needed, which comes with Rust: https://rustup.rs"

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
[ -n "$version" ] || fail "there is no version in $root/Cargo.toml"
major=${version%%.*}
minor=${version#*.}
minor=${minor%%.*}
# What a program has to find again: below 1.0 the same minor version too.
series=$major
[ "$major" != 0 ] || series=0.$minor

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

system=$(uname -s)
folder=lib needed="-lpthread -ldl -lm"
set --
case $system in
  Darwin) # Not tested: nobody had a Mac at hand.
    library=libkoala.dylib shared=libkoala.$version.dylib soname=libkoala.$series.dylib
    identity=@rpath/$soname
    set -- -C "link-arg=-Wl,-install_name,$identity" ;;
  MINGW* | MSYS* | CYGWIN*) # For Rust's target x86_64-pc-windows-gnu. Not tested: nobody had Windows at hand.
    library=koala.dll shared=koala.dll soname= identity=koala.dll
    folder=bin needed="-lkernel32 -lntdll -luserenv -lws2_32 -ldbghelp" ;;
  *) # ffi/build.rs gives the SONAME.
    library=libkoala.so shared=libkoala.so.$version soname=libkoala.so.$series
    identity=$soname ;;
esac
# A program finds the library where it was linked with it. The system looks into /usr by itself, and Windows into PATH.
flags='-L${libdir} -Wl,-rpath,${libdir} -lkoala'
[ "$folder" = lib ] && [ "$prefix" != /usr ] || flags='-L${libdir} -lkoala'

# Not `cargo build`: with the Rust library among the kinds, cargo would not optimize across crates.
cargo rustc --manifest-path "$root/Cargo.toml" --package koala-ffi --lib --profile dist \
  --crate-type cdylib,staticlib --message-format json-render-diagnostics -- "$@" > "$work/messages" \
  || fail "the build failed; nothing has been installed"
link=$library
library=$(built "$link")
archive=$(built libkoala.a)
[ -f "$library" ] && [ -f "$archive" ] || fail "cargo does not tell where it put the libraries"

# All is made ready here first, so that a failure leaves the prefix as it was.
stage=$work/stage
mkdir -p "$stage/include" "$stage/$folder" "$stage/lib/pkgconfig" "$stage/lib/cmake/koala" "$stage/share/koala"
cp "$root/include/koala.h" "$root/include/koala.hpp" "$stage/include"
cp "$library" "$stage/$folder/$shared"
if [ "$folder" = bin ]; then
  cp "$(dirname -- "$library")/libkoala.dll.a" "$stage/lib" || fail "cargo has made no import library"
else
  ln -s "$shared" "$stage/lib/$soname"
  ln -s "$soname" "$stage/lib/$link"
fi
if [ "$system" = Linux ]; then
  seal "$archive" "$stage/lib/libkoala.a"
else
  cp "$archive" "$stage/lib/libkoala.a"
fi
fill koala.pc.in > "$stage/lib/pkgconfig/koala.pc"
fill koala-config.cmake.in > "$stage/lib/cmake/koala/koala-config.cmake"
fill koala-config-version.cmake.in > "$stage/lib/cmake/koala/koala-config-version.cmake"
list=share/koala/installed-files.txt
: > "$stage/$list"
(cd "$stage" && find . -type f -o -type l) | sed 's/^\.\///' | sort > "$work/list"
cp "$work/list" "$stage/$list"

[ ! -f "$target/$list" ] || cp "$target/$list" "$work/before"
# The list goes first: with it, an installation that a full disk cut short can be removed.
for file in "$list" $(cat "$work/list"); do
  install -d "$target/${file%/*}"
  if [ -h "$stage/$file" ]; then
    ln -sf "$(readlink "$stage/$file")" "$target/$file"
  elif [ "$file" = "$folder/$shared" ]; then
    install -m 755 "$stage/$file" "$target/$file"
  else
    install -m 644 "$stage/$file" "$target/$file"
  fi
done
# What an earlier version had and this one has not.
[ ! -f "$work/before" ] || (cd "$target" && grep -vxFf "$work/list" "$work/before" | xargs rm -f --)
echo "libkoala $version is installed in $target"
