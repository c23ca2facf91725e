# What Debian has to add for libkoala's users in C and C++: a second compiler, what builds and finds libraries, Eigen for
# an example, and valgrind.
set -euo pipefail
exec bash "$(dirname "$0")/apt.sh" clang cmake libc6-dbg libeigen3-dev pkg-config valgrind
