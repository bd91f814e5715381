#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Unpack systemd-resolved and NetworkManager, with the libraries this machine
# lacks, into .cache/daemons of the repository.  The tests run them from there
# on a bus of their own: installed, systemd-resolved would rewrite
# /etc/resolv.conf, and NetworkManager take over the interfaces.
# And wireguard-go as Debian 13 has it, which frames packets otherwise than that
# of Debian 12, into .cache/daemons/trixie.
# Nothing is installed.  A second run does nothing, unless this file is another one.
set -eu

cache=$(dirname "$(readlink -f "$0")")/../../.cache
root=$cache/daemons
! cmp -s "$0" "$root/complete" || exit 0

fetch() {
    apt-get --quiet --yes --download-only --reinstall --no-install-recommends \
        -o Debug::NoLocking=1 -o APT::Sandbox::User=root \
        -o Dir::Cache::archives="$1" install systemd-resolved network-manager
}

# From the archives this machine installs from, and with lists of its own.
of_trixie() {
    apt-get --quiet -o APT::Sandbox::User=root -o Dir::Cache="$packages/cache" \
        -o Dir::Etc::sourcelist="$packages/trixie.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State="$packages/state" -o Dir::State::status=/dev/null "$@"
}

rm -rf "$root"
mkdir -p "$root/packages/partial"
packages=$(readlink -f "$root/packages")
fetch "$packages" || { apt-get --quiet update && fetch "$packages"; }
for package in "$packages"/*.deb; do
    dpkg-deb --extract "$package" "$root"
done
mkdir -p "$packages/state/lists/partial" "$packages/cache/archives/partial"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
apt-get indextargets --format "deb [signed-by=$keys] \$(REPO_URI) \$(RELEASE) main" \
    'Created-By: Packages' 'Origin: Debian' 'Component: main' |
    awk '$4 !~ /-/ { $4 = "trixie"; print; exit }' >"$packages/trixie.list"
of_trixie update
(cd "$packages" && of_trixie download wireguard-go)
dpkg-deb --extract "$packages"/wireguard-go_*.deb "$root/trixie"
rm -r "$packages"
cp "$0" "$root/complete"
