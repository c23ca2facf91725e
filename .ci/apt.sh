# apt.sh PACKAGE...: installs Debian's packages. Steps run beside each other, and two may ask at once: one waits.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
exec flock "$0" sh -c 'apt-get update -q && apt-get install -q -y --no-install-recommends "$@"' sh "$@"
