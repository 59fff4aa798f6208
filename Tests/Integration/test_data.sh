#!/bin/bash
# The data that people have, from `prepare` through training and sampling to `evaluate`, alone and on several ranks.
source "$(dirname "$0")/lib.sh"

data=$scratch/data
"$repository/Tests/Fixtures/data/make_data.py" "$data"
cp "$repository/Tests/Fixtures/data/set.tar.zst" "$data"

# same_samples A B: compares shards, labels and their description, without the source's name and the progress.
same_samples() {
    diff -rq -x progress -x preview.png -x manifest.json "$1" "$2" || fail "$1 and $2 differ"
    diff <(grep -v '"name": "[/-]' "$1/manifest.json") <(grep -v '"name": "[/-]' "$2/manifest.json") ||
        fail "the manifests of $1 and $2 differ"
}

# --- prepare ----------------------------------------------------------------------------------------------

# An archive gives the same samples as its folder, on any number of ranks.
expect_status 0 "$disttrain" prepare "$data/faces" --size 16 --output "$scratch/faces"
expect_text "classes: 2" 1
for name in deflated.zip stored.zip zip64.zip set.tar.gz set.tar.zst; do
    expect_status 0 within_ranks 3 "$disttrain" prepare "$data/$name" --size 16 --output "$scratch/one"
    same_samples "$scratch/faces" "$scratch/one"
    rm -rf "$scratch/one"
done

# From standard input, alone and on ranks that share the copy.
expect_status 0 "$disttrain" prepare - --size 16 --output "$scratch/one" <"$data/set.tar"
same_samples "$scratch/faces" "$scratch/one"
rm -rf "$scratch/one"
piped() { cat "$data/set.tar.gz" | ranks_with_input 3 timeout "$patience" "$@"; }
expect_status 0 piped "$disttrain" prepare - --size 16 --output "$scratch/one"
same_samples "$scratch/faces" "$scratch/one"
# The same stream again finds the finished shards.
expect_status 0 piped "$disttrain" prepare - --size 16 --output "$scratch/one"
expect_text "1 reused" 1
rm -rf "$scratch/one"
expect_status 3 within_ranks 2 "$disttrain" prepare - --size 16 --output "$scratch/one"
expect_text "standard input: is empty"
[[ ! -e $scratch/one ]] || fail "an empty input made $scratch/one"

# The others have the same six images with other labels.
check() { # SOURCE CLASSES SIZE
    expect_status 0 within_ranks 2 "$disttrain" prepare "$data/$1" --size "$3" --output "$scratch/one"
    expect_text "6 images of $3x$3x3" 1
    if [[ $2 == 0 ]]; then expect_no_text "classes:"; else expect_text "classes: $2" 1; fi
    rm -rf "$scratch/one"
}
check edm.zip 3 16
check edm_null.zip 0 16
check masks.zip/CelebAMask-HQ/CelebA-HQ-img 0 16
check shards 3 16
check 'packed/{00000..00002}.tar.gz' 3 16
check 'shards/*.tar' 3 16
check samples.npz 0 16
check compressed.npz 3 16
check gray.npy 0 16
check hq 0 16
check medical.npz 3 16
check cifar-10-python.tar.gz 6 32
check cifar-10-batches-py 6 32
check cifar-10-binary.tar.gz 6 32
check cifar-100-python.tar.gz 6 32
check cifar-100-binary 6 32

# --- Refusals ---------------------------------------------------------------------------------------------

# refuses CODE TEXT ARGUMENT...: alone and on 2 ranks, with one Error line, and nothing is written.
refuses() {
    local code=$1 text=$2 count
    shift 2
    for count in 1 2; do
        expect_status "$code" within_ranks "$count" "$disttrain" prepare "$@" --size 16 --output "$scratch/one"
        expect_text "Error" 1
        expect_text "$text"
        [[ ! -e $scratch/one/manifest.json ]] || fail "prepare $* has written a manifest"
        rm -rf "$scratch/one"
    done
}
refuses 3 "encrypted (cats/1.png)" "$data/encrypted.zip"
refuses 3 "over 200 times its size" "$data/bomb.zip"
refuses 3 "a path that leads out of it" "$data/dots.zip"
refuses 3 "cats/1.png: does not match its checksum" "$data/damaged.zip"
refuses 3 "elements of type <f4" "$data/floats.npy"
refuses 3 "posix.system" "$data/hostile/cifar-10-batches-py"
refuses 3 "2 of 3 images have no label in the .cls files" "$data/unlabelled.tar"
refuses 3 "rows name no image" "$data/faces" --labels "$data/unknown.csv"
refuses 3 "images of $data/faces have no row" "$data/faces" --labels "$data/missing.csv"
refuses 3 "no file matches" "$data/nothing-*.tar"

# --- Training, samples, evaluation ------------------------------------------------------------------------

# More images than six, which an evaluation needs: the samples of one model.
expect_status 0 "$disttrain" prepare "$data/deflated.zip" --size 16 --labels "$data/labels.csv" \
    --output "$scratch/labelled"
grep -v '^    count: 2000$' "$repository/configs/tiny.yaml" >"$scratch/folder.yaml"
expect_status 0 within_ranks 2 "$disttrain" train --config "$scratch/folder.yaml" --output "$scratch/run" \
    --set "data.path=$scratch/labelled" --set train.batch_size=4 --set train.steps=3 --set train.sample_every=0 \
    --set optimizer.warmup_steps=1
expect_status 0 within "$disttrain" sample --model "$scratch/run" --count 24 --steps 2 --format npz \
    --output "$scratch/samples"
archive=$(compgen -G "$scratch/samples/*.npz")
expect_status 0 within_ranks 2 "$disttrain" evaluate --samples "$archive" --reference synthetic-faces:40 \
    --features pixel --output "$scratch/evaluation"
grep -q '"count": 24' "$scratch/evaluation/evaluation-pixel.json" || fail "expected 24 samples"
# Also as the reference, and again as input.
expect_status 0 within_ranks 2 "$disttrain" evaluate --samples "$archive" --reference "$archive" --features pixel \
    --output "$scratch/evaluation2"
expect_status 0 "$disttrain" prepare "$archive" --size 16 --output "$scratch/again"
expect_text "24 images of 16x16x3" 1
# Training reads images directly, too.
expect_status 0 within "$disttrain" train --config "$scratch/folder.yaml" --output "$scratch/direct" \
    --set "data.path=$data/shards/{00000..00002}.tar" --set train.batch_size=4 --set train.steps=2 \
    --set train.sample_every=0 --set optimizer.warmup_steps=1
