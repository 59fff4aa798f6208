#!/bin/bash
# Training under real mpirun: any number of ranks trains the same model, resumes from the others' checkpoints, and
# generates the same samples.
source "$(dirname "$0")/lib.sh"

# A run of twelve steps whose learning rate does not depend on the number of steps.
run=(--config "$repository/configs/tiny.yaml"
    --set train.steps=12 --set train.batch_size=12 --set train.log_every=1 --set train.check_replicas_every=3
    --set train.sample_every=12 --set train.checkpoint_every=6
    --set sampling.count=4 --set sampling.steps=4 --set optimizer.warmup_steps=4)

# trace RUN: step and loss of every logged step.
trace() {
    sed -n 's/.*"kind":"step","step":\([0-9]*\),"loss":\([^,]*\),.*/\1 \2/p' "$1/metrics.jsonl"
}

# expect_same_trace RUN OTHER [STEPS]: both have STEPS steps, with losses that agree within a relative error of 1e-5.
expect_same_trace() {
    local differing steps=${3:-12}
    [[ $(trace "$1" | wc -l) == "$steps" ]] || fail "$1 has $(trace "$1" | wc -l) logged steps, expected $steps"
    differing=$(paste -d' ' <(trace "$1") <(trace "$2") | awk '
        { difference = $2 - $4; if (difference < 0) difference = -difference }
        NF != 4 || $1 != NR || $3 != NR || !(difference <= 1e-5 * $4) { print }')
    [[ -z $differing ]] || fail "the losses of $1 and $2 differ (step loss step loss): $differing"
}

# The averaged gradient of all ranks equals the gradient computed by a single process, with uneven shares and
# micro-batches, and with dropout, flips and noise keyed by sample.
expect_status 0 "$disttrain" self-test gradients
expect_text "gradients on 1 ranks: relative error" 1
for count in 2 3 4; do
    expect_status 0 ranks "$count" "$disttrain" self-test gradients
    expect_text "gradients on $count ranks: relative error" 1
done
# Weights that are in flight when a step begins have arrived before they are read.
for count in 2 3 4; do
    expect_status 0 ranks "$count" "$disttrain" self-test weights
    expect_text "weights on $count ranks: 6 runs with simulated hosts, all identical" 1
done
expect_status 2 ranks 3 "$disttrain" self-test gradients --batch 2
expect_text "expected at least one sample per rank" 1

# One global batch, regardless of the number of ranks: the same losses at every step.
expect_status 0 "$disttrain" train "${run[@]}" --output "$scratch/ranks1"
for count in 2 3 4; do
    expect_status 0 ranks "$count" "$disttrain" train "${run[@]}" --output "$scratch/ranks$count"
    expect_text "$count ranks × 1 threads" 1
    expect_same_trace "$scratch/ranks$count" "$scratch/ranks1"
done
# The training data (samples, flips, timesteps, noise) is bitwise identical on any number of ranks.
expect_status 0 "$disttrain" self-test draws
expect_text "draws of 100 steps: " 1
draws=$(cat "$scratch/stdout")
for count in 2 3 4; do
    expect_status 0 ranks "$count" "$disttrain" self-test draws
    expect_text "$draws" 1
done
expect_status 0 "$disttrain" self-test draws --seed 1
expect_no_text "$draws"
# The losses therefore agree over a hundred steps of a smaller model.
long=("${run[@]}" --set data.size=16 --set model.sample_size=16 --set "model.block_out_channels=[8,16]"
    --set model.attention_head_dim=8 --set model.norm_num_groups=4 --set train.steps=100 --set train.sample_every=0 --set train.checkpoint_every=100
    --set train.precision=fp32 --set optimizer.schedule=constant)
expect_status 0 "$disttrain" train "${long[@]}" --output "$scratch/long1"
for count in 2 3 4; do
    expect_status 0 ranks "$count" "$disttrain" train "${long[@]}" --output "$scratch/long$count"
    expect_same_trace "$scratch/long$count" "$scratch/long1" 100
done
# Gradients in bf16 messages are rounded but train the same model: losses agree within 0.1 % over a hundred steps, and
# norms, which would reveal growth where the gradient is zero, within 1 %.
for sharding in optimizer none; do
    expect_status 0 ranks 3 "$disttrain" train "${long[@]}" --set train.reduce_dtype=bf16 --set train.sharding=$sharding \
        --output "$scratch/half-$sharding"
    python3 - "$scratch/half-$sharding" "$scratch/long3" <<'END' || fail "bf16 gradients, sharding $sharding"
import json, sys
half, full = ([json.loads(line) for line in open(f"{run}/metrics.jsonl") if '"kind":"step"' in line]
              for run in sys.argv[1:])
assert len(half) == len(full) > 0, (len(half), len(full))
for key, bound in (("loss", 1e-3), ("grad_norm", 1e-2)):
    assert any(a[key] != b[key] for a, b in zip(half, full)), f"{key}: nothing was rounded"
    for a, b in zip(half, full):
        assert abs(a[key] - b[key]) < bound * b[key], (key, a["step"], a[key], b[key])
END
done
# Micro-batches do not change the result either: 5 of 6 samples, then 1.
expect_status 0 ranks 2 "$disttrain" train "${run[@]}" --set train.micro_batch_size=5 --output "$scratch/micro"
expect_same_trace "$scratch/micro" "$scratch/ranks1"
# Check of the comparison itself: another seed gives another trace.
expect_status 0 "$disttrain" train "${run[@]}" --set seed=1 --output "$scratch/seed"
if (expect_same_trace "$scratch/seed" "$scratch/ranks1") 2>/dev/null; then
    fail "runs of different seeds have the same trace"
fi

# Stopped after the checkpoint of step 6 and resumed on other numbers of ranks: the trace continues as if uninterrupted,
# and steps that were logged after the checkpoint do not appear twice.
for change in "1 3" "2 1" "3 2"; do
    read -r before after <<<"$change"
    stopped=$scratch/resumed$before$after
    cp -r "$scratch/ranks$before" "$stopped"
    rm -r "$stopped/checkpoints/step-00000012" "$stopped/model"
    expect_status 0 ranks "$after" "$disttrain" train "${run[@]}" --output "$stopped"
    expect_text "step-00000006, step 6" 1
    expect_same_trace "$stopped" "$scratch/ranks1"
    [[ -d $stopped/checkpoints/step-00000012 && -d $stopped/model ]] || fail "$stopped was not finished"
done

# A finished run has nothing left to do and exits successfully.
expect_status 0 ranks 2 "$disttrain" train "${run[@]}" --output "$scratch/ranks2"
expect_same_trace "$scratch/ranks2" "$scratch/ranks1"

# The same samples on any number of ranks.
sample=("$disttrain" sample --model "$scratch/ranks1" --count 5 --steps 4 --seed 3 --precision fp32)
expect_status 0 "${sample[@]}" --output "$scratch/samples1"
expect_status 0 ranks 3 "${sample[@]}" --output "$scratch/samples3"
expect_status 0 "${sample[@]}" --seed 4 --output "$scratch/samples_other"
pictures=0
for picture in "$scratch"/samples1/*.png; do
    name=$(basename "$picture")
    cmp "$picture" "$scratch/samples3/$name" || fail "$name differs between 1 and 3 ranks"
    pictures=$((pictures + 1))
done
[[ $pictures -ge 5 ]] || fail "$pictures pictures for 5 samples"
cmp -s "$scratch/samples1/$name" "$scratch/samples_other/$name" && fail "another seed draws the same $name"

# More ranks than samples per batch: one line, and every rank ends.
for batch in 3 1; do
    expect_status 2 within_ranks 4 "$disttrain" train "${run[@]}" --set train.batch_size=$batch \
        --output "$scratch/too_many"
    expect_text "Error" 1
    expect_text "Error: train.batch_size is $batch and there are 4 ranks" 1
done
