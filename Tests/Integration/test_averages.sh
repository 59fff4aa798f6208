#!/bin/bash
# Power function EMA: snapshots, averages of other widths reconstructed from them, and their handling on resume.
source "$(dirname "$0")/lib.sh"

# refused CODE TEXT COMMAND...: the command exits with CODE and prints exactly one Error line, which contains TEXT.
refused() {
    local code=$1 text=$2
    shift 2
    expect_status "$code" "$@"
    expect_text "Error" 1
    grep '^Error' "$scratch/out" | grep -qF -- "$text" || fail "'$text' is not in: $(cat "$scratch/out")"
}

# steps FOLDER: the steps of the folder's checkpoints, on one line.
steps() { (cd "$1" && echo step-* | sed 's/step-0*//g'); }

run=$scratch/run
snapshots=$run/ema-snapshots
export=("$disttrain" checkpoint export)
train=("$disttrain" train --config "$repository/configs/tiny.yaml" --set train.batch_size=4 --set data.count=64
    --set train.sample_every=0 --set optimizer.warmup_steps=0 --set train.checkpoint_every=6)
powers=("${train[@]}" --set "ema.sigma_rel=[0.05, 0.1]" --set ema.snapshot_every=2)

# --- Snapshots --------------------------------------------------------------------------------------------

expect_status 0 "${powers[@]}" --set train.steps=12 --set checkpoint.keep_last=2 --output "$run"
[[ $(steps "$snapshots") == "2 4 6 8 10 12" ]] || fail "found $(steps "$snapshots")"
[[ $(ls "$snapshots/step-00000002") == $'ema-power-0.05\nema-power-0.1\nmanifest.json' ]] ||
    fail "found $(ls "$snapshots/step-00000002")"
expect_status 0 "$disttrain" checkpoint verify "$snapshots"
expect_text "intact" 6
# A snapshot and a checkpoint of the same step have the same contents.
for folder in ema-power-0.05 ema-power-0.1; do
    cmp "$snapshots/step-00000012/$folder/diffusion_pytorch_model.safetensors" \
        "$run/checkpoints/step-00000012/$folder/diffusion_pytorch_model.safetensors" || fail "$folder differs"
done

# A run killed after step 9 resumes from step 6 on three ranks. Later snapshots are set aside and written again.
rm -r "$run/checkpoints/step-00000012" "$run/model"
cp -r "$run" "$scratch/same"
expect_status 0 "${powers[@]}" --set train.steps=12 --output "$scratch/same"
expect_text "ema-snapshots/superseded-" 3
for step in 08 10 12; do
    expect_status 0 "$disttrain" checkpoint diff "$scratch/same/ema-snapshots/step-000000$step" \
        "$(echo "$scratch/same/ema-snapshots/superseded-000000$step"-*)"
    expect_text "tensors are bit-identical" 2
    expect_no_text "relative"
done
expect_status 0 ranks 3 "${powers[@]}" --set train.steps=12 --output "$run"
expect_text "Resuming from $run/checkpoints/step-00000006" 1
[[ $(steps "$snapshots") == "2 4 6 8 10 12" ]] || fail "found $(steps "$snapshots")"
[[ $(find "$snapshots/step-00000008/ema-power-0.1" -name '*.safetensors' | wc -l) == 3 ]] || fail "the snapshot does not have the files of three ranks"
[[ -z $(find "$snapshots" -name '.partial-*') ]] || fail "half a snapshot is left"

# --- Other widths -----------------------------------------------------------------------------------------

# Compared with the average that another run of the same training has tracked from the start.
expect_status 0 "${train[@]}" --set train.steps=12 --set "ema.sigma_rel=[0.08]" --output "$scratch/tracked"
expect_status 0 "${export[@]}" --model "$scratch/tracked" --weights ema-power-0.080 --output "$scratch/tracked_008"
expect_text "ema-power-0.08 of step 12" 1
expect_status 0 "${export[@]}" --model "$run" --sigma-rel 0.08 --output "$scratch/made_008"
expect_text "sigma-rel-0.08 of step 12, from 12 averages of 6 steps, deviates from its profile by 1.7 %" 1
expect_text "Wrote the pipeline of sigma-rel-0.08 of step 12" 1
expect_status 0 "${export[@]}" --model "$run" --weights ema-power-0.1 --output "$scratch/kept_01"
expect_status 0 "${export[@]}" --model "$run" --sigma-rel 0.1 --output "$scratch/made_01"
python3 - "$scratch" <<'END' || fail "the weights are not those of the average"
import array, json, sys

