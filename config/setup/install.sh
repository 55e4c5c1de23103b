#!/usr/bin/env bash
# Installs what Penstock needs on Debian 12, as bare as debootstrap makes it.
#
#   config/setup/install.sh [run|test|cuda]...
#
# run: what builds and starts the two programs (the default). test: what the
# tests need on top. cuda: what config/setup/cuda.sh needs to fetch a toolkit.
# Does nothing, in a tenth of a second, where everything is there already.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/say.sh"
. "$here/apt.sh"

run_packages=(
  cmake ninja-build g++ pkg-config python3 curl
  libuv1-dev libnghttp2-dev libabsl-dev prometheus-cpp-dev libyaml-cpp-dev libsimdjson-dev
  nlohmann-json3-dev libssl-dev libspdlog-dev libxxhash-dev libcli11-dev libpcre2-dev libutf8proc-dev
)
test_packages=(
  libgtest-dev libbenchmark-dev ccache python3-jinja2 python3-venv ca-certificates openssl
  nghttp2-client python3-h2 slowhttptest
)
cuda_packages=(cmake ninja-build g++ pkg-config python3-venv ca-certificates)

penstock_sets=${*:-run}
wanted=()
for set in $penstock_sets; do
  case $set in
    run) wanted+=("${run_packages[@]}") ;;
    test) wanted+=("${run_packages[@]}" "${test_packages[@]}") ;;
    cuda) wanted+=("${cuda_packages[@]}") ;;
    *) die "install.sh: unknown set '$set'; the sets are run, test and cuda" ;;
  esac
done

# Sets `missing` to those of `wanted` that are not installed.
find_missing() {
  local installed package
  installed=$({ dpkg-query -W -f='${db:Status-Abbrev}|${Package}\n' "${wanted[@]}" 2>/dev/null || true; } |
    sed -n 's/^.i *|/ /p' | tr -d '\n')
  missing=()
  for package in "${wanted[@]}"; do
    case "$installed " in *" $package "*) ;; *) missing+=("$package") ;; esac
  done
}

require_debian_12() {
  local ID="" VERSION_ID="" PRETTY_NAME=""
  [ ! -r /etc/os-release ] || . /etc/os-release
  [ "$ID $VERSION_ID" = "debian 12" ] ||
    die "packages are missing and this is ${PRETTY_NAME:-no Debian}; Penstock is set up on Debian 12:" \
        "docker run --rm -it --network host -v \"\$PWD\":/penstock -w /penstock debian:12 ./run"
}

command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || require_debian_12
find_missing
if [ ${#missing[@]} != 0 ]; then
  require_debian_12
  say "installing ${#missing[@]} packages of Debian: ${missing[*]}"
  apt_run "package lists" update
  apt_run "packages" install --no-install-recommends "${missing[@]}"
  find_missing
  [ ${#missing[@]} = 0 ] ||
    die "apt ended well, yet these are not installed: ${missing[*]}; try 'apt-get install ${missing[0]}'"
fi
case " $penstock_sets " in *" run "* | *" test "*) "$here/llhttp.sh" ;; esac
