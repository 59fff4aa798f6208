#!/bin/bash
# The checkpoint from which a run starts, and the properties that all of its ranks must share.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

train=("$disttrain" train --config "$repository/configs/tiny.yaml" --set sampling.count=1 --set sampling.steps=1
    --set train.sample_every=0 --set train.log_every=1 --set train.check_replicas_every=0
    --set train.checkpoint_every=2 --set optimizer.warmup_steps=1)

# --- Another run's checkpoint, until the run has its own --------------------------------------------------

expect_status 0 "${train[@]}" --set train.steps=4 --output "$scratch/first"
second=("${train[@]}" --set train.steps=6 --resume "$scratch/first" --output "$scratch/second")
expect_status 0 "${second[@]}"
expect_text "Resuming from $scratch/first/checkpoints/step-00000004" 1
# It died before it saved: the same command must not fall back to initial weights.
rm -r "$scratch/second/checkpoints"
expect_status 0 "${second[@]}"
expect_text "Resuming from $scratch/first/checkpoints/step-00000004" 1
# The run's own checkpoints take precedence, and none of them is lost.
expect_status 0 "${second[@]}" --set train.steps=8
expect_text "Resuming from $scratch/second/checkpoints/step-00000006" 1
expect_no_text "set aside"

# Returning once to an older checkpoint of its own: repeating the command continues.
older=$scratch/second/checkpoints/step-00000006
expect_status 2 "${train[@]}" --set train.steps=10 --resume "$older" --output "$scratch/second"
expect_text "its newest one, of step 8, takes precedence" 1
expect_text "use --resume-before 7" 1
back=("${train[@]}" --set train.steps=10 --resume-before 7 --output "$scratch/second")
expect_status 0 "${back[@]}"
expect_text "Resuming from $older" 1
expect_text "set aside as $scratch/second/checkpoints/superseded-00000008-" 1
expect_status 0 "${back[@]}"
expect_text "Resuming from $scratch/second/checkpoints/step-00000010" 1
expect_no_text "set aside"
expect_status 2 "${train[@]}" --resume-before 3 --output "$scratch/second"
expect_text "holds no checkpoint before step 3" 1

# --- Ranks with different command lines -------------------------------------------------------------------

mixed() { # OPTIONS OF BOTH, --, OF THE FIRST RANK, --, OF THE SECOND; each rank in a folder of its own
    local part=0 word
    local -a parts=("" "" "") one=() two=() both=()
    for word in "$@"; do
        if [[ $word == -- ]]; then part=$((part + 1)); continue; fi
        case $part in 0) both+=("$word") ;; 1) one+=("$word") ;; *) two+=("$word") ;; esac
    done
    mkdir -p "$scratch/one" "$scratch/two"
    mpirun -q --oversubscribe --bind-to none --mca plm isolated --mca ras '^slurm,tm,gridengine,lsf' \
        --mca mpi_yield_when_idle 1 \
        -n 1 -wdir "$scratch/one" "${both[@]}" "${one[@]}" : -n 1 -wdir "$scratch/two" "${both[@]}" "${two[@]}" </dev/null
}

expect_status 2 mixed "${train[@]}" --output "$scratch/mixed" -- --set optimizer.learning_rate=1e-3 -- \
    --set optimizer.learning_rate=1e-6 --set seed=7
expect_text "the ranks do not agree: " 1
expect_text "seed is 0 on rank 0, 7 on rank 1" 1
expect_text "optimizer.learning_rate is 0.001 on rank 0, 1e-06 on rank 1" 1
[[ -e $scratch/mixed ]] && fail "a rejected start created the run's folder"

expect_status 2 mixed "${train[@]}" -- --output "$scratch/a" -- --output "$scratch/b"
expect_text "--output is $scratch/a on rank 0, $scratch/b on rank 1" 1

# The same path, but different data behind it.
mkdir -p "$scratch/one" "$scratch/two"
expect_status 0 "$disttrain" prepare synthetic-faces:64 --size 32 --output "$scratch/one/data"
expect_status 0 "$disttrain" prepare synthetic-faces:65 --size 32 --output "$scratch/two/data"
expect_status 2 mixed "${train[@]}" --set data.path=data --set data.count=null --set data.size=null --output "$scratch/mixed" -- --
expect_text "data.fingerprint is " 1

# One processor without native bf16 determines the precision of all ranks.
expect_status 0 mixed "${train[@]}" --set train.precision=auto --set train.steps=2 --output "$scratch/auto" -- -- \
    --set seed=0
env_mixed() {
    mpirun -q --oversubscribe --bind-to none --mca plm isolated --mca ras '^slurm,tm,gridengine,lsf' \
        --mca mpi_yield_when_idle 1 -n 1 "$@" : -n 1 -x ONEDNN_MAX_CPU_ISA=AVX2 "$@" </dev/null
}
expect_status 0 env_mixed "${train[@]}" --set train.precision=auto --set train.steps=2 --output "$scratch/isa"
expect_text ", fp32, batch" 1

# --- The data position is counted in samples --------------------------------------------------------------

batch=("${train[@]}" --output "$scratch/batch")
expect_status 0 "${batch[@]}" --set train.steps=4
expect_status 2 "${batch[@]}" --set train.steps=6 --set train.batch_size=8
expect_status 0 "${batch[@]}" --set train.steps=6 --set train.batch_size=8 --allow-change train.batch_size
seen=$(sed -n 's/.*"kind":"step".*"samples_seen":\([0-9]*\).*/\1/p' "$scratch/batch/metrics.jsonl" | tr '\n' ' ')
[[ $seen == "16 32 48 64 72 80 " ]] || fail "samples_seen: $seen"
grep -q '"samples_seen": 80' "$scratch/batch/checkpoints/step-00000006/manifest.json" || fail "manifest"

# --- Failures of optional output --------------------------------------------------------------------------

expect_status 0 "${train[@]}" --set train.steps=4 --set train.sample_every=2 --output "$scratch/plain"
mkdir -p "$scratch/files"
touch "$scratch/files/samples"
mkdir "$scratch/files/loss.png" "$scratch/files/checkpoints"
expect_status 0 "${train[@]}" --set train.steps=4 --set train.sample_every=2 --output "$scratch/files"
expect_text "Warning: writing the samples of step 4 failed, training continues" 1
expect_status 0 "$disttrain" checkpoint diff "$scratch/plain" "$scratch/files"
expect_no_text "relative"

# --- Weights are verified before they are used ------------------------------------------------------------

weights=$(echo "$scratch"/plain/checkpoints/step-00000004/ema-*/*.safetensors)
expect_status 0 "$disttrain" sample --model "$scratch/plain" --count 1 --steps 1 --output "$scratch/samples"
printf '\x01' | dd of="$weights" bs=1 seek=$(($(stat -c %s "$weights") - 100)) conv=notrunc status=none
for command in "sample --model $scratch/plain --count 1 --steps 1 --output $scratch/none" \
    "evaluate --model $scratch/plain --reference synthetic-faces:64 --count 16 --steps 1 --output $scratch/none" \
    "train --config $repository/configs/tiny.yaml --init-from $scratch/plain --output $scratch/none"; do
    # shellcheck disable=SC2086
    expect_status 3 "$disttrain" $command
    expect_text "has checksum" 1
done
