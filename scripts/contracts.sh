#!/usr/bin/env bash
# The contract's artifact, tests and gas.
#   scripts/contracts.sh build      compiles and writes contracts/artifact/TaskBoard.json
#   scripts/contracts.sh test ...   forge tests (arguments are passed on)
#   scripts/contracts.sh snapshot   writes what whole transactions cost to contracts/gas/transactions.json
#   scripts/contracts.sh check      format, artifact, tests and that snapshot are what is committed; changes nothing
# `test` and `check` fail when a transaction costs another amount than the snapshot says, be it one gas.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
contracts=$here/../contracts
forge=$("$here/tools.sh" path forge)
FOUNDRY_SOLC=$("$here/tools.sh" path solc)
export FOUNDRY_SOLC FOUNDRY_DISABLE_NIGHTLY_WARNING=1
cd "$contracts"

# The artifact on stdout: what the ABI, the code and the settings are, and nothing that differs between machines.
artifact() {
  "$forge" build src >&2
  node -e '
    const fs = require("fs");
    const out = JSON.parse(fs.readFileSync("out/TaskBoard.sol/TaskBoard.json"));
    const { compiler, settings } = out.metadata;
    const { optimizer, evmVersion, viaIR, metadata } = settings;
    const text = JSON.stringify({
      contractName: "TaskBoard",
      compiler: { version: compiler.version, optimizer, evmVersion, viaIR, metadata },
      abi: out.abi,
      bytecode: out.bytecode.object,
      deployedBytecode: out.deployedBytecode.object,
    }, null, 1);
    process.stdout.write(text + "\n");
  '
}

case "${1:-check}" in
  build)
    mkdir -p artifact
    artifact >artifact/TaskBoard.json.new
    mv artifact/TaskBoard.json.new artifact/TaskBoard.json
    ;;
  test)
    shift
    FORGE_SNAPSHOT_CHECK=true "$forge" test "$@"
    ;;
  snapshot)
    "$forge" test --match-contract GasTest
    ;;
  check)
    "$forge" fmt --check
    diff <(artifact) artifact/TaskBoard.json >/dev/null || {
      echo "contracts: artifact/TaskBoard.json is not what the sources give; run scripts/contracts.sh build" >&2
      exit 1
    }
    FORGE_SNAPSHOT_CHECK=true "$forge" test
    ;;
  *)
    echo "usage: contracts.sh build | test [ARGUMENTS] | snapshot | check" >&2
    exit 2
    ;;
esac
