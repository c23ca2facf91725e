#!/bin/bash
# The Python package, as a user has it: installed from the clone by pip into a fresh environment, then linted, type-checked
# and tested, and its examples and its benchmarks run. Needs Python 3.9 or later with venv, Rust, and network. What it
# skips, it says.
set -uo pipefail
cd "$(dirname "$0")/.."
source .ci/commands.sh
environment=$PWD/target/ci-python
passed_tests=0
failed_tests=0

# try_to_install PACKAGE...: what not every machine can have.
try_to_install() {
    pip install --quiet "$@" || skip "$*" "pip could not install it here"
}

# tests: of all packages that are there; -rs has the others' tests listed.
tests() {
    local log=$environment/pytest.log status=0 last
    pytest -q -rs --durations=8 -p no:cacheprovider tests 2>&1 | tee "$log" || status=1
    last=$(tail -n 1 "$log")
    passed_tests=$(grep -o '[0-9]* passed' <<<"$last" | cut -d ' ' -f 1)
    failed_tests=$(grep -oE '[0-9]+ (failed|error)' <<<"$last" | awk '{ sum += $1 } END { print sum + 0 }')
    return $status
}

# from_sdist: a source distribution, built and installed where there is no clone, by an environment of its own. For
# release, as most of what it needs has been built so.
from_sdist() (
    set -e
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    pip install --quiet 'maturin>=1.9,<2'
    maturin sdist --manifest-path ffi/python/Cargo.toml --out "$folder"
    python3 -m venv "$folder/environment"
    CARGO_TARGET_DIR=$PWD/target MATURIN_PEP517_ARGS="--profile release" \
        "$folder/environment/bin/pip" install --quiet "$folder"/koala_optim-*.tar.gz
    cd "$folder"
    environment/bin/python -c "import koala_optim; print(koala_optim.__version__, 'from a source distribution')"
)

rm -rf "$environment"
python3 -m venv "$environment" || exit 1
export PATH=$environment/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
run pip install --quiet './ffi/python[test]'
[ "$failed" = 0 ] || exit 1
run from_sdist
run try_to_install torch
run try_to_install jax optax

cd ffi/python || exit 1
run ruff check --no-cache .
run ruff format --no-cache --check .
run mypy --strict --cache-dir "$environment/mypy" koala_optim
run tests
# From elsewhere, so that it is the installed package that is imported.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
shopt -s nullglob
for example in "$PWD"/examples/[!_]*.py; do
    missing=$(python - "$example" <<'END'
import importlib.util, os, re, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
names = re.findall(r"^(?:import|from) (\w+)", open(sys.argv[1], encoding="utf-8").read(), re.MULTILINE)
print(*sorted({name for name in names if importlib.util.find_spec(name) is None}))
END
    )
    if [ -n "$missing" ]; then
        skip "$(basename "$example")" "there is no $missing here"
    else
        run env --chdir="$folder" python "$example" --quick
    fi
done
if python -c "import torch" 2>/dev/null; then
    run env --chdir="$folder" python "$PWD/bench/step.py" --quick
    run env --chdir="$folder" python "$PWD/bench/adamw.py" --quick
else
    skip "bench/step.py and bench/adamw.py" "there is no torch here"
fi

# In cargo's words, for the summary of .ci/run.
echo "test result: $([ "$failed" = 0 ] && echo ok || echo FAILED). ${passed_tests:-0} passed; ${failed_tests:-0} failed"
exit "$failed"
