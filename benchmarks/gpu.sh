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
fail() {
    echo "error: $1" >&2
    exit 2
}
case ${1:-} in
    tests | benchmarks) call=$1 && shift ;;
    *) fail "wanted gpu.sh tests or gpu.sh benchmarks, got '${1:-}'" ;;
esac
out=runs/gpu
case ${1:--} in
    -*) ;; # an option, or nothing
    *) out=$1 && shift ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
for package in "$root"/packages/*/src; do
    PYTHONPATH=$package${PYTHONPATH:+:$PYTHONPATH}
done
export PYTHONPATH
command -v "$python" >/dev/null || fail "PYTHON is $python, which is not a program"
missing=$("$python" "$root/benchmarks/gpu_plan.py" --missing) || fail "$python: cannot be used"
mkdir -p "$out" 2>/dev/null || fail "$out: is not a folder, and none can be made there"
if [ -n "$missing" ]; then
    [ -n "${WHEELS:-}" ] || fail "missing: $missing; set WHEELS to a folder with their wheels"
    ls "$WHEELS"/*.whl >/dev/null 2>&1 || fail "missing: $missing; $WHEELS has no wheels"
    # A venv on top of that python, whose torch stays: what the wheels want is not looked for.
    [ -x "$out/venv/bin/python" ] || "$python" -m venv --system-site-packages "$out/venv" ||
        fail "$out/venv: cannot be made"
    python=$(cd "$out" && pwd)/venv/bin/python
    "$python" -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl ||
        fail "$WHEELS: not all of its wheels are for this python, or $out/venv is damaged: remove it"
    missing=$("$python" "$root/benchmarks/gpu_plan.py" --missing)
    [ -z "$missing" ] || fail "missing: $missing; $WHEELS has no wheels of them"
fi
exec "$python" "$root/benchmarks/gpu.py" "$call" --out "$out" "$@"
