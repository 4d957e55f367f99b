#!/bin/sh
# Prepares the guests of the demo and of the tests, in $ISOCHRON_LAB_DIR
# (target/lab): the distribution's kernel, unpacked and not installed, the static
# guest program and the two guest images. Needs no root; what is there stays.
#
# ISOCHRON_LAB_KERNEL and ISOCHRON_LAB_MODULES (lib/modules/VERSION) name another
# kernel instead.
set -eu
cd "$(dirname "$0")/.."
lab=${ISOCHRON_LAB_DIR:-$PWD/target/lab}
mkdir -p "$lab"
lab=$(cd "$lab" && pwd)
export ISOCHRON_LAB_DIR="$lab"
work=$lab/.unpack.$$
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

say() { echo "guest: $*"; }

fail() { echo "guest: $*" >&2; exit 1; }

# Package lists of our own, once the machine's prove missing or out of date.
lists=
apt() {
    program=$1; shift
    if [ -n "$lists" ]; then
        set -- -o "Dir::State::Lists=$lists" -o "Dir::Cache=$work/cache" "$@"
    fi
    "$program" -o APT::Sandbox::User=root "$@" < /dev/null
}

# with_lists FUNCTION: runs it, and once more with fresh package lists if it fails.
with_lists() {
    "$1" && return
    [ -z "$lists" ] || return 1
    say "the package lists are missing or out of date, fetching fresh ones for this"
    lists=$work/lists
    mkdir -p "$lists/partial" "$work/cache/archives/partial"
    apt apt-get -qq update && "$1"
}

# download DIR PACKAGE...: fetches packages and unpacks them in DIR.
download() {
    into=$1; shift
    mkdir -p "$into" "$work/deb"
    (cd "$work/deb" && apt apt-get -qq download "$@") || return 1
    for deb in "$work/deb"/*.deb; do
        dpkg-deb -x "$deb" "$into" || return 1
        rm "$deb"
    done
}

# depends PACKAGE: the packages it depends on.
depends() {
    apt apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances "$1" 2> /dev/null |
        sed -n 's/^ *|\{0,1\}Depends: \([^<>]*\)$/\1/p'
}

fetch_kernel() {
    image=$(depends "$meta" | grep -m 1 '^linux-image-[0-9]') || return 1
    # Some distributions keep modules, or the kernel's file itself, apart.
    parts=$(depends "$image" | grep -E '^linux-(modules|binary)-[0-9]' || true)
    say "fetching the kernel $image (unpacked into $lab, not installed)"
    rm -rf "$work/kernel"
    # shellcheck disable=SC2086
    download "$work/kernel" "$image" $parts
}

fetch_agent() {
    say "fetching qemu-guest-agent (unpacked into $lab, not installed)"
    rm -rf "$work/agent"
    download "$work/agent" qemu-guest-agent || return 1
    agent=$(find "$work/agent" -name qemu-ga -type f | head -n 1)
    [ -n "$agent" ] || return 1
    if [ "$agent" != "$work/agent/usr/sbin/qemu-ga" ]; then
        mkdir -p "$work/agent/usr/sbin"
        mv "$agent" "$work/agent/usr/sbin/qemu-ga" || return 1
    fi
    # Its libraries are taken from this machine where it has them.
    if ldd "$work/agent/usr/sbin/qemu-ga" | grep -q 'not found'; then
        # shellcheck disable=SC2046
        download "$work/agent" $(depends qemu-guest-agent | grep '^lib')
    fi
}

mkdir -p "$work"
if [ -z "${ISOCHRON_LAB_KERNEL:-}" ] && [ ! -e "$lab/kernel/vmlinuz" ]; then
    id=$(. /etc/os-release && echo "$ID")
    case "$id" in
        debian) meta=linux-image-cloud-amd64 ;;
        ubuntu) meta=linux-image-virtual ;;
        *) fail "no kernel package is known for $id: name a kernel in ISOCHRON_LAB_KERNEL" \
            "and its modules directory in ISOCHRON_LAB_MODULES" ;;
    esac
    with_lists fetch_kernel || fail "the kernel cannot be fetched with apt-get"
    vmlinuz=$(find "$work/kernel" -type f -name 'vmlinuz*' | head -n 1)
    modules=
    for dir in "$work"/kernel/lib/modules/* "$work"/kernel/usr/lib/modules/*; do
        [ ! -d "$dir/kernel" ] || modules=$dir
    done
    [ -n "$modules" ] && [ -n "$vmlinuz" ] || fail "the package $image has no kernel or no modules"
    mkdir "$work/ready"
    mv "$modules" "$work/ready/modules"
    mv "$vmlinuz" "$work/ready/vmlinuz"
    rm -rf "$lab/kernel"
    mv "$work/ready" "$lab/kernel"
fi

if [ ! -e "$lab/agent/usr/sbin/qemu-ga" ]; then
    with_lists fetch_agent || fail "qemu-guest-agent cannot be fetched with apt-get"
    rm -rf "$lab/agent"
    mv "$work/agent" "$lab/agent"
fi

say "building the guest program and the guest images"
locked=
[ "${CI:-}" != true ] || locked=--locked
target=x86_64-unknown-linux-gnu
RUSTFLAGS='-C target-feature=+crt-static -C strip=symbols' cargo build $locked --quiet --release \
    -p isochron-ring --target "$target" --target-dir target/guest
if ! cmp -s "target/guest/$target/release/isochron-ring" "$lab/isochron-ring"; then
    cp "target/guest/$target/release/isochron-ring" "$lab/isochron-ring.new"
    mv "$lab/isochron-ring.new" "$lab/isochron-ring"
fi
cargo run $locked --quiet -p isochron-lab --bin isochron-guest
