#!/usr/bin/env bash
# What only a GPU can show: its tests and benchmarks. Output and JSON go to a folder.
#
# bash benchmarks/gpu.sh runs/gpu
set -u
out=${1:-runs/gpu}
python=${PYTHON:-python}
mkdir -p "$out"
failed=0

run() { # NAME COMMAND...
    local name=$1
    shift
    echo "== $*"
    "$@" 2>&1 | tee "$out/$name.txt"
    [ "${PIPESTATUS[0]}" -eq 0 ] || { echo "failed: $name" && failed=1; }
}

run tests "$python" -m pytest -q -rs packages/kd-core/tests/test_captured.py packages/kd-core/tests/test_prefetch.py
run step "$python" benchmarks/step.py --repeats 50 --warmup 10 --out "$out/step.json"
run step_resnet50 "$python" benchmarks/step.py --pair ResNet50_MobileNetV2 --method reviewkd --ways bare bare-bf16 default bf16 eager eager-bf16 --repeats 20 --out "$out/step_resnet50.json"
run epoch "$python" benchmarks/epoch.py --epochs 10 --out "$out/epoch.json"
run data "$python" benchmarks/data.py --out "$out/data.jsonl"
run criteria "$python" benchmarks/criteria.py --out "$out/criteria.jsonl"
run peers "$python" benchmarks/peers.py --out "$out/peers.json"
run compiled "$python" benchmarks/step.py --ways bare default eager compiled --repeats 20 --warmup 10 --out "$out/compiled.json"
exit "$failed"
