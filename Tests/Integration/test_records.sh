#!/bin/bash
# The TensorBoard and Weights & Biases records of a run that is killed twice, each time between two checkpoints, and
# resumed: they contain the steps of metrics.jsonl and the images of samples/, each once and in order.
source "$(dirname "$0")/lib.sh"

trap 'kill -KILL $(jobs -p) 2>/dev/null || true; rm -rf "$scratch"' EXIT
run=("$disttrain" train --config "$repository/configs/tiny.yaml" --output "$scratch/run"
    --set train.steps=60 --set train.batch_size=4 --set train.log_every=1 --set train.sample_every=4
    --set train.checkpoint_every=10 --set sampling.count=2 --set sampling.steps=2 --set optimizer.warmup_steps=2
    --set data.count=200 --set logging.wandb=offline)

records() { python3 "$repository/Tests/Integration/read_records.py" "$scratch/run" "$1"; }

# kill_at STEP LINES: starts or resumes the run and kills it once STEP, which is LINES lines later, is in metrics.jsonl.
kill_at() {
    slowed "$scratch/run" "$2" "${run[@]}" >"$scratch/job" 2>&1 &
    local job=$!
    await_from "$job" "step $1" has_line "\"step\":$1," "$scratch/run/metrics.jsonl"
    kill -KILL "$job"
    wait "$job" 2>/dev/null || true
}

# expect_records LAST: all records contain steps 1 to LAST and images of every fourth step.
expect_records() {
    local record
    seq 1 "$1" | sed 's/^/loss /' >"$scratch/losses"
    seq 0 4 "$1" | sed 's/^/samples /' >"$scratch/pictures"
    records metrics | diff "$scratch/losses" - || fail "metrics.jsonl does not contain steps 1 to $1"
    for record in tensorboard wandb; do
        records "$record" >"$scratch/$record"
        grep '^loss' "$scratch/$record" | diff "$scratch/losses" - || fail "$record does not contain steps 1 to $1"
        grep '^samples' "$scratch/$record" | diff "$scratch/pictures" - || fail "$record lacks pictures"
    done
}

kill_at 13 14
kill_at 27 18
# A torn end, as after a power failure.
printf 'torn' >>"$(echo "$scratch"/run/tensorboard/events*)"
printf '\0\0\0torn' >>"$(echo "$scratch"/run/wandb/offline-run-*/run-*.wandb)"
expect_status 0 "${run[@]}"
expect_text "Resuming from" 1
expect_records 60

# wandb's folder contains the images that its log names, one for each sampled step.
[[ $(ls "$scratch"/run/wandb/*/files/media/images | wc -l) == 16 ]] || fail "other pictures than those of 16 steps"
for name in config.yaml wandb-metadata.json wandb-summary.json; do
    [[ -s $(echo "$scratch"/run/wandb/*/files/"$name") ]] || fail "no $name"
done

# Extended beyond its last step, on another number of ranks.
expect_status 0 ranks 2 "${run[@]}" --set train.steps=64
expect_records 64

# Neither record exists if it is disabled.
expect_status 0 "${run[@]}" --set train.steps=2 --set train.sample_every=0 --set logging.tensorboard=false \
    --set logging.wandb=off --output "$scratch/plain"
[[ ! -e $scratch/plain/tensorboard && ! -e $scratch/plain/wandb ]] || fail "unexpected records"

# A record that cannot be written is reported once and stops nothing.
mkdir -p "$scratch/blocked/checkpoints"
touch "$scratch/blocked/tensorboard" "$scratch/blocked/wandb"
expect_status 0 "${run[@]}" --set train.steps=4 --output "$scratch/blocked"
expect_text "the run continues without this record" 2
