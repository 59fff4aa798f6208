#!/bin/bash
# Invalid input to the real program: a one-line message, the right exit code, and every rank ends.
source "$(dirname "$0")/lib.sh"

images=$repository/Tests/Fixtures/images
made=$scratch/made # what a command writes; removed before each

# refuses CODE TEXT COMMAND...: alone and on 2 ranks, the command exits with CODE and prints exactly one Error line,
# which contains TEXT.
refuses() { refuses_on "1 2" "$@"; }

refuses_on() {
    local counts=$1 code=$2 text=$3 count
    shift 3
    for count in $counts; do
        rm -rf "$made"
        if [[ $count == 1 ]]; then
            expect_status "$code" within "$@"
        else
            expect_status "$code" within_ranks "$count" "$@"
        fi
        expect_text "Error" 1
        expect_text "$text"
        grep '^Error' "$scratch/out" | grep -qF -- "$text" || fail "'$text' is not on the line of the error"
        expect_no_text "Fatal error"
    done
}

# accepts TEXT COMMAND...: alone and on 2 ranks, the command succeeds and prints TEXT.
accepts() {
    local text=$1
    shift
    rm -rf "$made"
    expect_status 0 within "$@"
    expect_text "$text"
    rm -rf "$made"
    expect_status 0 within_ranks 2 "$@"
    expect_text "$text"
}

# folder NAME IMAGE...: creates a folder with these fixtures.
folder() {
    local name=$1 image
    shift
    mkdir -p "$scratch/$name"
    for image in "$@"; do cp "$images/$image" "$scratch/$name/"; done
}

prepare=("$disttrain" prepare --size 16 --output "$made")
short=(--set train.steps=2 --set train.batch_size=4 --set train.sample_every=0 --set optimizer.warmup_steps=1)
train=("$disttrain" train --config "$repository/configs/tiny.yaml" --output "$made" "${short[@]}")
# The same for data that is not synthetic and therefore has no configurable count.
grep -v '^    count: 2000$' "$repository/configs/tiny.yaml" >"$scratch/folder.yaml"
train_folder=("$disttrain" train --config "$scratch/folder.yaml" --output "$made" "${short[@]}")

# --- Images -----------------------------------------------------------------------------------------------

folder empty
refuses 3 "$scratch/empty: no images: found nothing" "${prepare[@]}" "$scratch/empty"
refuses 3 "$scratch/nowhere: No such file or directory" "${prepare[@]}" "$scratch/nowhere"

folder mixed rgb.png rgb.jpg
echo "two pictures" >"$scratch/mixed/notes.txt"
refuses 3 "1 file that is not an image among 2 images (notes.txt)" "${prepare[@]}" "$scratch/mixed"
accepts "notes.txt" "${prepare[@]}" --skip-bad "$scratch/mixed"

folder odd cmyk.jpg rgb16.png palette.png gray.png gray.jpg rgba.png bits.png interlaced.png progressive.jpg
accepts "9 images" "${prepare[@]}" "$scratch/odd"

# One corrupt image among valid ones: named in the error, and skipped with --skip-bad.
for bad in truncated.jpg onepixel.png notanimage.jpg; do
    folder "with_$bad" rgb.png rgb.jpg gray.png "$bad"
    refuses 3 "$bad" "${prepare[@]}" "$scratch/with_$bad"
    accepts "$bad" "${prepare[@]}" --skip-bad "$scratch/with_$bad"
done

folder bad rgb.png truncated.jpg onepixel.png notanimage.jpg
refuses 3 "3 such images in total" "${prepare[@]}" "$scratch/bad"
rm "$scratch/bad/rgb.png"
refuses 3 "none of 3 images can be decoded" "${prepare[@]}" --skip-bad "$scratch/bad"

# Pixel-space training directly from a folder of images.
refuses 3 "truncated.jpg" "${train_folder[@]}" --set "data.path=$scratch/with_truncated.jpg"

# --- Latents and first stages -----------------------------------------------------------------------------

# first_stage NAME SEED: an untrained autoencoder of f = 2 and 4 channels.
first_stage() {
    expect_status 0 "$disttrain" vae train --config "$repository/configs/vae_quickstart.yaml" \
        --output "$scratch/$1" --set seed="$2" --set train.steps=2 --set train.batch_size=4 \
        --set data.size=16 --set data.count=8 --set "model.block_out_channels=[8, 8]" \
        --set "model.down_block_types=[DownEncoderBlock2D, DownEncoderBlock2D]" \
        --set "model.up_block_types=[UpDecoderBlock2D, UpDecoderBlock2D]" \
        --set model.norm_num_groups=4 --set optimizer.warmup_steps=1
}
first_stage vae_a 0
first_stage vae_b 1

latents=$scratch/latents
expect_status 0 "$disttrain" prepare synthetic-faces:40 --size 16 --first-stage "$scratch/vae_a/model" \
    --output "$latents"
train_latents=("${train_folder[@]}" --set "data.path=$latents" --set data.size=null --set model.sample_size=8
    --set model.in_channels=4 --set model.out_channels=4)
