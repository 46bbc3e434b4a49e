#!/usr/bin/env bash
# Everything that must hold, on real parts: installs what is missing, runs all checks and tests, prints the totals.
#   scripts/test.sh          all of it
#   scripts/test.sh NAME...  only the Rust tests whose names hold one of these words
. "$(dirname "${BASH_SOURCE[0]}")/build.sh"

need cargo "building (Rust 1.95: https://rustup.rs)"
need npm "Anvil, forge and solc (Node.js 20 or later)"
need go "the IPFS gateway and geth (Go 1.26 or later)"
need python3 "the test runner"

say "tools"
scripts/tools.sh install
gateway=$(scripts/parts/ipfs/build.sh)
geth=$(scripts/parts/geth/build.sh)
export ANVIL=${ANVIL:-$(scripts/tools.sh path anvil)} IPFS_GATEWAY=${IPFS_GATEWAY:-$gateway} GETH=${GETH:-$geth}
nextest=$(scripts/tools.sh path cargo-nextest)

rust_log=$(mktemp) forge_log=$(mktemp)
trap 'rm -f "$rust_log" "$forge_log"' EXIT

rust() {
  say "building the tests"
  # The programs too, in one call: tests start the real ones, and two calls would unify features differently.
  cargo build --locked --workspace --bins --tests --examples
  say "Rust tests"
  "$nextest" nextest run --locked --workspace --no-fail-fast "$@" 2>&1 | tee "$rust_log"
}

if (($#)); then
  rust "$@"
  exit
fi

scripts/check.sh
say "contracts: artifact, forge tests, gas"
scripts/contracts.sh check 2>&1 | tee "$forge_log"
say "samples: the committed modules are what their sources give"
scripts/samples.sh check
(cd scripts/parts/ipfs && go vet ./...)
rust

say "chaos: kill -9 at random moments (release build)"
build_release
chaos=0
for seed in 1 2 3; do
  scripts/chaos.sh --tasks 100 --kills 50 --seed "$seed"
  chaos=$((chaos + 1))
done
say "soak: the worst weather for half a minute"
scripts/soak.sh --minutes 0.5 --rate 10 --seed 1
soak=1

# Totals: nextest's summary, forge's, the chaos runs and the soak.
number() { grep -oE "[0-9]+ $1" <<<"$2" | head -n 1 | grep -oE '[0-9]+' || echo 0; }
summary=$(sed 's/\x1b\[[0-9;]*m//g' "$rust_log" | grep -E 'Summary \[' | tail -n 1)
forge=$(sed 's/\x1b\[[0-9;]*m//g' "$forge_log" | grep -E 'total tests' | head -n 1)
passed=$(($(number passed "$summary") + $(number 'tests passed' "$forge") + chaos + soak))
failed=$(($(number failed "$summary") + $(number failed "$forge")))
say "Rust:$(sed 's/.*tests run://' <<<"$summary"); contracts: $(number 'tests passed' "$forge") passed; chaos: $chaos passed; soak: $soak passed"
printf '%s passed, %s failed\n' "$passed" "$failed"
((failed == 0 && passed > 0))
