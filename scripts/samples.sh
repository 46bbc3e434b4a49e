#!/bin/sh
# Builds the sample modules in host/wasm from their sources, or checks that the committed ones are what they give.
set -eu
cd "$(dirname "$0")/.."

usage() {
    echo "usage: scripts/samples.sh build|check" >&2
    exit 2
}

samples="fib affine module trap loop"

assemble() {
    "${CARGO_TARGET_DIR:-target}/debug/examples/assemble" "host/wasm/src/$1.wat" "$2"
}

have_clang() {
    command -v clang >/dev/null && command -v wasm-ld >/dev/null &&
        [ -e /usr/lib/wasm32-wasi/libc.a ] &&
        ls /usr/lib/llvm-*/lib/clang/*/lib/wasi/libclang_rt.builtins-wasm32.a >/dev/null 2>&1
}

install_clang() {
    have_clang && return
    echo "samples: installing clang, lld, wasi-libc and libclang-rt-14-dev-wasm32" >&2
    if [ "$(id -u)" = 0 ]; then as_root=; else as_root=sudo; fi
    $as_root apt-get update -qq >&2
    $as_root apt-get install -y -qq --no-install-recommends clang lld wasi-libc libclang-rt-14-dev-wasm32 >&2
}

# In two steps: clang hands what it links with -O to whatever `wasm-opt` it finds, and what comes out must not depend on
# what else is installed.
compile() {
    object=$(mktemp)
    clang --target=wasm32-wasi -O2 -g0 -Wall -Werror -c -o "$object" host/wasm/src/wordcount.c
    clang --target=wasm32-wasi -Wl,--strip-all -o "$1" "$object"
    rm -f "$object"
}

case "${1-}" in
build | check) cargo build --quiet --workspace --example assemble ;;
*) usage ;;
esac

if [ "$1" = build ]; then
    for sample in $samples; do assemble "$sample" "host/wasm/$sample.wasm"; done
    install_clang
    compile host/wasm/wordcount.wasm
    chmod 644 host/wasm/wordcount.wasm
else
    built=$(mktemp -d)
    trap 'rm -rf "$built"' EXIT
    for sample in $samples; do
        assemble "$sample" "$built/$sample.wasm"
        cmp "$built/$sample.wasm" "host/wasm/$sample.wasm"
    done
    if command -v apt-get >/dev/null; then install_clang; fi
    if have_clang && clang --version | grep -q 'version 14\.'; then
        # With a `wasm-opt` that would spoil it: nobody's is ever run.
        printf '#!/bin/sh\nexit 1\n' >"$built/wasm-opt"
        chmod +x "$built/wasm-opt"
        PATH="$built:$PATH" compile "$built/wordcount.wasm"
        cmp "$built/wordcount.wasm" host/wasm/wordcount.wasm
        echo "samples: all six are what their sources give"
    else
        echo "samples: five are what their sources give; wordcount.wasm was not built:"
        echo "samples: that takes clang 14 with wasi-libc (Debian 12: clang lld wasi-libc libclang-rt-14-dev-wasm32)"
    fi
fi
