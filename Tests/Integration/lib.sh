# Sourced by every test_*.sh: what a test on several ranks needs.
#
# A test is a bash script that ends with 0 when it passed. It may use
#   $disttrain           the program
#   $scratch             an empty folder of its own, removed at the end
#   ranks N COMMAND...   COMMAND on N ranks under mpirun, more than there are cores where need be
#   expect_status, expect_text, expect_no_text, fail

set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
disttrain=${DISTTRAIN:-$repository/.build/release/disttrain}
[[ -x $disttrain ]] || { echo "no program at $disttrain: run make build" >&2; exit 1; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/disttrain-test.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# One thread a rank: a test machine has few cores, and several ranks share them.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive
# As root, which is what a container usually is, mpirun wants to be told twice.
if [[ $(id -u) == 0 ]]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

ranks() {
    local count=$1
    shift
    mpirun -q -n "$count" --host "localhost:$count" --mca plm isolated --mca ras '^slurm,tm,gridengine,lsf' \
        --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 "$@" </dev/null
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# expect_status CODE COMMAND...: runs it, its output in $scratch/out (kept apart: $scratch/stdout and
# $scratch/stderr), and compares its exit code.
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

# expect_text TEXT [TIMES]: the last command printed it, in exactly so many lines when TIMES is given.
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
