#!/usr/bin/env bash
# What needs no test run: formats, lints, licences and sources of dependencies, and which crate may see which.
. "$(dirname "${BASH_SOURCE[0]}")/build.sh"

say "format"
cargo fmt --all -- --check

say "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings

say "dependencies: bans, licences, sources"
deny=$(scripts/tools.sh path cargo-deny)
"$deny" --log-level error --config .cargo/deny.toml check bans licenses sources

say "edges between crates"
# tree PACKAGE: the names of all crates it is built from.
tree() { cargo tree --locked --package "$1" --edges normal --prefix none --format '{p}' | cut -d' ' -f1 | sort -u; }
forbid() { # PACKAGE CRATE...: none of them may be in its tree
  local package=$1 crate found
  shift
  found=$(tree "$package")
  for crate in "$@"; do
    if grep -qx "$crate" <<<"$found"; then die "$package must not be built from $crate"; fi
  done
}
forbid coordinator wasmtime cranelift-codegen
forbid executor alloy sqlx kube axum reqwest
forbid ipfs alloy sqlx kube wasmtime
forbid task tokio sqlx alloy reqwest
forbid executor-protocol tokio wasmtime

# only SOURCE-PATTERN FOLDER...: the pattern stands in the sources of these folders alone
only() {
  local pattern=$1 allowed found
  shift
  allowed=$(printf '|^%s' "$@")
  found=$(git ls-files '*.rs' | grep -Ev "${allowed#|}" | xargs grep -lE "$pattern" || true)
  [[ -z $found ]] || die "only $* may hold '$pattern': $found"
}
only 'sqlx::' coordinator/store/
only 'axum::' coordinator/src/api/ coordinator/harness/ coordinator/src/serve ipfs/tests/ coordinator/tests/
only 'std::env::var|env::vars' coordinator/src/config coordinator/harness/ executor/src/ '[a-z/]*tests/' '[a-z/]*benches/' '[a-z/]*examples/'

# SQLite looks at the value of a bare bound limit and prepares the statement anew each time it is run.
if grep -rn 'limit ?' coordinator/store/src | grep -v 'limit ?[^ ]* + 0'; then
  die "a bound limit is written 'limit ? + 0'"
fi
say "checks passed"
