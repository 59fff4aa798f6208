#!/bin/bash
# The communicator under real mpirun: right results on 1 to 4 ranks, and no failure that hangs.
source "$(dirname "$0")/lib.sh"

self_test=("$disttrain" self-test communication)

# Alone, without MPI.
expect_status 0 "${self_test[@]}"
expect_text "communication on 1 ranks: all checks passed, no MPI"

for count in 1 2 3 4; do
    expect_status 0 ranks "$count" "${self_test[@]}"
    expect_text "communication on $count ranks: all checks passed, Open MPI" 1
done

# The transport of containers, which copies through shared buffers.
expect_status 0 ranks 3 --mca btl_vader_single_copy_mechanism none "${self_test[@]}"
expect_text "all checks passed" 1

# Over TCP, as between machines.
expect_status 0 ranks 2 --mca btl tcp,self --mca btl_tcp_if_include 127.0.0.0/8 "${self_test[@]}"
expect_text "all checks passed" 1

# A fault that one rank finds in work done together: told once, with the rank, and its code for all.
for failing in 0 2; do
    expect_status 3 ranks 3 "${self_test[@]}" --scenario agreed-failure --failing-rank $failing
    expect_text "shard 7 is cut short" 1
    expect_text "Error (rank $failing): shard 7 is cut short" 1
    expect_no_text "came through"
done

# A fault that every rank finds: told once, without a rank.
expect_status 2 ranks 4 "${self_test[@]}" --scenario common-failure
expect_text "Error: no such key" 1
expect_no_text "rank"

# Bad usage, found before MPI runs: told once.
expect_status 2 ranks 3 "${self_test[@]}" --no-such-option
expect_text "no-such-option'" 1

# A fault that the others cannot hear of, since they wait for this rank: it ends all.
for scenario in lone-failure failure-in-reduction; do
    expect_status 3 within bash -c "source $repository/Tests/Integration/lib.sh; ranks 3 \"\$@\"" - \
        "${self_test[@]}" --scenario $scenario --failing-rank 1
    expect_text "Error (rank 1): shard 7 is cut short" 1
    expect_no_text "came through"
done

# Started as one of several processes that cannot find each other.
expect_status 1 env SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 "${self_test[@]}"
expect_text "srun --mpi=pmix" 1
