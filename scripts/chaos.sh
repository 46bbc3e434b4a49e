#!/usr/bin/env bash
# Kills the coordinator with -9 at random moments while tasks go through it, then asks the chain itself.
#   scripts/chaos.sh [--tasks N] [--kills K] [--seed S]
# The last line on stdout is `tasks=N kills=K lost=0 doubled=0 leaked=0 seed=S`; anything but zeros fails.
. "$(dirname "${BASH_SOURCE[0]}")/build.sh"

need npm "Anvil (Node.js 20 or later)"
ANVIL=${ANVIL:-$(scripts/tools.sh path anvil)}
export ANVIL
build_release >&2
exec "$CARGO_TARGET_DIR/release/chaos" "$@"
