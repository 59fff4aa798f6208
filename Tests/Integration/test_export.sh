#!/bin/bash
# diffusers folders on the command line: export from checkpoints, training from them, sampling, comparison.
source "$(dirname "$0")/lib.sh"

# refused CODE TEXT COMMAND...: the command exits with CODE and prints exactly one Error line, which contains TEXT.
refused() {
    local code=$1 text=$2
    shift 2
    expect_status "$code" "$@"
    expect_text "Error" 1
    grep '^Error' "$scratch/out" | grep -qF -- "$text" || fail "'$text' is not in: $(cat "$scratch/out")"
}

unet=diffusion_pytorch_model.safetensors
short=(--set train.batch_size=4 --set train.sample_every=0 --set optimizer.warmup_steps=0)
tiny=("$disttrain" train --config "$repository/configs/tiny.yaml" "${short[@]}" --set train.steps=2
    --set "ema.decays=[0.9, 0.99]")
# Steps that do not change the weights, so that they can be compared with the weights that a run started from.
still=("${short[@]}" --set train.steps=1 --set optimizer.learning_rate=1e-30
    --set optimizer.min_learning_rate=0)
sample=("$disttrain" sample --count 2 --steps 3 --precision fp32 --output "$scratch/pictures")

# same_samples A B: two folders generate the same samples.
same_samples() {
    local name
    for name in a b; do
        expect_status 0 "${sample[@]}" --model "$1" --dump-latents "$scratch/$name.safetensors"
        shift
    done
    cmp "$scratch/a.safetensors" "$scratch/b.safetensors" || fail "the samples differ"
}

# --- Export in pixel space --------------------------------------------------------------------------------

expect_status 0 ranks 2 "${tiny[@]}" --output "$scratch/run"
step=$scratch/run/checkpoints/step-00000002
expect_status 0 "$disttrain" checkpoint export --model "$scratch/run" --output "$scratch/ema"
expect_text "ema-0.99 of step 2" 1
cmp "$scratch/ema/unet/$unet" "$scratch/run/model/unet/$unet" || fail "not the weights that the finished run has"
diff -r "$scratch/ema" "$scratch/run/model" || fail "not the pipeline that the finished run has"

expect_status 0 "$disttrain" checkpoint export --model "$step" --weights unet --output "$scratch/raw"
cmp -s "$scratch/ema/unet/$unet" "$scratch/raw/unet/$unet" && fail "--weights unet gave the average"
expect_status 0 "${sample[@]}" --model "$step" --weights unet --dump-latents "$scratch/c.safetensors"
same_samples "$scratch/raw" "$step/unet"
cmp "$scratch/a.safetensors" "$scratch/c.safetensors" || fail "sample --weights unet gives other samples"

# Half the size, in shards, overwriting an earlier export; then read again.
expect_status 0 "$disttrain" checkpoint export --model "$step" --dtype bf16 --max-shard-size 200KB \
    --output "$scratch/raw"
[[ $(find "$scratch/raw/unet" -name 'diffusion_pytorch_model-*' | wc -l) -ge 4 ]] || fail "expected shards"
[[ -e $scratch/raw/unet/$unet ]] && fail "the earlier export is still there"
expect_status 0 "${sample[@]}" --model "$scratch/raw"

# A model card for the hub. The run has no sample grid, so there is one only when a picture is there.
expect_status 0 "$disttrain" checkpoint export --model "$step" --model-card --license mit --output "$scratch/card"
diff <(head -n 9 "$scratch/card/README.md") - <<'END' || fail "other metadata in the model card"
---
library_name: diffusers
license: mit
pipeline_tag: unconditional-image-generation
tags:
- unconditional-image-generation
- diffusers
- ddpm
- disttrain
END
for fact in "| steps | 2 |" "| batch size | 4 |" "| images seen | 8 |" "| resolution | 32×32 |" "| weights | ema-0.99 |"; do
    grep -qxF "$fact" "$scratch/card/README.md" || fail "no '$fact' in $(cat "$scratch/card/README.md")"
