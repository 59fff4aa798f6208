#!/bin/bash
# The communicator under real mpirun: correct results on 1 to 4 ranks, and no failure that hangs.
source "$(dirname "$0")/lib.sh"

self_test=("$disttrain" self-test communication)

# Alone, without MPI.
expect_status 0 "${self_test[@]}"
expect_text "communication on 1 ranks: all checks passed, no MPI"

for count in 1 2 3 4; do
    expect_status 0 ranks "$count" "${self_test[@]}"
    expect_text "communication on $count ranks: all checks passed, Open MPI" 1
done

# The transport used in containers, which copies through shared buffers.
expect_status 0 ranks 3 --mca btl_vader_single_copy_mechanism none "${self_test[@]}"
expect_text "all checks passed" 1

# Over TCP, as between machines.
expect_status 0 ranks 2 --mca btl tcp,self --mca btl_tcp_if_include 127.0.0.0/8 "${self_test[@]}"
expect_text "all checks passed" 1

# An error on one rank during collective work: reported once with the rank, and all ranks exit with its code.
for failing in 0 2; do
    expect_status 3 ranks 3 "${self_test[@]}" --scenario agreed-failure --failing-rank $failing
    expect_text "shard 7 is truncated" 1
    expect_text "Error (rank $failing): shard 7 is truncated" 1
    expect_no_text "completed the scenario"
done

# An error that every rank detects: reported once, without a rank.
expect_status 2 ranks 4 "${self_test[@]}" --scenario common-failure
expect_text "Error: no such key" 1
expect_no_text "rank"

# Invalid usage, detected before MPI starts: reported once.
expect_status 2 ranks 3 "${self_test[@]}" --no-such-option
expect_text "no-such-option'" 1

# An error that other ranks cannot receive, because they wait for this rank: it terminates all ranks.
for scenario in lone-failure failure-in-reduction; do
    expect_status 3 within bash -c "source $repository/Tests/Integration/lib.sh; ranks 3 \"\$@\"" - \
        "${self_test[@]}" --scenario $scenario --failing-rank 1
    expect_text "Error (rank 1): shard 7 is truncated" 1
    expect_no_text "completed the scenario"
done

# Started as one of several processes that cannot connect to each other.
expect_status 1 env SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 "${self_test[@]}"
expect_text "srun --mpi=pmix" 1
