#!/bin/sh
# Installs what building, the demo and the tests need and this machine lacks:
# Debian 12 or later, Ubuntu 24.04 or later. Says what and why first, and does
# nothing when all is there. Rust is not installed by this script.
set -eu

# need PACKAGE REASON: notes a package that is missing.
need() {
    case " $missing " in *" $1 "*) return ;; esac
    missing="$missing $1"
    reasons="$reasons  $1: $2
"
}
# /sbin is not on every user's path.
have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" > /dev/null 2>&1; }

# Notes every package that is missing.
look() {
    missing=
    reasons=
    have qemu-system-x86_64 || need qemu-system-x86 "runs the guests"
    have qemu-img || need qemu-utils "creates and reads disk images"
    if ! have busybox || ! busybox --list 2> /dev/null | grep -qx acpid ||
        ldd "$(command -v busybox)" 2> /dev/null | grep -q '=>'; then
        need busybox-static "the guests' shell"
    fi
    { have mkfs.ext4 && have e2fsck && have debugfs; } ||
        need e2fsprogs "the guests' file system, and its inspection"
    have zstd || need zstd "unpacks kernel modules"
    have xz || need xz-utils "unpacks kernel modules"
    have gzip || need gzip "unpacks kernel modules"
    { have krb5kdc && have kdb5_util; } || need krb5-kdc "issues the Kerberos tickets of a test"
    have kadmin.local || need krb5-admin-server "makes the users of that"
    have kinit || need krb5-user "gets their tickets"
    have curl || need curl "a client that logs in by them"
    have wbemcli || need sblim-wbemcli "a CIM client that the tests drive the daemon with"
    python3 -c 'import venv, ensurepip' 2> /dev/null ||
        need python3-venv "environment for pywbem, the tests' other CIM client"
    have node || need nodejs "runs the tests' client of WS-Management that is Intel's"
    have npm || need npm "fetches that client"
    # A static library: the guest program is linked without shared ones.
    { have cc && have make && [ -n "$(cc -print-file-name=libc.a | grep / || true)" ]; } ||
        need build-essential "compiles the embedded database and links the guest program"
}

if ! have cargo; then
    echo "prereqs: Rust is missing (cargo, 1.88 or later); see https://rustup.rs" >&2
    exit 1
fi
look
[ -n "$missing" ] || exit 0

id= version=
if [ -r /etc/os-release ]; then
    # shellcheck disable=SC1091
    . /etc/os-release
    id=${ID:-} version=${VERSION_ID:-}
fi
known=no
case "$id:${version%%.*}" in
    debian: | debian:1[2-9] | debian:[2-9][0-9]) known=yes ;;
    ubuntu:2[4-9] | ubuntu:[3-9][0-9]) known=yes ;;
esac
echo "prereqs: this machine lacks"
printf '%s' "$reasons"
if [ "$known" = no ]; then
    echo "prereqs: only Debian 12 or later and Ubuntu 24.04 or later are set up by this script," >&2
    echo "         and this is ${PRETTY_NAME:-another system}. Please install the counterparts of:$missing" >&2
    exit 1
fi

if [ "$(id -u)" = 0 ]; then
    as_root=
elif have sudo && { sudo -n true 2> /dev/null || [ -t 0 ]; }; then
    as_root=sudo
else
    echo "prereqs: installing needs root or sudo. Please run as root:" >&2
    echo "         apt-get update && apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "prereqs: installing them with apt-get"
$as_root apt-get -qq update < /dev/null
install() {
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends $missing < /dev/null
}
install
look
[ -n "$missing" ] || exit 0
# QEMU's packages go together: one of another version gives way to what is installed.
echo "prereqs: that took out what goes with another version; installing it again"
printf '%s' "$reasons"
install
look
if [ -n "$missing" ]; then
    echo "prereqs: apt-get did not install:$missing" >&2
    exit 1
fi
