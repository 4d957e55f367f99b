#!/bin/sh
# Fuzzes everything that parses the texts of strangers: each target in fuzz/ for
# SECONDS (60), or only those that are named. A finding ends it with a failure and
# stays in fuzz/artifacts; what was learnt is kept in fuzz/corpus.
#
#   sh scripts/fuzz.sh                   # all, a minute each
#   SECONDS_EACH=600 sh scripts/fuzz.sh mof query
set -eu
cd "$(dirname "$0")/.."
# The sanitizers are unstable options of the compiler, which is a stable one.
export RUSTC_BOOTSTRAP=1
PATH="$PWD/target/tools/bin:$PATH"
if ! command -v cargo-fuzz > /dev/null 2>&1; then
    echo "fuzz: building cargo-fuzz in target/tools"
    cargo install --quiet --locked --root target/tools cargo-fuzz < /dev/null
fi
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' fuzz/Cargo.toml)
for target in "$@"; do
    corpus=fuzz/corpus/$target
    mkdir -p "$corpus"
    # The schema is good MOF to begin with.
    [ "$target" != mof ] || cp crates/isochron-hyperv/mof/*.mof "$corpus"
    [ ! -d "fuzz/seeds/$target" ] || cp "fuzz/seeds/$target"/* "$corpus"
    cargo fuzz run --fuzz-dir fuzz "$target" "$corpus" -- \
        -max_total_time="${SECONDS_EACH:-60}" -timeout=10 -rss_limit_mb=2048 -max_len=65536
done
