#!/bin/bash
# `disttrain plan` and `disttrain bench allreduce`: their output, the data exchanged between them, and errors.
source "$(dirname "$0")/lib.sh"

tiny=(--config "$repository/configs/tiny.yaml")
lan=(--bandwidth 1G --latency 100us --disk 500M)

# has KEY VALUE [FILE]: the last JSON output has this value; the first number after the key counts.
has() {
    local found
    found=$(grep -oE "\"$1\":[^,}]*" "${3:-$scratch/stdout}" | head -1)
    [[ $found == "\"$1\":$2" ]] || fail "$1 is ${found:-missing}, expected $2"
}

# One row per number of hosts, without timing anything.
expect_status 0 "$disttrain" plan "${tiny[@]}" "${lan[@]}" --hosts 1,2,4 --step-seconds 1.6
expect_text "396507 parameters, fp32, gradients in fp32" 1
expect_text "given: 1.600 s for 16 images" 1
expect_text "1.000 Gbit/s, 100 µs" 1
expect_text "speed-up" 1
for row in '    1      1      16        16     1.600       10.0      1.00       100 %     0 %' \
    '    2      2      16         8     0.8' '    4      4      16         4     0.4'; do
    expect_text "$row" 1
done

# Timed here, on one rank and on both ranks of a host; the times are used again for another network.
expect_status 0 "$disttrain" plan "${tiny[@]}" --disk 500M --hosts 1 --json
[[ $(wc -l <"$scratch/stdout") == 1 ]] || fail "not one line of JSON"
cp "$scratch/stdout" "$scratch/here.json"
expect_text "timing steps of 16 images on 1 × 1 threads" 1
has hosts 1
has images_per_rank 16
has communication_share 0
for key in step_seconds pass_seconds update_seconds activation_bytes stall_seconds hours; do
    grep -qE "\"$key\":[0-9.e-]*[1-9]" "$scratch/stdout" || fail "$key is not a number above 0"
done
expect_status 0 "$disttrain" plan "${tiny[@]}" "${lan[@]}" --hosts 2,8 --measured "$scratch/here.json" --reduce-dtype bf16
expect_text "gradients in bf16" 1
expect_text "measured earlier" 1
expect_status 0 ranks 2 "$disttrain" plan "${tiny[@]}" "${lan[@]}" --hosts 2 --batch-per-rank 2
expect_text "weak scaling" 1
expect_text "measured on 2 × 1 threads: 2 images in" 1
expect_text "    2      4       8         2" 1

# The network between ranks; a measurement on one host does not describe a network.
expect_status 0 ranks 2 "$disttrain" bench allreduce --largest 1 --json
cp "$scratch/stdout" "$scratch/network.json"
has hosts 1
has ranks 2
for key in latency_seconds seconds_per_byte overlapped_bytes_per_second bus_bytes_per_second model_seconds; do
    grep -qE "\"$key\":[0-9.e-]*[1-9]" "$scratch/stdout" || fail "$key is not a number above 0"
done
expect_status 2 "$disttrain" plan "${tiny[@]}" --hosts 2 --network "$scratch/network.json"
expect_text "was measured on one host" 1
sed 's/"hosts":1,/"hosts":2,/' "$scratch/network.json" >"$scratch/two.json"
expect_status 0 "$disttrain" plan "${tiny[@]}" --disk 1G --hosts 2 --network "$scratch/two.json" --measured "$scratch/here.json"
expect_text "(measured on 2 hosts)" 1
expect_status 0 ranks 3 "$disttrain" bench allreduce --largest 1
expect_text "3 ranks on 1 host (shared memory)" 1
for operation in all-reduce reduce-scatter all-gather; do expect_text "$operation" 4; done

# Errors: one line each.
refuses() {
    local text=$1
    shift
    expect_status 2 "$disttrain" "$@"
    expect_text "$text" 1
}
refuses "requires network parameters; give --bandwidth" plan "${tiny[@]}" --hosts 2
refuses "fewer than the 64 ranks of 64 hosts" plan "${tiny[@]}" "${lan[@]}" --hosts 64
refuses "--hosts 1,,2: expected numbers" plan "${tiny[@]}" "${lan[@]}" --hosts 1,,2
refuses "--bandwidth fast: expected bits/s" plan "${tiny[@]}" --hosts 2 --bandwidth fast
refuses "--latency 5: expected a time" plan "${tiny[@]}" --hosts 2 --bandwidth 1G --latency 5
refuses "--disk much: expected bytes/s" plan "${tiny[@]}" --hosts 1 --disk much
refuses "expected one of them" plan "${tiny[@]}" --hosts 1 --step-seconds 1 --measured "$scratch/here.json"
refuses "none.json: cannot be read: No such file" plan "${tiny[@]}" --hosts 2 --network "$scratch/none.json"
refuses "expected the output of \`disttrain bench allreduce --json\`" plan "${tiny[@]}" --hosts 2 --network "$scratch/here.json"
refuses "expected the output of \`disttrain plan --json\`" plan "${tiny[@]}" "${lan[@]}" --hosts 2 --measured "$scratch/two.json"
refuses "found a model with 396507 parameters" plan "${tiny[@]}" "${lan[@]}" --hosts 2 --measured "$scratch/here.json" \
    --set model.layers_per_block=2
refuses "a single rank cannot exchange messages" bench allreduce
expect_status 3 "$disttrain" plan "${tiny[@]}" --hosts 1 --folder "$scratch/none"
expect_text "cannot be created: No such file or directory" 1
