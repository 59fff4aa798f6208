#!/bin/bash
# Every version reads what earlier versions wrote: checkpoints, run folders, prepared folders, exported models.
source "$(dirname "$0")/lib.sh"

for version in "$repository"/Tests/Fixtures/compatibility/*/; do
    cd "$scratch"
    rm -rf run vae prepared samples average
    cp -r "$version"/* .
    train=(train --config run/config.yaml --set data.path=prepared --set first_stage.path=vae/model --output run)

    for run in run vae; do
        expect_status 0 "$disttrain" checkpoint verify $run
        expect_text ": intact" 1
    done
    # The finished run resumes on fewer and on more ranks; only its length has changed.
    expect_status 0 ranks 1 "$disttrain" "${train[@]}" --set train.steps=10
    expect_text "Note: train.steps was 8, is 10" 1
    expect_text "Note: " 1
    expect_text "Resuming from run/checkpoints/step-00000008, step 8" 1
    expect_status 0 ranks 3 "$disttrain" "${train[@]}" --set train.steps=12
    expect_text "Resuming from run/checkpoints/step-00000010, step 10" 1

    expect_status 0 "$disttrain" status run
    expect_text "step 12"
    expect_status 0 "$disttrain" report run
    expect_status 0 "$disttrain" sample --model run --count 2 --steps 2 --output samples
    expect_status 0 "$disttrain" evaluate --model run --reference prepared --features pixel --count 16 --steps 2
    expect_status 0 "$disttrain" checkpoint export --model run --sigma-rel 0.08 --output average
    # The prepared folder is complete: nothing is encoded again.
    expect_status 0 "$disttrain" prepare synthetic-faces:24 --size 16 --first-stage vae/model --flip --output prepared
    expect_no_text "prepare: "

    expect_status 0 ranks 2 "$disttrain" vae train --config vae/config.yaml --output vae --set train.steps=6
    expect_text "Resuming from vae/checkpoints/step-00000004, step 4" 1
done
