#!/bin/bash
# Tries an installation of libkoala: looks at what the libraries export and need, builds and runs the examples by
# pkg-config and by CMake, shared and static, moves the installation, and uninstalls it. All that happens on a copy.
set -euo pipefail

if [ $# -ne 1 ] || [ ! -f "$1/share/koala/installed-files.txt" ]; then
  echo "usage: ffi/examples.sh PREFIX, into which ffi/install.sh has installed libkoala and nobody anything else" >&2
  exit 1
fi
for tool in cmake pkg-config cc c++ nm objdump ldd gunzip; do
  command -v $tool > /dev/null || { echo "examples.sh: $tool is needed" >&2; exit 1; }
done

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -a "$1" "$work/first"
gunzip -c "$here/../cli/data/digits.csv.gz" > "$work/digits.csv"
cd "$here"
examples=(c/examples/*.c cpp/examples/*.cpp)

fail() {
  echo "examples.sh: $*" >&2
  exit 1
}

# Runs a program, and says what it printed.
try() { # HOW PROGRAM
  local output
  output=$("$2" < "$work/digits.csv") || fail "$2 failed: $output"
  printf '%-18s  %-21s  %s\n' "$1" "$(basename "$2")" "$output"
}

# Builds an example with what pkg-config says, and runs it.
by_pkg_config() { # PREFIX shared|static SOURCE
  local compiler="cc -std=c11" name library extra=()
  name=$(basename "$3")
  [[ $name == *.cpp ]] && compiler="c++ -std=c++17"
  [[ $name == threads.c ]] && extra+=(-fopenmp)
  [[ $name == perceptron.cpp ]] && extra+=($(pkg-config --cflags eigen3 | sed 's/-I/-isystem /g'))
  local -x PKG_CONFIG_PATH=$1/lib/pkgconfig
  case $2 in
    shared) library=$(pkg-config --cflags --libs koala) ;;
    static) library=$(pkg-config --cflags --libs --static koala | sed 's/-lkoala/-l:libkoala.a/') ;;
  esac
  mkdir -p "$work/pkg-config-$2"
  $compiler -O2 -Wall -Wextra -Wpedantic -Werror "${extra[@]}" -o "$work/pkg-config-$2/$name" "$3" $library -lm
  try "pkg-config, $2" "$work/pkg-config-$2/$name"
}

# Builds the smallest example by the command that stands in it, and runs it.
as_it_says() { # PREFIX
  local command
  command=$(sed -n 's/^ \* Compile it with: \(.*\) \*\/$/\1/p' c/examples/five_lines.c)
  [ -n "$command" ] || fail "five_lines.c does not say how to compile it"
  mkdir -p "$work/alone"
  cp c/examples/five_lines.c "$work/alone"
  (cd "$work/alone" && PKG_CONFIG_PATH=$1/lib/pkgconfig bash -c "$command") || fail "it does not compile: $command"
  try "as it says" "$work/alone/a.out"
}

# Has CMake build some targets, or all of them.
by_cmake() { # PREFIX TARGET...
  rm -rf "$work/build"
  {
    cmake -S . -B "$work/build" -DCMAKE_PREFIX_PATH="$1" -DCMAKE_BUILD_TYPE=Release &&
      cmake --build "$work/build" --parallel 2 --target "${@:2}"
  } > "$work/log" || { cat "$work/log"; fail "CMake failed"; }
}

lib=$work/first/lib
found=$(nm -D --defined-only "$lib/libkoala.so" | awk '$3 !~ /^koala_/')
[ -z "$found" ] || fail "libkoala.so exports more than koala_*: $found"
found=$(nm -g --defined-only "$lib/libkoala.a" | awk 'NF == 3 && $3 !~ /^koala_/')
[ -z "$found" ] || fail "libkoala.a exports more than koala_*: $found"
found=$(ldd "$lib/libkoala.so" | awk '$1 !~ /(linux-vdso|libc|libm|libgcc_s|ld-linux[^ ]*)\.so/')
[ -z "$found" ] || fail "libkoala.so needs more than the C library: $found"
du -L --block-size=1 "$lib"/libkoala.{so,a} | awk '{ printf "%s: %.1f MB\n", $2, $1 / 1e6 }' | sed 's|/.*/||'

needed=$(objdump -p "$lib/libkoala.so" | awk '$1 == "SONAME" { print $2 }')
version=$(sed -n 's/^Version: //p' "$lib/pkgconfig/koala.pc")
case $version in
  0.*) series=${version%.*} ;;
  *) series=${version%%.*} ;;
esac
[ "$needed" = "libkoala.so.$series" ] || fail "the SONAME of version $version is $needed"
[ -e "$lib/$needed" ] || fail "there is no $needed, which programs will look for"
as_it_says "$work/first"
for source in "${examples[@]}"; do
  by_pkg_config "$work/first" shared "$source"
  by_pkg_config "$work/first" static "$source"
done
by_cmake "$work/first" all
for source in "${examples[@]}"; do
  name=$(basename "${source/./_}")
  try CMake "$work/build/$name"
  try CMake "$work/build/${name}_static"
done

mv "$work/first" "$work/second"
echo "moved:"
by_pkg_config "$work/second" shared c/examples/five_lines.c
by_cmake "$work/second" five_lines_c
try CMake "$work/build/five_lines_c"

(cd "$work/second" && xargs rm -- < share/koala/installed-files.txt)
left=$(find "$work/second" -not -type d)
[ -z "$left" ] || fail "left over: $left"
echo "uninstalled"
