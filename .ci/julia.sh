#!/bin/bash
# The Julia package, as far as it can be looked at without Julia: its syntax, and its signatures against koala.h. Needs
# Python 3.9 or later with venv, and network.
set -uo pipefail
cd "$(dirname "$0")/.."
environment=target/ci-julia
failed=0

rm -rf "$environment"
python3 -m venv "$environment" || exit 1
"$environment/bin/pip" install --quiet --disable-pip-version-check fatou pytest || exit 1

# It reports what cannot be parsed, too.
"$environment/bin/fatou" --no-config lint ffi/julia/src || failed=1

log=$environment/pytest.log
"$environment/bin/pytest" -q -p no:cacheprovider ffi/julia/test_signatures.py 2>&1 | tee "$log" || failed=1
count() { grep -oE "[0-9]+ $1" "$log" | tail -n 1 | cut -d ' ' -f 1; }
echo "skipped: running the Julia package: there is no Julia here"
# In cargo's words, for the summary of .ci/run.
passed=$(count passed) errors=$(count '(failed|error)')
echo "test result: $([ "$failed" = 0 ] && echo ok || echo FAILED). ${passed:-0} passed; ${errors:-0} failed"
exit "$failed"
