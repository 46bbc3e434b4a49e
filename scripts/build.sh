# Sourced by the other scripts: where things are, how they are built, how a script talks. Not run by itself.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Outside the checkout, so that a fresh clone builds on what an earlier one has built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/wasm-exec/target}
export WASM_EXEC_TOOLS=${WASM_EXEC_TOOLS:-$HOME/.cache/wasm-exec/tools}

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need COMMAND WHAT-IT-IS-FOR
need() { command -v "$1" >/dev/null || die "$1 is needed for $2; install it and run this again"; }

# Runs a command, its output in a file that is shown when it fails.
quietly() { # WHAT COMMAND...
  local what=$1 log began=$SECONDS
  shift
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    rm -f "$log"
    say "$what: done in $((SECONDS - began)) s"
  else
    cat "$log" >&2
    rm -f "$log"
    die "$what failed"
  fi
}

# The two programs, optimised: coordinator and executor in $CARGO_TARGET_DIR/release.
build_release() {
  need cargo "building (Rust 1.95: https://rustup.rs)"
  need cc "building the bundled SQLite and the TLS library"
  say "building coordinator and executor (the first time takes some ten minutes on two cores)"
  cargo build --release --locked --workspace --bins
}
