#!/bin/bash
# Ours beside PyTorch with diffusers: training, sampling, the first stage and checkpoints, run in turns, as Markdown tables.
#
#   scripts/bench.sh
#
#   ROWS="train sample vae models checkpoint"    which rows; all by default
#   ROUNDS=3  COUNT=3                 runs of each command, and timed calls in a run; the table has medians
#   BENCH_VENV=FOLDER                 a virtual environment that has torch and diffusers; one is made by default
#   BENCH_FOLDER=FOLDER               on the disk that checkpoints are to be measured on; this one by default
#   BENCH_LOG=FILE                    keeps every run's line of JSON
#   BENCH_PREFIX=COMMAND              every run goes through it, e.g. "taskset -c 0,1"
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${BENCH_VENV:-}
if [[ -z $venv ]]; then
    venv=${XDG_CACHE_HOME:-$HOME/.cache}/disttrain/bench-venv
    if ! cmp -s scripts/bench/requirements.txt "$venv/requirements.txt"; then
        echo "installing PyTorch and diffusers into $venv" >&2
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r scripts/bench/requirements.txt
        cp scripts/bench/requirements.txt "$venv/requirements.txt"
    fi
fi
[[ -x $venv/bin/python ]] || { echo "no Python at $venv/bin/python" >&2; exit 1; }

# Nothing is fetched from a model hub.
export HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
# shellcheck disable=SC2086  # rows are words
"$venv/bin/python" scripts/bench/compare.py ${ROWS:-} --rounds "${ROUNDS:-3}" --count "${COUNT:-3}" --folder "${BENCH_FOLDER:-.}" \
    ${BENCH_LOG:+--log "$BENCH_LOG"} ${BENCH_PREFIX:+--prefix "$BENCH_PREFIX"}
