#!/usr/bin/env bash
# validate.sh [quick] [--cpu]: proves simplemix on this machine's GPU, or with --cpu tries the same on its CPU with small shapes in
# f32. `quick` is kernels and families alone (2 minutes), without it all (8 minutes). gpu/README.md says how to read the table.
#
#   OUT     folder for results.jsonl, validate.log and table.txt, .gpu/out where unset
#   PYTHON  Python with PyTorch and transformers, python3 where unset
#   WORK    folder for models and wheels, /dev/shm or TMPDIR where unset
set -uo pipefail
cd "$(dirname "$0")/.."

mode=all device=cuda
for word in "$@"; do
  case $word in
    quick) mode=quick ;;
    --cpu) device=cpu ;;
    *) sed -n '2,3s/^# //p' "$0" >&2; exit 2 ;;
  esac
done
python=${PYTHON:-python3}
out=${OUT:-.gpu/out}
mkdir -p "$out"
out=$(cd "$out" && pwd)
export RESULTS=$out/results.jsonl
log=$out/validate.log
: >"$RESULTS"
: >"$log"

if [ -z "${WORK:-}" ]; then
  [ "$device" = cuda ] && [ -w /dev/shm ] && WORK=/dev/shm || WORK=${TMPDIR:-/tmp}
fi
work=$(mktemp -d "$WORK/simplemix-validate.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Whole seconds of all stages; the table is made after them.
case $mode in quick) most=110 ;; *) most=470 ;; esac
shape=0.5b dtype=bfloat16 batch=16 micro=8 updates=14 warm=3
if [ "$device" = cpu ]; then
  most=590 shape=small dtype=float32 batch=4 micro=4 updates=3 warm=1
fi

# note NAME RC SECONDS [MORE]: the result of a stage.
note() {
  printf '{"stage": "%s", "rc": %d, "seconds": %d%s}\n' "$1" "$2" "$3" "${4:-}" >>"$RESULTS"
  printf '%-20s rc %-3d %4d s\n' "$1" "$2" "$3"
}

# stage NAME SECONDS COMMAND...: runs COMMAND for at most SECONDS, or what is left of all.
stage() {
  local name=$1 seconds=$2 start=$SECONDS rc left=$((most - SECONDS))
  shift 2
  if [ "$left" -lt 5 ]; then
    note "$name" 124 0 ', "skipped": true'
    return 1
  fi
  echo "== $name: $*" >>"$log"
  timeout --kill-after=5 "$((seconds < left ? seconds : left))" "$@" >>"$log" 2>&1
  rc=$?
  note "$name" "$rc" "$((SECONDS - start))"
  return "$rc"
}

if [ ! -e .gpu/simplemix.gz ]; then
  echo ".gpu/ is not there: run gpu/prepare.sh first, on the machine that builds" >&2
  exit 2
fi
mkdir -p "$work/bin" "$work/tmp"
for program in simplemix gpu_check; do
  gunzip -c ".gpu/$program.gz" >"$work/bin/$program" && chmod +x "$work/bin/$program" || exit 2
done
export PATH=$work/bin:$PATH TMPDIR=$work/tmp SIMPLEMIX_CACHE=$work/cache PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
export TOKENIZERS_PARALLELISM=false
# libtorch.so of PyTorch's own folder brings the part for CUDA with it.
torch=$("$python" -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))') || exit 2
export LD_LIBRARY_PATH=$torch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

check() { # check PART SECONDS [OPTION...]
  local part=$1 seconds=$2
  shift 2
  stage "check-$part" "$seconds" gpu_check --device "$device" --only "$part" --output "$RESULTS" "$@"
}

speed() { # speed WAY SECONDS
  stage "run-$1" "$2" "$python" gpu/speed.py "$1" --inputs "$work/in" --shape "$shape" --device "$device" --dtype "$dtype" \
    --batch "$batch" --micro-batch "$micro" --updates "$updates" --warm "$warm"
}

look() { # look WHAT SECONDS [OPTION...]
  local what=$1 seconds=$2
  shift 2
  stage "look-$what" "$seconds" "$python" gpu/manners.py "$what" --inputs "$work/in" --device "$device" --dtype "$dtype" "$@"
}

stage machine-facts 30 "$python" gpu/machine.py "$device"
check kernels 60
if [ $? -eq 2 ]; then
  echo "gpu_check cannot use the device: see $log" >&2
else
  check families 60
  if [ "$mode" = all ]; then
    # Wheels go where they change nothing, and only if the machine has no TRL of its own.
    if ! "$python" -c 'import datasets, trl' 2>>"$log"; then
      stage wheels 30 "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" .gpu/wheels/*.whl
      export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
    fi
    check head 40 --shape "$shape"
    check routes 30
    check group 45
    stage inputs 60 "$python" gpu/inputs.py "$work/in" "$shape" "$dtype" "$device"
    check parts 45 --shape "$shape"
    speed ours 60
    speed trl 75
    # Liger's kernels are Triton's, for GPUs alone.
    [ "$device" = cuda ] && speed trl-liger 60
    check trajectories 90
    speed ours-lora 45
    speed trl-lora 60
    speed ours-reward 45
    look counts 60 --counter "$PWD/.gpu/libcount.so"
    look pipeline 60
    look memory 40
  fi
fi
"$python" gpu/table.py "$RESULTS" | tee "$out/table.txt"
exit "${PIPESTATUS[0]}"
