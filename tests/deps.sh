#!/bin/sh
# Install the Debian packages that tests use, where that is possible without asking anybody.
set -eu

packages="espeak-ng libespeak-ng1 sqlite3"

missing=""
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

install="apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Some tests need these programs and are skipped without them:$missing"
elif [ "$(id -u)" = 0 ]; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive $install
elif sudo -n true 2>/dev/null; then
    sudo apt-get update -qq && sudo env DEBIAN_FRONTEND=noninteractive $install
else
    echo "Some tests are skipped without these packages; to install them: sudo $install"
fi