done
[[ -e $scratch/card/samples.png ]] && fail "a sample grid of a run without one"
mkdir -p "$scratch/run/samples"
cp "$repository/Tests/Fixtures/images/rgb.png" "$scratch/run/samples/samples_00000001.png"
expect_status 0 "$disttrain" checkpoint export --model "$scratch/run" --model-card --output "$scratch/card"
cmp "$scratch/card/samples.png" "$repository/Tests/Fixtures/images/rgb.png" || fail "not the run's grid"
grep -qF '![Samples](samples.png)' "$scratch/card/README.md" || fail "the model card does not show the grid"
rm "$scratch/run/samples/samples_00000001.png"
refused 2 "--license: found 'a b'" "$disttrain" checkpoint export --model "$step" --model-card --license "a b" \
    --output "$scratch/none"
refused 2 "requires --model-card" "$disttrain" checkpoint export --model "$step" --license mit --output "$scratch/none"

refused 3 "expected unet or ema-0.9 or ema-0.99" "$disttrain" checkpoint export --model "$step" \
    --weights ema-0.5 --output "$scratch/none"
refused 3 "expected unet or ema-0.9 or ema-0.99" "${sample[@]}" --model "$scratch/run" --weights ema-0.5
refused 3 "has only 'unet'" "${sample[@]}" --model "$scratch/ema" --weights ema-0.99
refused 3 "$scratch/nowhere: does not exist" "$disttrain" checkpoint export --model "$scratch/nowhere" \
    --output "$scratch/none"
refused 2 "fp8" "$disttrain" checkpoint export --model "$step" --dtype fp8 --output "$scratch/none"
refused 2 "5XB" "$disttrain" checkpoint export --model "$step" --max-shard-size 5XB --output "$scratch/none"
refused 3 "holds other files" "$disttrain" checkpoint export --model "$step" --output "$scratch/run"
[[ -e $scratch/none ]] && fail "something was written"

# --- Starting from weights --------------------------------------------------------------------------------

# From a run, a checkpoint's raw weights and a pipeline, on one rank and on two.
expect_status 0 ranks 2 "${tiny[@]}" "${still[@]}" --init-from "$scratch/run" --output "$scratch/from_run"
expect_text "Starting from the weights in $step/ema-0.99" 1
expect_status 0 "${tiny[@]}" "${still[@]}" --init-from "$scratch/ema" --output "$scratch/from_ema"
expect_status 0 "$disttrain" checkpoint export --model "$step" --weights unet --output "$scratch/raw"
expect_status 0 "${tiny[@]}" "${still[@]}" --init-from "$step/unet" --output "$scratch/from_raw"
for pair in "from_run ema" "from_ema ema" "from_raw raw"; do
    read -r run source <<<"$pair"
    expect_status 0 "$disttrain" checkpoint export --model "$scratch/$run" --weights unet --output "$scratch/out_$run"
    cmp "$scratch/out_$run/unet/$unet" "$scratch/$source/unet/$unet" || fail "$run started from other weights"
done
grep -qx "init_from: $scratch/run" "$scratch/from_run/config.yaml" || fail "config.yaml does not name the initial weights"
grep -q "\"init_from\":\"$step/ema-0.99\"" "$scratch/from_run/metrics.jsonl" || fail "metrics.jsonl does not name the initial weights"

# The run's own checkpoint takes precedence, even if the other model no longer exists.
mv "$scratch/ema" "$scratch/moved"
expect_status 0 "${tiny[@]}" --init-from "$scratch/ema" --output "$scratch/from_ema"
expect_text "--init-from $scratch/ema is ignored" 1
expect_text "Resuming from $scratch/from_ema/checkpoints/step-00000001" 1
refused 3 "$scratch/ema: does not exist" "${tiny[@]}" --init-from "$scratch/ema" --output "$scratch/none"
mv "$scratch/moved" "$scratch/ema"

# Without a section 'model', the configuration of the other model applies.
sed '/^model:/,/^$/d' "$repository/configs/tiny.yaml" >"$scratch/bare.yaml"
bare=("$disttrain" train --config "$scratch/bare.yaml" --output "$scratch/from_bare" "${still[@]}")
refused 2 "model: this key must be given" "${bare[@]}"
expect_status 0 "${bare[@]}" --init-from "$scratch/ema"
diff <(sed -n '/^model:/,/^[a-l]/p' "$scratch/from_bare/config.yaml") \
    <(sed -n '/^model:/,/^[a-l]/p' "$scratch/run/config.yaml") || fail "another model was created"

