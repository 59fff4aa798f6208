#!/bin/bash
# disttrain launch: runs the ranks, returns their exit code, and leaves no process running.
source "$(dirname "$0")/lib.sh"

self_test=(self-test communication)
unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM # launch sets them where they are needed.

expect_status 0 "$disttrain" launch -n 2 -- "${self_test[@]}"
expect_text "1 node × 2 ranks × 1 thread" 1
expect_text "communication on 2 ranks: all checks passed, Open MPI" 1

# More ranks than cores.
expect_status 0 "$disttrain" launch -n "$(($(nproc) + 2))" --threads 1 -- "${self_test[@]}"
expect_text "oversubscribed" 1
expect_text "all checks passed" 1

# A surrounding allocation of hosts that do not exist here has no effect.
expect_status 0 env SLURM_JOB_ID=5 SLURM_JOBID=5 SLURM_NNODES=2 SLURM_NODELIST='node[0-1]' \
    SLURM_TASKS_PER_NODE='1(x2)' "$disttrain" launch -n 2 -- "${self_test[@]}"
expect_text "all checks passed" 1

# Each rank gets its threads, and OpenBLAS gets one.
expect_status 0 "$disttrain" launch -n 2 --threads 3 --dry-run -- "${self_test[@]}" --scenario forever
expect_text "OMP_NUM_THREADS=3" 1
expect_text "OPENBLAS_NUM_THREADS=1" 1
expect_text "self-test communication --scenario forever" 1

# The ranks' exit code is that of the job, and only their error is printed.
expect_status 3 "$disttrain" launch -n 2 -- "${self_test[@]}" --scenario agreed-failure --failing-rank 1
expect_text "Error (rank 1): shard 7 is truncated" 1
expect_no_text "mpirun"
expect_status 2 "$disttrain" launch -n 2 -- "${self_test[@]}" --scenario common-failure
expect_text "no such key" 1

# A rank that dies, and one that exits too early, end the job.
expect_status 137 "$disttrain" launch -n 3 -- "${self_test[@]}" --scenario death --failing-rank 2
expect_text "ended by signal 9" 1
expect_status 1 "$disttrain" launch -n 2 -- "${self_test[@]}" --scenario early-exit --failing-rank 1
expect_text "ended with exit code 1" 1

# Invalid usage is reported once, before anything starts.
expect_status 2 "$disttrain" launch -n 2
expect_text "put it after \`--\`" 1
expect_status 2 "$disttrain" launch -n 0 -- "${self_test[@]}"
expect_status 2 "$disttrain" launch -n 2 -- "${self_test[@]}" --no-such-option
expect_text "no-such-option'" 1
expect_no_text "ranks ×"
expect_status 2 env PATH="$scratch" "$disttrain" launch -n 2 -- "${self_test[@]}"
expect_text "apt-get install openmpi-bin" 1
expect_status 2 env OMPI_COMM_WORLD_SIZE=2 "$disttrain" launch -n 2 -- "${self_test[@]}"
expect_text "launch starts mpirun itself"

# wait_for_ranks COUNT: waits until all ranks run, and lists their processes.
wait_for_ranks() {
    have_started() { [[ $(grep -c 'waits, process ' "$scratch/job") == "$1" ]]; }
    await "$1 ranks to start" have_started "$1"
    mapfile -t processes < <(sed -n 's/.*waits, process //p' "$scratch/job")
}

expect_all_gone() {
    local process
    has_ended() { ! kill -0 "$1"; }
    for process in "${processes[@]}"; do await "the end of rank process $process after the job's" has_ended "$process"; done
}

# A rank killed from outside, like by the kernel when memory runs out.
"$disttrain" launch -n 2 -- "${self_test[@]}" --scenario forever >"$scratch/job" 2>&1 &
job=$!
wait_for_ranks 2
kill -KILL "${processes[1]}"
status=0
wait $job || status=$?
[[ $status == 137 ]] || fail "exit code $status after a rank was killed, expected 137"
expect_all_gone

# Stopping the launcher stops the ranks.
for signal in TERM INT; do
    # Background jobs of bash ignore SIGINT, and an ignored signal is not forwarded.
    env --default-signal=INT "$disttrain" launch -n 2 -- "${self_test[@]}" --scenario forever \
        >"$scratch/job" 2>&1 &
    job=$!
    wait_for_ranks 2
    kill -$signal $job
    status=0
    wait $job || status=$?
    [[ $status == $((128 + $(kill -l $signal))) ]] || fail "exit code $status after SIG$signal"
    expect_all_gone
done
