#!/usr/bin/env bash
# A coordinator in the worst weather: lagging and failing nodes behind one address, reorganisations deeper than the
# confirmations, kill -9 and SIGSTOP, requesters that submit, replace and cancel. Then an oracle asks the chain itself.
#   scripts/soak.sh [--minutes M] [--rate TASKS-A-SECOND] [--seed S] [--confirmations N] [--quiet SECONDS]
# What happened is on stderr. The last line on stdout is `tasks=N results=N cancelled=N expired=N lost=0 doubled=0
# wrong=0 leaked=0 broken=0 seed=S`; anything but zeros fails. WASM_EXEC_PROFILE=debug takes a build without optimisation.
. "$(dirname "${BASH_SOURCE[0]}")/build.sh"

need npm "Anvil (Node.js 20 or later)"
ANVIL=${ANVIL:-$(scripts/tools.sh path anvil)}
export ANVIL
if [[ ${WASM_EXEC_PROFILE:-release} == debug ]]; then
  cargo build --locked --workspace --bins >&2
else
  build_release >&2
fi
exec "$CARGO_TARGET_DIR/${WASM_EXEC_PROFILE:-release}/soak" "$@"
