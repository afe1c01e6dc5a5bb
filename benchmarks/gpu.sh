#!/usr/bin/env bash
# What only a GPU can show, in two calls of at most 6 minutes each. Each can be repeated: parts whose
# JSON is in the folder are left out, and those that had no time are run. No network is needed.
#
#   bash benchmarks/gpu.sh tests runs/gpu             # the tests that need CUDA, in parallel
#   bash benchmarks/gpu.sh benchmarks runs/gpu        # the benchmarks, one after the other
#   bash benchmarks/gpu.sh benchmarks runs/dry --dry  # the same in tiny sizes, on a CPU too
#
# PYTHON   the python to run (python3 if not set)
# WHEELS   a folder of wheels, if that python lacks some: all of them go to FOLDER/venv
# KD_DATA  a folder with cifar10_jpeg, for the table of CIFAR-10
set -eu
call=${1:?"tests or benchmarks"}
out=${2:-runs/gpu}
shift $(($# < 2 ? $# : 2))
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
for package in "$root"/packages/*/src; do
    PYTHONPATH=$package${PYTHONPATH:+:$PYTHONPATH}
done
export PYTHONPATH
mkdir -p "$out"
missing=$("$python" "$root/benchmarks/gpu_plan.py" --missing)
if [ -n "$missing" ]; then
    if [ -z "${WHEELS:-}" ]; then
        echo "missing: $missing; set WHEELS to a folder with their wheels" >&2
        exit 2
    fi
    # A venv on top of that python, whose torch stays: what the wheels want is not looked for.
    [ -x "$out/venv/bin/python" ] || "$python" -m venv --system-site-packages "$out/venv"
    python=$(cd "$out" && pwd)/venv/bin/python
    "$python" -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl
    missing=$("$python" "$root/benchmarks/gpu_plan.py" --missing)
    if [ -n "$missing" ]; then
        echo "missing: $missing; $WHEELS has no wheels of them" >&2
        exit 2
    fi
fi
exec "$python" "$root/benchmarks/gpu.py" "$call" --out "$out" "$@"
