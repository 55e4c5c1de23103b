#!/bin/sh
# Debian 12 has no llhttp; Debian 13 packages it (libllhttp-dev 9.2.1, needs only libc6).
# Fetches those two packages through apt, archive signature checked, without adding trixie to this system.
set -eu
[ -e /usr/include/llhttp.h ] && pkg-config --atleast-version=9.2 libllhttp 2>/dev/null && exit 0
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT; chmod 755 "$d"; mkdir -p "$d/lists/partial" "$d/cache/archives/partial"
sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n1 > "$d/uri"   # this system's own mirror
[ -s "$d/uri" ] || awk '$1=="deb" && $2 ~ /^http/ {print $2; exit}' /etc/apt/sources.list > "$d/uri"
printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$(cat "$d/uri")" > "$d/trixie.sources"
o="-o Dir::Etc::sourcelist=$d/trixie.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$d/lists -o Dir::Cache=$d/cache"
apt-get $o -qq update
(cd "$d" && apt-get $o -qq download libllhttp9.2 libllhttp-dev)
apt-get install -y --no-install-recommends "$d"/libllhttp9.2_*.deb "$d"/libllhttp-dev_*.deb
