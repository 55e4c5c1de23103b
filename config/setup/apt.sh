# apt as our scripts use it: quiet, with progress, waiting for other package
# managers, and with one line for each way it goes wrong. Sourced by bash
# scripts after say.sh.
#
#   as_root COMMAND...          runs it as root, by sudo where we are not
#   apt_run WORDS ARGS...       apt-get ARGS; WORDS say what is going on
#   apt_source URI SUITE FILE   writes FILE, a source of that mirror's main
#
# REQUIRES: Debian's apt 2.x.

readonly kAptWaitSeconds=120

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo --preserve-env=http_proxy,https_proxy -- "$@"
  else
    die "packages are missing, this is user $(id -un) and there is no sudo;" \
        "run 'config/setup/install.sh ${penstock_sets:-run}' once as root, then this again"
  fi
}

# The status lines of apt ("dlstatus:3:42.1:..." while fetching, "pmstatus:pkg:42.1:..."
# while unpacking) as progress.
apt_progress() {
  local words=$1 kind what percent rest
  while IFS=: read -r kind what percent rest; do
    case $kind in
      dlstatus) progress "$words: fetching ${percent%%.*} %" ;;
      pmstatus) progress "$words: unpacking and setting up ${percent%%.*} %" ;;
    esac
  done
  progress_end
}

# first PATTERN FILE: the first match, or nothing.
first() { grep -m 1 -oE "$1" "$2" | head -n 1 || true; }

# Ends with one line for what apt wrote into the file $2 while it did $1.
apt_explain() {
  local words=$1 log=$2 line
  local unreachable='Temporary failure resolving|Could not resolve|Could not connect|Cannot initiate'
  unreachable+='|Connection (timed out|failed|refused)|Network is unreachable|No route to host'
  if grep -qiE 'no space left|not have enough free space' "$log"; then
    die "$words: the disk is full; free about 2 GB and run this again"
  elif grep -q 'Could not get lock' "$log"; then
    line=$(first 'held by process [0-9]+( \([^)]*\))?' "$log")
    die "$words: another package manager is at work (${line:-lock held}); wait until it is done and run this again"
  elif grep -qE "$unreachable" "$log"; then
    line=$(first "(resolving|resolve|connect to|connection to) '?[A-Za-z0-9.:-]+" "$log" | sed "s/.*[ ']//")
    die "$words: no network: ${line:-the package mirror} cannot be reached; connect this machine" \
        "(behind a proxy: export http_proxy=http://ADDRESS:PORT) and run this again"
  elif grep -q 'dpkg was interrupted' "$log"; then
    die "$words: an earlier installation was cut off; run 'dpkg --configure -a' as root, then this again"
  elif grep -qE 'Unable to locate package|has no installation candidate' "$log"; then
    line=$(first "Unable to locate package .*|Package '?[^ ]+ has no installation candidate" "$log")
    die "$words: apt: $line; the sources in /etc/apt need Debian's bookworm main"
  fi
  line=$(first 'dpkg: error processing .*' "$log")
  line=${line:-$(first '^E:.*' "$log")}
  die "$words: apt failed: ${line:-$(tail -n 1 "$log")} (all it said: $log)"
}

# What the last update complained of: apt ends it well without a network, and
# only the next install fails.
apt_complaints=""

apt_run() {
  local words=$1 log waited=0
  shift
  as_root true || exit 1  # Asks for a password before progress hides the question.
  log=$(mktemp "${TMPDIR:-/tmp}/penstock-apt.XXXXXX")
  until
    # Descriptor 3 is made inside, since sudo closes all but the first three; and
    # it is not 1, which apt would close to the packages' own scripts.
    { as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C sh -c 'exec 3>&1; exec apt-get "$@"' apt-get -q -y \
        -o APT::Status-Fd=3 -o Dpkg::Use-Pty=0 -o APT::Sandbox::User=root \
        -o Acquire::Retries=2 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 \
        -o Dpkg::Options::=--force-confold "$@" 2>&1 </dev/null || echo "apt-get failed"; } |
      tee "$log" | apt_progress "$words"
    ! grep -q '^apt-get failed$' "$log"
  do
    if grep -q 'Could not get lock' "$log" && [ $waited -lt $kAptWaitSeconds ]; then
      [ $waited != 0 ] ||
        say "$words: waiting for another package manager ($(first 'held by process [0-9]+( \([^)]*\))?' "$log"))"
      sleep 3
      waited=$((waited + 3))
      continue
    fi
    printf '%s\n' "$apt_complaints" >>"$log"
    apt_explain "$words" "$log"
  done
  apt_complaints=$(grep -E '^(W|E|Err):' "$log" || true)
  rm -f "$log"
}

apt_source() {
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
    "$1" "$2" /usr/share/keyrings/debian-archive-keyring.gpg >"$3"
}
