#!/bin/sh
# Prepares target/venv, a Python environment with the CIM client pywbem, from the
# pinned versions in scripts/requirements.txt. Does nothing when it is up to date.
set -eu
cd "$(dirname "$0")/.."
venv=$PWD/target/venv
done=$venv/requirements.txt
if ! cmp -s scripts/requirements.txt "$done"; then
    echo "venv: installing pywbem into target/venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        -r scripts/requirements.txt < /dev/null
    cp scripts/requirements.txt "$done"
fi
