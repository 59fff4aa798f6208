# Sourced by every test_*.sh: helpers for tests on several ranks.
#
# A test is a bash script that exits with 0 if it passes. It may use
#   $disttrain           the program
#   $scratch             an empty folder for this test, removed at the end
#   ranks N COMMAND...   runs COMMAND on N ranks under mpirun, which may be more than there are cores
#   expect_status, expect_text, expect_no_text, fail
#   await, await_from, within, slowed, held    for asynchronous events: tests wait for events, never for seconds

set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
disttrain=${DISTTRAIN:-$repository/.build/release/disttrain}
[[ -x $disttrain ]] || { echo "no program at $disttrain: run make build" >&2; exit 1; }

# Timeout in seconds for an expected event. A busy machine needs a small fraction of it: the limit only ends a hang and
# is not a test of speed.
patience=${TEST_PATIENCE:-300}

scratch=$(mktemp -d "${TMPDIR:-/tmp}/disttrain-test.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# One thread per rank: a test machine has few cores, and several ranks share them.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive
# As root, which is usual in a container, mpirun requires two confirmations.
if [[ $(id -u) == 0 ]]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

ranks() { ranks_with_input "$@" </dev/null; }

# The same, with the standard input on rank 0.
ranks_with_input() {
    local count=$1
    shift
    mpirun -q -n "$count" --host "localhost:$count" --mca plm isolated --mca ras '^slurm,tm,gridengine,lsf' \
        --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 "$@"
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# await WHAT COMMAND...: waits until the command succeeds. Its output is discarded.
await() {
    local what=$1 end=$((SECONDS + patience))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > end)); then fail "waited $patience s for $what"; fi
        sleep 0.05
    done
}

# await_from JOB WHAT COMMAND...: the same for an effect of a background job; fails if the job ends first.
await_from() {
    local process=$1 what=$2
    shift 2
    come_or_over() { "$@" || ! kill -0 "$process"; }
    await "$what" come_or_over "$@"
    "$@" >/dev/null 2>&1 || fail "the job ended before $what: $(tail -n 20 "$scratch"/job* 2>/dev/null || true)"
}

# gone PATTERN: succeeds if no process has a matching command line.
gone() { ! pgrep -f -- "$1"; }

# within COMMAND...: runs the command with a timeout; exit code 124 if it hangs.
within() { timeout "$patience" "$@"; }

# within_ranks COUNT COMMAND...: `ranks` with a timeout; exit code 124 if it hangs.
within_ranks() {
    local count=$1
    shift
    ranks "$count" timeout "$patience" "$@"
}

# has_line TEXT FILE: whether the file has a line with the text; for `await`.
has_line() { grep -qF -- "$1" "$2"; }

# slowed RUN LINES COMMAND...: delays every write of a line to the run's metrics.jsonl by 1 s after the first LINES
# lines, in the first process that reaches this point. A test that kills or stops the run at a step is then not too late
# on a busy machine. A restarted run is not delayed.
slowed() {
    local run=$1 lines=$2
    shift 2
    with_fault "$run" FAULT_ACTION=delay FAULT_SECONDS=1 FAULT_CALL='pwrite*' FAULT_FILE=metrics.jsonl \
        FAULT_AT=$((lines + 1)) FAULT_TIMES=0 FAULT_ONCE="$(mktemp -u "$scratch/once.XXXXXX")" "$@"
}

# held RUN CALL FILE COMMAND...: runs the command, which blocks before this call on this file of the run (both are
# patterns, see Tests/Faults/interpose.c) until it is killed.
held() {
    local run=$1 call=$2 file=$3
    shift 3
    with_fault "$run" FAULT_ACTION=wait FAULT_UNTIL="$scratch/never" FAULT_CALL="$call" FAULT_FILE="$file" "$@"
}

# with_fault RUN [FAULT_NAME=VALUE...] COMMAND...: runs the command with a fault injected into file calls on the run.
with_fault() {
    local run=$1 library=$scratch/interpose.so
    shift
    [[ -e $library ]] || "$repository/Tests/Faults/build.sh" "$library"
    local line=(env LD_PRELOAD="$library" FAULT_RANK=all FAULT_PATH="$run" "$@")
    # In the background, exec replaces the subshell, so that $! is the process ID of the command.
    if [[ $BASHPID != "$$" ]]; then exec "${line[@]}"; fi
    "${line[@]}"
}

# expect_status CODE COMMAND...: runs the command and compares its exit code. The output is in $scratch/out, and
# separately in $scratch/stdout and $scratch/stderr.
expect_status() {
    local expected=$1 status=0
    shift
    "$@" >"$scratch/stdout" 2>"$scratch/stderr" || status=$?
    cat "$scratch/stdout" "$scratch/stderr" >"$scratch/out"
    if [[ $status != "$expected" ]]; then
        cat "$scratch/out" >&2
        fail "exit code $status, expected $expected: $*"
    fi
}

# expect_text TEXT [TIMES]: the last command printed the text, in exactly TIMES lines if given.
expect_text() {
    local found
    found=$(grep -cF -- "$1" "$scratch/out" || true)
    if [[ $found == 0 || ( $# -gt 1 && $found != "${2:-}" ) ]]; then
        cat "$scratch/out" >&2
        fail "found $found lines with '$1', expected ${2:-at least 1}"
    fi
}

expect_no_text() {
    if grep -qF -- "$1" "$scratch/out"; then
        cat "$scratch/out" >&2
        fail "found '$1', expected none"
    fi
}