refused 2 "attention_head_dim is 12, there 24; freq_shift is 1, there 0" "${tiny[@]}" \
    --set model.attention_head_dim=12 --set model.freq_shift=1 --set model.dropout=0.1 \
    --init-from "$scratch/ema" --output "$scratch/none"
expect_status 0 "${tiny[@]}" "${still[@]}" --set diffusion.prediction=v_prediction --init-from "$scratch/ema" \
    --output "$scratch/from_other"
expect_text 'prediction_type is "v_prediction", there "epsilon"' 1

# Weights that do not match the configuration next to them: all mismatches in one line.
cp -r "$scratch/ema" "$scratch/misfit"
sed -i -e 's/"in_channels": 3/"in_channels": 4/' -e 's/"out_channels": 3/"out_channels": 4/' \
    "$scratch/misfit/unet/config.json"
refused 3 "3 misshapen: conv_in.weight is F32 [24, 3, 3, 3], expected [24, 4, 3, 3], conv_out.bias" \
    "${sample[@]}" --model "$scratch/misfit" --dump-latents "$scratch/c.safetensors"
refused 3 "3 misshapen" "$disttrain" checkpoint export --model "$scratch/misfit" --output "$scratch/none"
[[ -e $scratch/none ]] && fail "something was written"

# --- With a first stage -----------------------------------------------------------------------------------

vae=("$disttrain" vae train --config "$repository/configs/vae_quickstart.yaml" --set data.size=32
    --set data.count=64 --set "model.block_out_channels=[8,8,16]" --set model.norm_num_groups=4 "${short[@]}"
    --set train.steps=2)
expect_status 0 "${vae[@]}" --output "$scratch/vae"
expect_status 0 "$disttrain" checkpoint export --model "$scratch/vae" --output "$scratch/vae_out"
cmp "$scratch/vae_out/$unet" "$scratch/vae/model/$unet" || fail "not the first stage that the run has"
expect_status 0 "${vae[@]}" "${still[@]}" --init-from "$scratch/vae/model" --output "$scratch/vae2"
expect_status 0 "$disttrain" checkpoint export --model "$scratch/vae2" --weights vae --output "$scratch/vae_out"
cmp "$scratch/vae_out/$unet" "$scratch/vae/model/$unet" || fail "the first stage started from other weights"
refused 2 "latent_channels is 5, there 4" "${vae[@]}" --set model.latent_channels=5 \
    --init-from "$scratch/vae/model" --output "$scratch/none"
refused 3 "expected an AutoencoderKL" "${vae[@]}" --init-from "$scratch/ema/unet" --output "$scratch/none"
refused 3 "holds an autoencoder" "${tiny[@]}" --init-from "$scratch/vae/model" --output "$scratch/none"

expect_status 0 "$disttrain" prepare synthetic-faces:20 --size 32 --first-stage "$scratch/vae/model" \
    --output "$scratch/latents"
sed -e '/^    count:/d' -e "s#path: synthetic-faces.*#path: $scratch/latents#" -e '/^    size:/d' \
    -e '/sample_size: 32/d' -e 's/_channels: 3/_channels: 4/' "$repository/configs/tiny.yaml" >"$scratch/latent.yaml"
expect_status 0 "$disttrain" train --config "$scratch/latent.yaml" --output "$scratch/latent" \
    --set "first_stage.path=$scratch/vae/model" "${short[@]}" --set train.steps=2
expect_status 0 "$disttrain" checkpoint export --model "$scratch/latent" --output "$scratch/ldm"
diff -r "$scratch/ldm" "$scratch/latent/model" || fail "not the pipeline that the finished run has"
grep -q '"sample_size": 8' "$scratch/ldm/unet/config.json" || fail "the U-Net's size is not printed"
same_samples "$scratch/latent" "$scratch/ldm"

