#!/bin/sh
# Runs every test; `make test` has prepared guests and clients before. The
# runner's own summary comes last.
set -eu
cd "$(dirname "$0")/.."
locked=
[ "${CI:-}" != true ] || locked=--locked
# The command line's tests run the binary: all binaries are built first.
cargo build $locked --workspace --bins
cargo test $locked --quiet --workspace --doc
if cargo nextest --version > /dev/null 2>&1; then
    exec cargo nextest run $locked --workspace --no-fail-fast
fi
exec cargo test $locked --workspace --lib --bins --tests --no-fail-fast
