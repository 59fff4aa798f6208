#!/bin/bash
# Only one run at a time uses a folder, and a resume checks for changes of the configuration.
source "$(dirname "$0")/lib.sh"

run=("$disttrain" train --config "$repository/configs/tiny.yaml" --set train.batch_size=4 --set train.log_every=1
    --set train.sample_every=4 --set train.checkpoint_every=2 --set sampling.count=2 --set sampling.steps=2
    --set optimizer.warmup_steps=2)
endless=("${run[@]}" --set train.steps=1000000 --set train.sample_every=0)
trap 'kill -KILL $(jobs -p) 2>/dev/null || true; rm -rf "$scratch"' EXIT

# wait_for PATTERN: waits until a checkpoint or another path exists.
wait_for() {
    await_from "$job" "$1" compgen -G "$1"
}

# fingerprint FOLDER: every name in the folder, and the bytes of all files except the lock and the status, which change
# while a run is alive.
fingerprint() {
    (cd "$1" && find . -name '[0-9]*.json' -o -name 'status.json*' -o -print | sort &&
        find . -path ./.lock -prune -o -name 'status.json*' -o -type f -print0 |
        sort -z | xargs -0 sha256sum)
}

# A run in use, even a stopped one, rejects other processes, and nothing in it changes.
"${run[@]}" --set train.steps=1000000 --set train.log_every=1000000 --set train.sample_every=0 \
    --set train.checkpoint_every=0 --output "$scratch/used" >"$scratch/job" 2>&1 &
job=$!
wait_for "$scratch/used/metrics.jsonl"
await_from "$job" "the first line of metrics.jsonl" has_line '"kind":"run"' "$scratch/used/metrics.jsonl"
fingerprint "$scratch/used" >"$scratch/before"
lock=$(ls "$scratch/used/.lock")
expect_status 2 "${run[@]}" --output "$scratch/used"
expect_text "Error" 1
expect_text "$scratch/used: is in use by another run, process $job on $(hostname) since 2" 1
kill -STOP $job
expect_status 2 ranks 2 "${run[@]}" --output "$scratch/used"
expect_text "is in use by another run, process $job" 1
fingerprint "$scratch/used" >"$scratch/after"
cmp "$scratch/before" "$scratch/after" || fail "a rejected run changed the folder"
[[ $(ls "$scratch/used/.lock") == "$lock" ]] || fail "a rejected run changed the lock"

# After it is killed, exactly one of several waiting processes takes over immediately.
kill -KILL $job
wait $job || true
jobs=()
for number in 1 2 3 4; do
    "${endless[@]}" --output "$scratch/used" >"$scratch/job$number" 2>&1 &
    jobs+=($!)
done
refused=0
for _ in 1 2 3; do
    status=0
    wait -n || status=$?
    [[ $status == 2 ]] || { cat "$scratch"/job? >&2; fail "exit code $status, expected 2"; }
    refused=$((refused + 1))
done
[[ $(grep -lF "is in use by another run" "$scratch"/job? | wc -l) == 3 ]] || fail "$refused refused, expected 3"
kill -KILL "${jobs[@]}" 2>/dev/null || true
wait || true

# A run whose lock is removed ends before it writes anything else.
"${endless[@]}" --output "$scratch/robbed" >"$scratch/job" 2>&1 &
job=$!
wait_for "$scratch/robbed/checkpoints/step-00000002"
rm -r "$scratch/robbed/.lock"
status=0
wait $job || status=$?
[[ $status == 2 ]] || fail "exit code $status, expected 2"
grep -qF ".lock: has been removed while this run used it" "$scratch/job" || fail "no message about the lost lock"

# Harmless changes are reported and applied. Harmful changes are rejected without modifying anything, or applied if
# allowed.
expect_status 0 "${run[@]}" --set train.steps=4 --output "$scratch/run"
fingerprint "$scratch/run" >"$scratch/before"
for harmful in seed=1 diffusion.schedule=linear 'optimizer.betas=[0.8, 0.9]' data.count=1999; do
    expect_status 2 "${run[@]}" --set train.steps=8 --set "$harmful" --output "$scratch/run"
    expect_text "Error" 1
    expect_text "step-00000004: was written with a different configuration: ${harmful%%=*} was " 1
done
expect_status 2 ranks 2 "${run[@]}" --set train.steps=8 --set seed=1 --output "$scratch/run"
expect_text "accept it with --allow-change seed" 1
expect_status 2 "${run[@]}" --set train.steps=8 --allow-change model,ema --set model.layers_per_block=2 \
    --set 'ema.decays=[0.5]' --output "$scratch/run"
expect_text "model.layers_per_block was 1, is 2 (the model's tensors would not fit)" 1
expect_status 2 "${run[@]}" --allow-change sed --output "$scratch/run"
expect_text "did you mean 'seed'?" 1
fingerprint "$scratch/run" >"$scratch/after"
cmp "$scratch/before" "$scratch/after" || fail "a rejected resume changed the folder"

expect_status 0 "${run[@]}" --set train.steps=8 --set optimizer.learning_rate=1e-4 --set seed=1 \
    --allow-change seed --output "$scratch/run"
expect_text "Note: train.steps was 4, is 8" 1
expect_text "Note: optimizer.learning_rate was 0.001, is 0.0001" 1
expect_text "Note: seed was 0, is 1 (accepted by --allow-change)" 1
grep -qx "seed: 1" "$scratch/run/config.yaml" || fail "config.yaml is not the new one"

# Resuming before a checkpoint: the curve and the images are truncated to that step, and later steps are repeated.
printf '{"kind":"step","st\0\0\0\0' >>"$scratch/run/metrics.jsonl"
expect_status 0 "${run[@]}" --set train.steps=6 \
    --resume-before 5 --output "$scratch/run"
steps=$(sed -n 's/^{"kind":"step","step":\([0-9]*\),.*/\1/p' "$scratch/run/metrics.jsonl" | tr '\n' ' ')
[[ $steps == "1 2 3 4 5 6 " ]] || fail "steps in metrics.jsonl: $steps"
pictures=$(cd "$scratch/run/samples" && find . -name '*.png' | sort | tr '\n' ' ')
[[ $pictures == "./samples_00000000.png ./samples_00000004.png ./samples_00000006.png ./superseded/samples_00000008.png " ]] ||
    fail "pictures: $pictures"
