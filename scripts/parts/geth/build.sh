#!/usr/bin/env bash
# Builds geth, the second chain that the tests run on, into ${WASM_EXEC_TOOLS:-$HOME/.cache/wasm-exec/tools}/geth and
# prints its path. Does nothing when the binary already belongs to this go.mod and this Go. There are no sources here:
# go.mod names the version, go.sum holds it to its bytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

tools="${WASM_EXEC_TOOLS:-$HOME/.cache/wasm-exec/tools}"
binary="$tools/geth"
mkdir -p "$tools"

sources="$({ go version; cat go.mod go.sum; } | sha256sum | cut -d' ' -f1)"
# One builder at a time; the lock goes away with this process.
exec 9>"$binary.lock"
flock 9
if [[ ! -x "$binary" || "$(cat "$binary.sources" 2>/dev/null)" != "$sources" ]]; then
  echo "building $binary (some three minutes the first time)" >&2
  # The folder may lie outside a repository, or in one that Go does not trust.
  CGO_ENABLED=0 GOWORK=off go build -buildvcs=false -trimpath -ldflags='-s -w' -o "$binary.new" \
    github.com/ethereum/go-ethereum/cmd/geth 9>&-
  mv "$binary.new" "$binary"
  echo "$sources" >"$binary.sources"
fi
echo "$binary"
