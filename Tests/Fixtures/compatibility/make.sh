#!/bin/bash
# Writes the compatibility fixtures with a build of the program: PROGRAM FOLDER. They are written once per format and
# never again: later versions must read what this one wrote.
set -euo pipefail
program=$(realpath "$1") folder=$2
mkdir -p "$folder"
cd "$folder"
export OMP_NUM_THREADS=1
ranks() { mpirun -q -n "$1" --oversubscribe --allow-run-as-root "${@:2}"; }
cat >vae.yaml <<'Y'
name: vae
data: {path: synthetic-faces, size: 16, count: 32}
model: {in_channels: 3, out_channels: 3, latent_channels: 4, block_out_channels: [4, 8], norm_num_groups: 4,
        down_block_types: [DownEncoderBlock2D, DownEncoderBlock2D], up_block_types: [UpDecoderBlock2D, UpDecoderBlock2D],
        layers_per_block: 1, mid_block_add_attention: false}
optimizer: {learning_rate: 1e-3}
ema: {decays: [0.9]}
train: {steps: 4, batch_size: 8, precision: fp32, log_every: 2, sample_every: 0, checkpoint_every: 4}
checkpoint: {keep_last: 1}
logging: {tensorboard: false}
Y
cat >run.yaml <<'Y'
name: run
data: {path: prepared}
first_stage: {path: vae/model}
model: {sample_size: 8, in_channels: 4, out_channels: 4, block_out_channels: [4, 8], norm_num_groups: 4,
        layers_per_block: 1, attention_head_dim: 4,
        down_block_types: [DownBlock2D, AttnDownBlock2D], up_block_types: [AttnUpBlock2D, UpBlock2D]}
optimizer: {learning_rate: 1e-3, warmup_steps: 2}
ema: {decays: [0.9], sigma_rel: [0.05, 0.1], snapshot_every: 4}
train: {steps: 8, batch_size: 8, precision: fp32, log_every: 2, sample_every: 4, checkpoint_every: 4}
checkpoint: {keep_last: 1}
sampling: {count: 4, steps: 2}
evaluation: {every: 4, count: 16, steps: 2, features: pixel}
logging: {tensorboard: true}
Y
"$program" vae train --config vae.yaml --output vae
ranks 2 "$program" prepare synthetic-faces:24 --size 16 --first-stage vae/model --flip --output prepared
ranks 2 "$program" train --config run.yaml --output run
