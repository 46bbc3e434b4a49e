#!/usr/bin/env bash
# Builds the gateway that the tests talk to into ${WASM_EXEC_TOOLS:-$HOME/.cache/wasm-exec/tools}/ipfs-gateway and
# prints its path. Does nothing when the binary already belongs to these sources and this Go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

tools="${WASM_EXEC_TOOLS:-$HOME/.cache/wasm-exec/tools}"
binary="$tools/ipfs-gateway"
mkdir -p "$tools"

sources="$({ go version; cat ./*.go go.mod go.sum; } | sha256sum | cut -d' ' -f1)"
# One builder at a time; the lock goes away with this process.
exec 9>"$binary.lock"
flock 9
if [[ ! -x "$binary" || "$(cat "$binary.sources" 2>/dev/null)" != "$sources" ]]; then
  echo "building $binary (about a minute the first time)" >&2
  # The folder may lie outside a repository, or in one that Go does not trust.
  CGO_ENABLED=0 GOWORK=off go build -buildvcs=false -trimpath -ldflags='-s -w' -o "$binary.new" . 9>&-
  mv "$binary.new" "$binary"
  echo "$sources" >"$binary.sources"
fi
echo "$binary"