def weights(name):
    with open(f"{sys.argv[1]}/{name}/unet/diffusion_pytorch_model.safetensors", "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        table = json.loads(file.read(length))
        assert {entry["dtype"] for key, entry in table.items() if key != "__metadata__"} == {"F32"}
        return array.array("f", file.read())

def distance(a, b):
    return (sum((x - y) ** 2 for x, y in zip(a, b)) / sum(y * y for y in b)) ** 0.5

made, tracked, kept = weights("made_008"), weights("tracked_008"), weights("kept_01")
apart, near = distance(kept, tracked), distance(made, tracked)
print(f"off by {near:.2e}, where two widths are {apart:.2e} apart")
# The two runs differ in the order of sums; the difference between widths is far larger than that and than the fit
# error.
assert 0 < near < apart / 3
# A width that was stored is reconstructed up to rounding.
assert distance(weights("made_01"), kept) < 1e-6
END

# An earlier step, by its number and by its folder; other data types; and the same samples with --weights.
expect_status 0 "${export[@]}" --model "$run" --sigma-rel 0.08 --at-step 8 --output "$scratch/at_8"
expect_status 0 "${export[@]}" --model "$snapshots/step-00000008" --sigma-rel 0.08 --output "$scratch/named_8"
diff -r "$scratch/at_8" "$scratch/named_8" || fail "--at-step and the snapshot's folder differ"
expect_status 0 "${export[@]}" --model "$run" --sigma-rel 0.08 --dtype bf16 --max-shard-size 200KB \
    --output "$scratch/half"
sample=("$disttrain" sample --count 2 --steps 3 --precision fp32 --output "$scratch/pictures")
expect_status 0 "${sample[@]}" --model "$scratch/made_008" --dump-latents "$scratch/a.safetensors"
expect_status 0 ranks 2 "${sample[@]}" --model "$run" --weights sigma-rel-0.08 --dump-latents "$scratch/b.safetensors"
expect_text "Note: sigma-rel-0.08 of step 12" 1
cmp "$scratch/a.safetensors" "$scratch/b.safetensors" || fail "--weights sigma-rel-0.08 gives other samples"
expect_status 0 "$disttrain" evaluate --model "$run" --weights sigma-rel-0.08 --reference synthetic-faces:20 \
    --count 20 --steps 2
grep -q '"weights": "sigma-rel-0.08"' "$run/evaluation/step-00000012-pixel.json" || fail "the evaluation names other weights"

# --- Averages in sampling, evaluation and reports ---------------------------------------------------------

# Samples and the model use the slowest exponential average, or else the widest power function.
expect_status 0 "${train[@]}" --set train.steps=2 --set train.sample_every=2 --set sampling.count=2 --set evaluation.every=2 \
    --set evaluation.count=20 --set "ema.decays=[]" --set "ema.sigma_rel=[0.1, 0.05]" --set evaluation.steps=2 \
    --set sampling.steps=2 --output "$scratch/only"
grep -q '"weights": "ema-power-0.1"' "$scratch/only/evaluation/step-00000002-pixel.json" || fail "another average was evaluated"
expect_status 0 "${export[@]}" --model "$scratch/only" --output "$scratch/only_out"
expect_text "ema-power-0.1 of step 2" 1
diff -r "$scratch/only_out" "$scratch/only/model" || fail "not the pipeline that the finished run has"
expect_status 0 "$disttrain" report "$scratch/only" --pictures --output "$scratch/page.html"
grep -q "σ_rel 0.1, σ_rel 0.05" "$scratch/page.html" || fail "the report does not name the averages"
expect_status 0 "${sample[@]}" --model "$scratch/only" --weights ema-power-0.05

# --- Errors -----------------------------------------------------------------------------------------------

none=(--output "$scratch/none")
refused 2 "expected more than 0 and less than 1/√12" "${export[@]}" --model "$run" --sigma-rel 0.3 "${none[@]}"
refused 3 "of step 7, expected one of 2, 4, 6, 8, 10, 12" "${export[@]}" --model "$run" --sigma-rel 0.08 --at-step 7 \
    "${none[@]}"
refused 3 "$scratch/empty: contains no power-function averages" "${export[@]}" --model "$scratch/empty" \
    --sigma-rel 0.08 "${none[@]}"
refused 2 "expected one of them" "${export[@]}" --model "$run" --sigma-rel 0.08 --weights unet "${none[@]}"
refused 2 "--at-step: requires --sigma-rel" "${export[@]}" --model "$run" --at-step 8 "${none[@]}"
refused 3 "expected ema-power-0.05 or ema-power-0.1" "${sample[@]}" --model "$snapshots/step-00000002" --weights unet
refused 2 "ema.sigma_rel was [0.05, 0.1], is [0.05, 0.1, 0.2]" "${powers[@]}" --set train.steps=14 \
    --set "ema.sigma_rel=[0.05, 0.1, 0.2]" --output "$run"
refused 3 "expected unet" "${powers[@]}" --resume "$snapshots/step-00000002" --output "$scratch/none"
rm -rf "$scratch/none"
file=$(find "$snapshots/step-00000004" -name '*.safetensors' | head -1)
printf '\x55\xaa\x55\xaa' | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") - 4)) conv=notrunc status=none
refused 3 "$file: tensor '" "${export[@]}" --model "$run" --sigma-rel 0.08 "${none[@]}"
[[ -e $scratch/none ]] && fail "something was written"

# --- Averages of an autoencoder ---------------------------------------------------------------------------

expect_status 0 "$disttrain" vae train --config "$repository/configs/vae_quickstart.yaml" --set train.steps=4 \
    --set train.batch_size=2 --set data.count=16 --set train.sample_every=0 --set optimizer.warmup_steps=0 \
    --set "ema.sigma_rel=[0.05, 0.1]" --set ema.snapshot_every=1 --output "$scratch/vae"
expect_status 0 "${export[@]}" --model "$scratch/vae" --sigma-rel 0.08 --output "$scratch/vae_008"
expect_text "Wrote the first stage of sigma-rel-0.08" 1
[[ -s $scratch/vae_008/config.json ]] || fail "no autoencoder"
exit 0
