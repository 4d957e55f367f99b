#!/bin/sh
# Formatting, clippy and the licences of what is linked (cargo-deny, fetched into
# target/tools when it is not installed).
set -eu
cd "$(dirname "$0")/.."
locked=
[ "${CI:-}" != true ] || locked=--locked
cargo fmt --all --check
cargo clippy $locked --workspace --all-targets -- -D warnings

PATH="$PWD/target/tools/bin:$PATH"
if ! command -v cargo-deny > /dev/null 2>&1; then
    echo "lint: building cargo-deny in target/tools"
    cargo install --debug --quiet --locked --root target/tools cargo-deny < /dev/null
fi
cargo deny --workspace check licenses bans sources
# The database of known vulnerabilities comes from the network. Without it there
# is nothing to check against; with it, a finding fails.
if cargo deny --workspace fetch db > /dev/null 2>&1; then
    cargo deny --workspace check --disable-fetch advisories
else
    echo "lint: the advisory database cannot be had here, advisories are not checked"
fi
