#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Unpack systemd-resolved and NetworkManager, with the libraries this machine
# lacks, into .cache/daemons of the repository.  The tests run them from there
# on a bus of their own: installed, systemd-resolved would rewrite
# /etc/resolv.conf, and NetworkManager take over the interfaces.
# Nothing is installed.  A second run does nothing.
set -eu

cache=$(dirname "$(readlink -f "$0")")/../../.cache
root=$cache/daemons
[ ! -e "$root/complete" ] || exit 0

fetch() {
    apt-get --quiet --yes --download-only --reinstall --no-install-recommends \
        -o Debug::NoLocking=1 -o APT::Sandbox::User=root \
        -o Dir::Cache::archives="$1" install systemd-resolved network-manager
}

rm -rf "$root"
mkdir -p "$root/packages/partial"
packages=$(readlink -f "$root/packages")
fetch "$packages" || { apt-get --quiet update && fetch "$packages"; }
for package in "$packages"/*.deb; do
    dpkg-deb --extract "$package" "$root"
done
rm -r "$packages"
touch "$root/complete"
