#!/usr/bin/env bash
# Installs llhttp, which Debian 12 does not have.
#
# Debian 13 packages it (libllhttp-dev 9.2.1, which needs only libc6 >= 2.3.4).
# Those two packages are fetched through apt with the archive's signature
# checked, from this system's own mirror, in a folder of their own: no source
# of Debian 13 stays behind on this system, and nothing else is upgraded.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/say.sh"
. "$here/apt.sh"

llhttp_is_there() {
  [ -e /usr/include/llhttp.h ] && pkg-config --atleast-version=9.2 libllhttp 2>/dev/null
}

# The mirrors this system gets bookworm itself from, in both notations of apt's sources.
mirrors() {
  {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
      awk '$1 == "deb" { for (i = 2; i < NF; ++i) if ($i ~ /^https?:/ && $(i + 1) == "bookworm") print $i }'
    cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
      awk -v RS= '/(^|\n)Suites:[^\n]*bookworm([ \n]|$)/' | sed -n 's/^URIs: *\([^ ]*\).*/\1/p'
  } | sed 's,/*$,,' | awk '!seen[$0]++'
}

if llhttp_is_there; then exit 0; fi
say "installing llhttp 9.2 from Debian 13"
dir=$(mktemp -d "${TMPDIR:-/tmp}/penstock-llhttp.XXXXXX")
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
alone=(-o "Dir::Etc::sourcelist=$dir/trixie.sources" -o Dir::Etc::sourceparts=/dev/null
       -o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache")
mapfile -t mirror <<<"$(mirrors)"
[ -n "${mirror[0]}" ] ||
  die "llhttp: /etc/apt names no http mirror of bookworm to take Debian 13's package from; add one and run this again"
for i in "${!mirror[@]}"; do
  apt_source "${mirror[$i]}" trixie "$dir/trixie.sources"
  # The last mirror's failure is the one that is told and ends this script.
  (apt_run "llhttp: package list" "${alone[@]}" -o APT::Update::Error-Mode=any update) 2>"$dir/said" && break
  [ $((i + 1)) -lt ${#mirror[@]} ] || { cat "$dir/said" >&2; exit 1; }
done
cd "$dir"
apt_run "llhttp: download" "${alone[@]}" download libllhttp9.2 libllhttp-dev
apt_run "llhttp" install --no-install-recommends "$dir"/libllhttp9.2_*.deb "$dir"/libllhttp-dev_*.deb
llhttp_is_there ||
  die "llhttp is installed, yet pkg-config does not find libllhttp 9.2; try 'pkg-config --modversion libllhttp'"
