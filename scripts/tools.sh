#!/usr/bin/env bash
# Installs the pinned tools that tests and scripts need into ${WASM_EXEC_TOOLS:-~/.cache/wasm-exec/tools}.
#   scripts/tools.sh [install]   installs what is missing (fast when nothing is)
#   scripts/tools.sh path NAME   installs what is missing, then prints NAME's path: anvil, forge, cast or solc
# Talk goes to stderr, paths to stdout.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${WASM_EXEC_TOOLS:-$HOME/.cache/wasm-exec/tools}

say() { printf 'tools: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# One installation at a time; a second caller waits and then finds everything in place.
lock() {
  mkdir -p "$tools"
  command -v flock >/dev/null || return 0
  exec 9>"$tools/.lock"
  flock 9
}

# anvil, forge, cast and solc from npm, as scripts/tools/package-lock.json pins them.
install_chain() {
  local stamp="$tools/.chain" want name native
  want=$(cat "$here"/tools/{package.json,package-lock.json,solc} | cksum)
  [[ -f $stamp && $(<"$stamp") == "$want" ]] && return
  lock
  [[ -f $stamp && $(<"$stamp") == "$want" ]] && return
  command -v npm >/dev/null || die "npm (Node.js 20 or later) is needed for anvil, forge, cast and solc"
  say "installing anvil, forge, cast and solc into $tools"
  rm -f "$stamp"
  cp "$here"/tools/{package.json,package-lock.json} "$tools/"
  (cd "$tools" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  mkdir -p "$tools/bin"
  for name in anvil forge cast; do
    native=../node_modules/@foundry-rs/$name-linux-amd64/bin/$name
    if [[ ! -x $tools/bin/$native ]]; then
      # Only Linux on x86-64 is pinned; elsewhere Foundry as it is installed has to do.
      native=$(command -v "$name") || die "install Foundry first: there is no pinned $name for this system"
      say "$name is not pinned for this system; taking $native"
    fi
    ln -sfn "$native" "$tools/bin/$name"
  done
  cp "$here/tools/solc" "$tools/bin/solc"
  chmod +x "$tools/bin/solc"
  printf '%s\n' "$want" >"$stamp"
  say "installed"
}

case "${1:-install}" in
  install)
    install_chain
    ;;
  path)
    install_chain
    [[ -e $tools/bin/${2:?name of a tool} ]] || die "no tool named $2 in $tools/bin"
    printf '%s\n' "$tools/bin/$2"
    ;;
  *)
    die "usage: tools.sh [install | path NAME]"
    ;;
esac
