#!/usr/bin/env bash
# Assembles a CUDA toolkit in .cuda from NVIDIA's wheels on PyPI, for compiling
# and linking without a GPU, a driver or root. Does nothing where nvcc is
# installed or .cuda is complete. Only CI runs it; ./run never does.
#
# The wheels ship numbered libraries alone (libcudart.so.13), and NCCL apart;
# a linker wants libX.so, and CMake one prefix with a lib64.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. config/setup/say.sh

# What we compile and link against, and nothing more of the toolkit.
wheels=(
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cuda-culibos==13.0.85
  nvidia-cublas==13.1.0.3 nvidia-nccl-cu13==2.28.9
  nvidia-nvtx==13.0.85 nvidia-cuda-profiler-api==13.0.85
)
stamp=.cuda/wheels.txt
readonly kNotFetched=3  # The exit status when PyPI cannot be reached: no fault of ours.

for nvcc in nvcc "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc"; do
  if command -v "$nvcc" >/dev/null; then
    say "CUDA: $(command -v "$nvcc") is installed"
    exit 0
  fi
done
if [ "$(cat $stamp 2>/dev/null)" = "${wheels[*]}" ]; then exit 0; fi

config/setup/install.sh cuda
say "CUDA: fetching ${#wheels[@]} wheels from PyPI (about 700 MB)"
rm -rf .cuda
mkdir -p .cuda/pip
trap 'rm -rf .cuda/pip .cuda/site' EXIT
/usr/bin/python3 -m venv .cuda/pip
# Debian's Python, whatever else is on PATH; no dependencies, since all are named above.
# pip words every failure to resolve, connect or verify as a name without a match.
fetch() {
  .cuda/pip/bin/pip --quiet --disable-pip-version-check --no-cache-dir install --no-deps --no-compile \
    --only-binary :all: --target .cuda/site "${wheels[@]}" >.cuda/pip/log 2>&1
}
if ! fetch; then
  known='Failed to establish a new connection|Temporary failure in name resolution'
  known+='|CERTIFICATE_VERIFY_FAILED|No space left on device'
  cause=$(grep -oE "$known" .cuda/pip/log | tail -n 1 || true)
  say "error: CUDA: pip could not fetch the wheels: ${cause:-$(grep -E '^ERROR' .cuda/pip/log | tail -n 1)};" \
    "check that the Python package index can be reached (a mirror: export PIP_INDEX_URL=...) and run this again"
  exit $kNotFetched
fi
mv .cuda/site/nvidia/cu13/* .cuda/
cp -rl .cuda/site/nvidia/nccl/. .cuda/
ln -s lib .cuda/lib64
for library in .cuda/lib/lib*.so.*; do
  name=$(basename "$library")
  [ -e ".cuda/lib/${name%%.so.*}.so" ] || ln -s "$name" ".cuda/lib/${name%%.so.*}.so"
done
.cuda/bin/nvcc --version >/dev/null || die "CUDA: .cuda/bin/nvcc does not start; remove .cuda and run this again"
echo "${wheels[*]}" >$stamp
say "CUDA: $(.cuda/bin/nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p') in .cuda"
