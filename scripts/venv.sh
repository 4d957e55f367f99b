#!/bin/sh
# Prepares target/venv, a Python environment with the CIM clients pywbem and
# pywbemcli, from the pinned versions in scripts/requirements.txt, and target/pywbem,
# pywbem's sources with its own tests, which `make test` runs against the daemon.
# Does nothing when both are up to date.
set -eu
cd "$(dirname "$0")/.."
venv=$PWD/target/venv
sources=$PWD/target/pywbem
done=$venv/requirements.txt
if cmp -s scripts/requirements.txt "$done" && [ -d "$sources/tests" ]; then
    exit 0
fi
echo "venv: installing pywbem and pywbemcli into target/venv, and pywbem's tests into target/pywbem"
rm -rf "$venv" "$sources"
python3 -m venv "$venv"
pip() { "$venv/bin/python" -m pip "$@" --quiet --disable-pip-version-check --no-input < /dev/null; }
pip install -r scripts/requirements.txt
# The built package does not have the tests.
pywbem=$(grep '^pywbem==' scripts/requirements.txt)
mkdir -p "$sources"
pip download --no-binary :all: --no-deps --dest "$sources" "$pywbem"
tar -xf "$sources"/pywbem-*.tar.gz -C "$sources" --strip-components=1
rm "$sources"/pywbem-*.tar.gz
cp scripts/requirements.txt "$done"
