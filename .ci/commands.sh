# What a step of many commands is made of: `run` runs and times one, and goes on after a failure, which `failed` then tells;
# `skip` says what is not run and why.
failed=0

skip() { printf 'skipped: %s: %s\n' "$1" "$2"; }

run() {
    local start=$SECONDS
    printf '\n--> %s\n' "$*"
    "$@" || { printf 'FAILED: %s\n' "$*"; failed=1; }
    printf '%d s\n' $((SECONDS - start))
}
