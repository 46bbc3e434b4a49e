#!/usr/bin/env bash
# The whole road on this machine: a chain (Anvil), the contract, a coordinator, the sample tasks as transactions, their
# results read back from the chain, one of them verified. Installs and builds what is missing; leaves nothing running.
. "$(dirname "${BASH_SOURCE[0]}")/build.sh"

need npm "Anvil (Node.js 20 or later)"
say "Anvil, a development chain"
ANVIL=${ANVIL:-$(scripts/tools.sh path anvil)}
export ANVIL
build_release
say "the demo"
exec "$CARGO_TARGET_DIR/release/coordinator" demo "$@"
