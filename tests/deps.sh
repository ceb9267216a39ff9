#!/bin/sh
# Install the Debian packages that tests use, where that is possible without asking anybody.
set -eu

packages="espeak-ng libespeak-ng1 sqlite3 gcc libc6-dev mono-mcs mono-runtime samba smbclient systemd dbus zsh fish chromium openssh-server"

missing=""
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

install="apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Some tests need these programs and are skipped without them:$missing"
    exit 0
elif [ "$(id -u)" = 0 ]; then
    sudo=""
elif sudo -n true 2>/dev/null; then
    sudo="sudo"
else
    echo "Some tests are skipped without these packages; to install them: sudo $install"
    exit 0
fi

$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive $install

# The tests start servers of their own; those that Debian has just started for the whole network are not wanted.
case "$missing" in
*" samba"*) $sudo systemctl disable --now smbd nmbd >/dev/null 2>&1 || true ;;
esac
case "$missing" in
*" openssh-server"*) $sudo systemctl disable --now ssh >/dev/null 2>&1 || true ;;
esac
