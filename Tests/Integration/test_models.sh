#!/bin/bash
# Model files of other programs: PyTorch's files, latent-diffusion checkpoints, diffusers' averages.
source "$(dirname "$0")/lib.sh"

# refused CODE TEXT COMMAND...: the command exits with CODE and prints exactly one Error line, which contains TEXT.
refused() {
    local code=$1 text=$2
    shift 2
    expect_status "$code" within "$@"
    expect_text "Error" 1
    grep '^Error' "$scratch/out" | grep -qF -- "$text" || fail "'$text' is not in: $(cat "$scratch/out")"
}

torch=$repository/Tests/Integration/torch_checkpoint.py
safetensors=diffusion_pytorch_model.safetensors
bin=diffusion_pytorch_model.bin

# samples NAME MODEL: latents of two samples in $scratch/NAME.safetensors.
samples() {
    expect_status 0 "$disttrain" sample --count 2 --steps 2 --precision fp32 --output "$scratch/pictures" \
        --model "$2" --dump-latents "$scratch/$1.safetensors"
}

# --- Latent-diffusion checkpoints -------------------------------------------------------------------------

mkdir "$scratch/ldm"
python3 "$torch" - "$scratch/ldm/model.ckpt"
expect_status 0 "$disttrain" convert "$scratch/ldm/model.ckpt" --output "$scratch/assumed"
expect_text "attention heads of 32 channels" 1
expect_text "Wrote the pipeline of $scratch/ldm/model.ckpt to $scratch/assumed" 1
cat >"$scratch/ldm/config.yaml" <<END
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.0015
    linear_end: 0.0195
    timesteps: 1000
    image_size: 16
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params: {image_size: 16, model_channels: 32, num_head_channels: 32}
    first_stage_config:
      params: {ddconfig: {resolution: 32}}
    cond_stage_config: __is_unconditional__
END
expect_status 0 ranks 2 "$disttrain" convert "$scratch/ldm/model.ckpt" --output "$scratch/pipeline"
expect_no_text "Note"
grep -q '"sample_size": 16' "$scratch/pipeline/unet/config.json" || fail "config.yaml was not read"
samples converted "$scratch/pipeline"
expect_no_text "Note"
[[ -s $scratch/pictures/sample_00001.png ]] || fail "no picture"
expect_status 0 "$disttrain" prepare synthetic-faces:4 --size 32 --first-stage "$scratch/pipeline/vqvae" \
    --output "$scratch/latents"

sed -i 's/num_head_channels: 32/num_heads: 8/' "$scratch/ldm/config.yaml"
refused 2 "config.yaml:10: model.params.unet_config.params.num_heads: found 8 heads" \
    "$disttrain" convert "$scratch/ldm/model.ckpt" --output "$scratch/none"
refused 3 "is not a checkpoint of latent-diffusion" \
    "$disttrain" convert "$scratch/pipeline/unet/$safetensors" --output "$scratch/none"
refused 3 "does not exist" "$disttrain" convert "$scratch/nowhere.ckpt" --output "$scratch/none"

# --- Files of PyTorch -------------------------------------------------------------------------------------

# The same weights in both formats give the same samples; what is written from them is safetensors.
for part in unet vqvae; do
    python3 "$torch" "$scratch/pipeline/$part/$safetensors" "$scratch/pipeline/$part/$bin"
    mv "$scratch/pipeline/$part/$safetensors" "$scratch/$part.safetensors"
done
samples bin "$scratch/pipeline"
cmp "$scratch/converted.safetensors" "$scratch/bin.safetensors" || fail "the weights in .bin files differ"
expect_status 0 "$disttrain" checkpoint export --model "$scratch/pipeline" --output "$scratch/exported"
[[ -e $scratch/exported/vqvae/$safetensors && ! -e $scratch/exported/vqvae/$bin ]] || fail "not safetensors"
samples exported "$scratch/exported"
cmp "$scratch/converted.safetensors" "$scratch/exported.safetensors" || fail "the exported weights differ"

export=("$disttrain" checkpoint export --model "$scratch/pipeline" --output "$scratch/none")
cp "$repository/Tests/Fixtures/torch/module.pt" "$scratch/pipeline/unet/$bin"
refused 3 "requests 'torch.nn.modules.linear.Linear'" "${export[@]}"
cp "$repository/Tests/Fixtures/torch/legacy.bin" "$scratch/pipeline/unet/$bin"
refused 3 "another format than that of PyTorch 1.6" "${export[@]}"
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n' >"$scratch/pipeline/unet/$bin"
refused 3 "lfs pull" "${export[@]}"
head -c 3000 "$scratch/ldm/model.ckpt" >"$scratch/pipeline/unet/$bin"
refused 3 "truncated" "${export[@]}"
rm "$scratch/pipeline/unet/$bin"
refused 3 "holds no weights" "${export[@]}"
mv "$scratch/unet.safetensors" "$scratch/pipeline/unet/$safetensors"

# --- diffusers' averages ----------------------------------------------------------------------------------

# EMAModel.save_pretrained adds the settings of the average, one of which may be infinite.
cp -r "$scratch/pipeline/unet" "$scratch/unet_ema"
settings='"decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 7, "power": Infinity'
settings+=', "update_after_step": 0, "use_ema_warmup": false'
sed -i "s/^{/{$settings,/" "$scratch/unet_ema/config.json"
samples average "$scratch/unet_ema"
expect_text "describe diffusers' average and are ignored" 1
cmp -s "$scratch/converted.safetensors" "$scratch/average.safetensors" && fail "the scheduler makes no difference"
sed -i 's/"decay"/"decoy"/' "$scratch/unet_ema/config.json"
refused 2 "decoy: unknown key" "$disttrain" sample --model "$scratch/unet_ema" --output "$scratch/none"
[[ -e $scratch/none ]] && fail "something was written"
exit 0