# Another first stage would silently produce different images.
mv "$scratch/vae/model" "$scratch/vae/first"
cp -r "$scratch/vae2/model" "$scratch/vae/model"
printf '\x3f' | dd of="$scratch/vae/model/$unet" bs=1 seek=20003 conv=notrunc status=none
refused 3 "different weights than the first stage" "${sample[@]}" --model "$scratch/latent"
expect_status 0 "${sample[@]}" --model "$scratch/latent" --first-stage "$scratch/vae/model"
expect_text "different weights than the first stage" 1
rm -r "$scratch/vae/model"
refused 3 "specify --first-stage" "$disttrain" checkpoint export --model "$scratch/latent" --output "$scratch/none"
same_samples "$scratch/ldm" "$scratch/ldm/unet"
expect_status 0 "${sample[@]}" --model "$scratch/latent" --first-stage "$scratch/vae/first"

# --- Comparing --------------------------------------------------------------------------------------------

# Latents of one run are the noise of the next, under any reported name; one sample of two.
expect_status 0 "${sample[@]}" --model "$scratch/ldm" --init-noise "$scratch/a.safetensors" --count 1 \
    --dump-latents "$scratch/one.safetensors"
refused 2 "noise for only 2 samples" "$disttrain" sample --model "$scratch/ldm" --count 3 \
    --init-noise "$scratch/a.safetensors" --output "$scratch/pictures"
# The scheduler's own spacing applies unless another one is given.
expect_status 0 "${sample[@]}" --model "$scratch/ldm" --spacing trailing --dump-latents "$scratch/c.safetensors"
sed -i 's/"leading"/"trailing"/' "$scratch/ldm/scheduler/scheduler_config.json"
expect_status 0 "${sample[@]}" --model "$scratch/ldm" --dump-latents "$scratch/b.safetensors"
cmp "$scratch/b.safetensors" "$scratch/c.safetensors" || fail "the scheduler's spacing was not used"
cmp -s "$scratch/a.safetensors" "$scratch/b.safetensors" && fail "the spacing makes no difference"

# The latents of a U-Net without a first stage are not images, but can be written as latents.
cp -r "$scratch/ldm/unet" "$scratch/bare"
refused 3 "no first stage" "${sample[@]}" --model "$scratch/bare"
expect_status 0 "${sample[@]}" --model "$scratch/bare" --dump-latents "$scratch/c.safetensors"
expect_text "has no scheduler configuration" 1

# Encode and decode with the first stage, which is found through the pipeline's folder.
vae=("$disttrain" vae)
expect_status 0 "${vae[@]}" decode --model "$scratch/ldm" --scaled "$scratch/b.safetensors" \
    --output "$scratch/images.safetensors"
expect_status 0 "${vae[@]}" decode --model "$scratch/ldm" "$scratch/b.safetensors" --output "$scratch/raw.safetensors"
expect_text "require --scaled" 1
cmp -s "$scratch/images.safetensors" "$scratch/raw.safetensors" && fail "--scaled makes no difference"
expect_status 0 "${vae[@]}" encode --model "$scratch/ldm" "$scratch/images.safetensors" \
    --output "$scratch/encoded.safetensors"
expect_text "2 latents 4×8×8" 1
expect_status 0 "${vae[@]}" decode --model "$scratch/vae/first" "$scratch/encoded.safetensors" \
    --output "$scratch/decoded"
[[ -s $scratch/decoded/image_00001.png ]] || fail "no decoded picture"

refused 3 "takes floating-point numbers [N, 3, H, W], H and W multiples of 4" "${vae[@]}" encode \
    --model "$scratch/ldm" "$scratch/b.safetensors" --output "$scratch/none"
refused 3 "holds latent_mean, latent_logvar, expected a tensor 'image'" "${vae[@]}" encode \
    --model "$scratch/ldm" "$scratch/encoded.safetensors" --output "$scratch/none"
refused 2 "--size" "${vae[@]}" encode --model "$scratch/ldm" picture.png --output "$scratch/none"
refused 3 "in pixel space" "${vae[@]}" decode --model "$scratch/run" "$scratch/b.safetensors" --output "$scratch/none"
[[ -e $scratch/none ]] && fail "something was written"
exit 0
