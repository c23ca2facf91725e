#!/bin/bash
# The headers, each alone and without a warning, in every version of C and C++ that they are for, by each compiler.
# A compiler that is not there is named and left out.
set -euo pipefail
cd "$(dirname "$0")/../include"
strict=(-Wall -Wextra -Wpedantic -Werror -fsyntax-only -I .)
count=0

# check LANGUAGE HEADER COMPILER STANDARD...
check() {
    local language=$1 header=$2 compiler=$3 standard
    shift 3
    if ! command -v "$compiler" >/dev/null; then
        echo "skipped: $header by $compiler, which is not installed"
        return
    fi
    for standard in "$@"; do
        # Twice, as any header must be that a program includes by two ways. It is the empty file's that is compiled.
        "$compiler" -x "$language" -std="$standard" "${strict[@]}" -include "$header" -include "$header" /dev/null
        count=$((count + 1))
    done
    echo "$header by $compiler: $*"
}

for compiler in gcc clang; do check c koala.h "$compiler" c99 c11 c17; done
for compiler in g++ clang++; do check c++ koala.h "$compiler" c++11 c++14 c++17 c++20; done
if [ -e koala.hpp ]; then
    for compiler in g++ clang++; do check c++ koala.hpp "$compiler" c++17 c++20; done
else
    echo "skipped: koala.hpp, which is not there"
fi
echo "$count compilations without a warning"
