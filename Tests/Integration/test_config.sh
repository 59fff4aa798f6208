#!/bin/bash
# `disttrain config` prints configurations that are valid, checks files as training would, and writes nothing.
source "$(dirname "$0")/lib.sh"

cd "$scratch"
for kind in "" --autoencoder; do
    expect_status 0 "$disttrain" config $kind
    expect_text "# Number of steps of the whole run. [1 or more; required]" 1
    cp "$scratch/stdout" printed.yaml
    expect_status 0 "$disttrain" config $kind --check printed.yaml --set data.size=64
    expect_text "printed.yaml: valid" 1
done
# What is printed for a file is the same configuration: checking it prints it again.
for file in "$repository"/configs/*.yaml; do
    expect_status 0 "$disttrain" config --check "$file"
    cp "$scratch/stdout" first.yaml
    expect_status 0 "$disttrain" config --check first.yaml
    cmp first.yaml "$scratch/stdout" || fail "$file: not the same configuration when read again"
done
expect_status 2 "$disttrain" config --check "$repository/configs/tiny.yaml" --set train.stps=5
expect_text "train.stps: unknown key; did you mean 'steps'?" 1
expect_status 2 "$disttrain" config --check missing.yaml
expect_text "missing.yaml: does not exist" 1
expect_status 2 "$disttrain" config --set train.steps=5
