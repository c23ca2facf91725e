# What .ci/run is made of: `step` runs and times a command and keeps its log, `skip` notes what is not run and why,
# `summary` prints a line for each, the tests' total last, and exits. Steps that spend their time waiting for the network or
# on one processor run beside the others: `aside FUNCTION` starts a function of steps, `join` waits for it and shows what
# it printed.
logs=target/ci-logs
rm -rf "$logs"
mkdir -p "$logs"
lines=()
failed=0

aside() {
    mkdir -p "$logs/aside"
    (
        logs+=/aside
        lines=()
        "$1"
        printf '%s\n' "${lines[@]}" >"$logs/lines"
        exit "$failed"
    ) >"$logs/aside/output" 2>&1 </dev/null &
    aside=$!
}

join() {
    wait "$aside" || failed=1
    cat "$logs/aside/output"
    mapfile -t -O "${#lines[@]}" lines <"$logs/aside/lines"
}

# step NAME COMMAND...: no step may take longer than 40 minutes, or read the terminal.
step() {
    local name=$1 log start outcome=ok
    shift
    log="$logs/${#lines[@]}.log"
    start=$SECONDS
    printf '\n==> %s: %s\n' "$name" "$*"
    if ! timeout --kill-after=10 2400 "$@" </dev/null 2>&1 | tee "$log"; then
        outcome=FAILED
        failed=1
    fi
    name+=$(counted ': %d passed, %d failed' "$log")
    lines+=("$(printf '%-7s %4d s  %s' "$outcome" $((SECONDS - start)) "$name")")
    [ "$outcome" = ok ]
}

skip() {
    printf '\n==> skipped: %s: %s\n' "$1" "$2"
    lines+=("$(printf 'skipped         %s: %s' "$1" "$2")")
}

# counted FORMAT LOG...: the tests that passed and failed, by cargo's lines; nothing if there are none.
counted() {
    local format=$1
    shift
    cat "$@" | awk -v format="$format" '
        /^test result:/ { passed += $4; failed += $6; any = 1 }
        END { if (any) printf(format, passed, failed) }'
}

summary() {
    printf '\n==> summary, on %s\n' "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)"
    printf '%s\n' "${lines[@]}"
    sed -nE -e 's/^test (.*) \.\.\. ignored, (.*)/skipped         test \1: \2/p' \
        -e 's/^SKIPPED \[[0-9]+\] /skipped         /p' -e 's/^skipped: /skipped         /p' "$logs"/*.log "$logs"/aside/*.log | sort -u
    echo "total   $SECONDS s"
    counted '%d passed, %d failed\n' "$logs"/*.log "$logs"/aside/*.log
    exit "$failed"
}