accepts "Done" "${train_latents[@]}" --set "first_stage.path=$scratch/vae_a/model"
refuses 3 "these latents were encoded by a different first stage" \
    "${train_latents[@]}" --set "first_stage.path=$scratch/vae_b/model"
refuses 3 "but no first_stage is configured" "${train_latents[@]}"

cp -r "$latents" "$scratch/cut"
truncate -s -100 "$scratch/cut/shard-00000.safetensors"
refuses 3 "shard-00000.safetensors" "${train_latents[@]}" --set "data.path=$scratch/cut" \
    --set "first_stage.path=$scratch/vae_a/model"
expect_text "truncated or replaced"
rm "$scratch/cut/shard-00000.safetensors"
refuses 3 "shard-00000.safetensors" "${train_latents[@]}" --set "data.path=$scratch/cut" \
    --set "first_stage.path=$scratch/vae_a/model"

cp -r "$scratch/vae_a/model" "$scratch/vae_cut"
truncate -s -100 "$scratch/vae_cut/diffusion_pytorch_model.safetensors"
refuses 3 "$scratch/vae_cut" "${prepare[@]}" --first-stage "$scratch/vae_cut" synthetic-faces:8
refuses 3 "$scratch/vae_cut" "${train_latents[@]}" --set "first_stage.path=$scratch/vae_cut"
refuses 3 "$scratch/no_vae" "${prepare[@]}" --first-stage "$scratch/no_vae" synthetic-faces:8

# --- Configuration and usage ------------------------------------------------------------------------------

refuses 2 "norm_num_groups" "${train[@]}" --set model.norm_num_groups=7
refuses 2 "did you mean 'batch_size'" "${train[@]}" --set train.batchsize=4
sed 's/^optimizer:/optimiser:/' "$repository/configs/tiny.yaml" >"$scratch/misspelt.yaml"
refuses 2 "did you mean 'optimizer'" "$disttrain" train --config "$scratch/misspelt.yaml" --output "$made"
refuses 2 "$scratch/none.yaml" "$disttrain" train --config "$scratch/none.yaml" --output "$made"
refuses 2 "learning_rate" "${train[@]}" --set optimizer.learning_rate=fast
refuses 2 "--size 1" "$disttrain" prepare --size 1 --output "$made" synthetic-faces:8
refuses 2 "--no-such-option" "${train[@]}" --no-such-option

# More ranks than a batch or a dataset has samples.
refuses_on 2 2 "train.batch_size is 1 and there are 2 ranks" "${train[@]}" --set train.batch_size=1
refuses_on 2 2 "has 1 samples and there are 2 ranks" "${train[@]}" --set data.count=1
# A single image can be prepared on any number of ranks.
accepts "1 image" "${prepare[@]}" synthetic-faces:1

# A path without a run to resume from, and a model that does not exist.
refuses 3 "$scratch/nowhere" "${train[@]}" --resume "$scratch/nowhere"
refuses 3 "$scratch/nowhere" "$disttrain" sample --model "$scratch/nowhere" --count 2 --steps 2 --output "$made"

# --- Numerical faults -------------------------------------------------------------------------------------

refuses 4 "expected finite numbers" "${train[@]}" --set train.steps=4 --set optimizer.warmup_steps=0 \
    --set optimizer.learning_rate=1e30

# --- Output that cannot be written ------------------------------------------------------------------------

# Even root cannot write to these paths.
for place in /proc/disttrain /dev/null/disttrain; do
    refuses 3 "$place" "$disttrain" prepare --size 16 --output $place synthetic-faces:8
    refuses 2 "$place" "${train[@]}" --output $place
done

# A folder with unrelated files is not accepted as a run.
mkdir "$scratch/other"
echo "keep me" >"$scratch/other/letter.txt"
refuses 2 "no run" "${train[@]}" --output "$scratch/other"
refuses 3 "letter.txt" "$disttrain" prepare --size 16 --output "$scratch/other" synthetic-faces:8
[[ $(ls "$scratch/other") == letter.txt ]] || fail "something was written into a folder with unrelated files"

# A full disk of 4 MB: first shards do not fit, then a checkpoint: exit code 74, as for any storage fault.
disk=$scratch/disk
mkdir "$disk"
if mount -t tmpfs -o size=4m tmpfs "$disk" 2>/dev/null; then
    trap 'umount "$disk"; rm -rf "$scratch"' EXIT
    full=("$disttrain" prepare --size 64 --output "$disk/made" synthetic-faces:600)
    for count in 1 2; do
        rm -rf "${disk:?}"/*
        refuses_on $count 74 "No space left on device" "${full[@]}"
        rm -rf "${disk:?}"/*
        refuses_on $count 74 "No space left on device" "${train[@]}" --output "$disk/made" --set checkpoint.save_timeout=1
        # No incomplete checkpoint has the name of a checkpoint.
        if compgen -G "$disk/made/checkpoints/step-*" >/dev/null; then fail "a checkpoint on a full disk"; fi
    done
else
    echo "SKIP: a full disk, since mount is not permitted here"
fi
