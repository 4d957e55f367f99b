#!/bin/sh
# Prepares the clients that `make test` runs against the daemon, each pinned:
#
#   target/venv     the CIM clients pywbem and pywbemcli, and pypsrp
#   target/pywbem   pywbem's sources, with its own tests
#   target/wsmanio  wsmanio, which needs Python 3.12; not there where there is none
#   target/npm      Intel's generator of WS-Management messages
#
# Does nothing where they are up to date.
set -eu
cd "$(dirname "$0")/.."
wsman_messages=@open-amt-cloud-toolkit/wsman-messages@5.9.1
venv=$PWD/target/venv
sources=$PWD/target/pywbem
wsmanio=$PWD/target/wsmanio
npm=$PWD/target/npm

pip() {
    python=$1/bin/python
    shift
    "$python" -m pip "$@" --quiet --disable-pip-version-check --no-input < /dev/null
}

if ! cmp -s scripts/requirements.txt "$venv/requirements.txt" || [ ! -d "$sources/tests" ]; then
    echo "venv: installing pywbem and pywbemcli into target/venv, and pywbem's tests into target/pywbem"
    rm -rf "$venv" "$sources"
    python3 -m venv "$venv"
    pip "$venv" install -r scripts/requirements.txt
    # The built package does not have the tests.
    pywbem=$(grep '^pywbem==' scripts/requirements.txt)
    mkdir -p "$sources"
    pip "$venv" download --no-binary :all: --no-deps --dest "$sources" "$pywbem"
    tar -xf "$sources"/pywbem-*.tar.gz -C "$sources" --strip-components=1
    rm "$sources"/pywbem-*.tar.gz
    cp scripts/requirements.txt "$venv/requirements.txt"
fi

# The first Python that wsmanio runs on.
new_python() {
    for python in python3 python3.14 python3.13 python3.12 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3; do
        if "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 12))' \
            2> /dev/null; then
            echo "$python"
            return
        fi
    done
}

if ! cmp -s scripts/requirements-wsmanio.txt "$wsmanio/requirements.txt"; then
    rm -rf "$wsmanio"
    python=$(new_python)
    if [ -n "$python" ]; then
        echo "venv: installing wsmanio into target/wsmanio"
        "$python" -m venv "$wsmanio"
        pip "$wsmanio" install -r scripts/requirements-wsmanio.txt
        cp scripts/requirements-wsmanio.txt "$wsmanio/requirements.txt"
    else
        echo "venv: SKIPPED: there is no Python 3.12 or later, so wsmanio is not tested with" >&2
    fi
fi

if [ "$(cat "$npm/pinned" 2> /dev/null)" != "$wsman_messages" ]; then
    echo "venv: installing $wsman_messages into target/npm"
    rm -rf "$npm"
    mkdir -p "$npm"
    # Nothing of it is run here, and it asks for nothing else.
    npm install --prefix "$npm" --no-save --ignore-scripts --no-audit --no-fund --silent \
        "$wsman_messages" < /dev/null
    echo "$wsman_messages" > "$npm/pinned"
fi
