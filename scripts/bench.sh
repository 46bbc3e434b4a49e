#!/usr/bin/env bash
# Measures the coordinator end to end and prints a Markdown table, each figure beside its floor from the same run.
#   scripts/bench.sh [--tasks N] [--queued N] [--events N] [--hostile N]
. "$(dirname "${BASH_SOURCE[0]}")/build.sh"

need npm "Anvil (Node.js 20 or later)"
ANVIL=${ANVIL:-$(scripts/tools.sh path anvil)}
export ANVIL
build_release >&2
exec "$CARGO_TARGET_DIR/release/bench" "$@"
