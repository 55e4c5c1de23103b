# Configures and builds. Sourced by bash scripts after say.sh; the current
# folder is the project's.
#
#   build PRESET TARGET...   ends the script with one line (and what the compiler
#                            said) where it fails; a build with nothing to do takes no second

build() {
  local preset=$1 dir tool log tests=OFF
  shift
  dir=build-$preset
  [ "$preset" != release ] || dir=build
  # The tests want packages that the two programs alone do not.
  case " $* " in *" penstock "*) ;; *) tests=ON ;; esac
  for tool in cmake ninja "${CXX:-c++}"; do
    command -v "$tool" >/dev/null ||
      die "'$tool' is not on PATH; its folder is missing there, or its package is damaged:" \
      "apt-get install --reinstall cmake ninja-build g++ (and unset CXX, if it is set)"
  done
  mkdir -p "$dir"
  # Where there is a build file ninja runs cmake itself when that is due.
  if [ ! -e "$dir/build.ninja" ] ||
    { [ $tests = ON ] && grep -q '^PENSTOCK_TESTS:BOOL=OFF' "$dir/CMakeCache.txt"; }; then
    say "configuring ($preset)"
    log=$dir/configure.log
    if ! cmake --preset "$preset" -DPENSTOCK_TESTS=$tests >"$log" 2>&1; then
      # The heading of the first error and the line below it.
      die "configuring failed: $(grep -A 2 -m 1 '^CMake Error' "$log" | tr -s '\n ' ' ');" \
        "all of it is in $log; after a change of packages remove $dir and try again"
    fi
  fi
  say "building ($preset)"
  # Ninja overwrites one line of progress on a terminal; elsewhere some steps are told.
  if [ -t 2 ]; then
    NINJA_STATUS='[%f/%t] ' ninja -C "$dir" "$@" >&2 || die "the build failed, as above"
  else
    log=$dir/build.log
    if ! NINJA_STATUS='[%p] ' ninja -C "$dir" "$@" 2>&1 | tee "$log" | build_steps "$preset"; then
      grep -vE '^\[ *[0-9]+%\] (Building|Linking)' "$log" | tail -n 60 >&2 || true
      die "the build failed, as above; all of it is in $log"
    fi
  fi
}

# Ninja's lines ("[ 42%] Building ...") as a line for each fifth. REQUIRES: pipefail.
build_steps() {
  local line percent told=0
  while IFS= read -r line; do
    percent=${line#[}
    percent=${percent%%%*}
    case $line in '['*'%]'*) ;; *) continue ;; esac
    if [ "$((percent))" -ge $((told + 20)) ]; then
      told=$((percent / 20 * 20))
      [ $told = 100 ] || say "building ($1): $told %"
    fi
  done
}
