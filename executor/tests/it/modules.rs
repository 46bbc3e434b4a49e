//! Modules that can never run.

use std::fs;

use crate::task::{Task, executor};

fn sample() -> Vec<u8> {
    fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../host/wasm/wordcount.wasm")).unwrap()
}

#[test]
fn w09_bad_modules_are_invalid() {
    for module in [
        b"".as_slice(),
        b"\0asm",
        b"\0asm\x02\0\0\0",
        b"(module (func (export \"f\")))",
        b"#!/bin/sh\n",
        b"\x7fELF\x02\x01\x01",
        b"\0asm\x01\0\0\0\xff\xff\xff\xff\xff",
    ] {
        Task::of(module).entry("f").run().failed("invalid_module");
    }
}

#[test]
fn w09_a_module_cut_at_any_64th_byte_is_invalid() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.wasm");
    let module = sample();
    for end in (0..module.len()).step_by(64) {
        fs::write(&path, &module[..end]).unwrap();
        let output = executor().arg("check").arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "cut at {end}");
        assert_eq!(output.stdout, b"{\"status\":\"failed\",\"code\":\"invalid_module\"}\n");
    }
}

#[test]
fn w09_a_hundred_megabytes_are_refused_at_once() {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.resize(100 << 20, 0);
    Task::of(&module).entry("f").run().failed("module_too_complex").within(5.0);
}

#[test]
fn w09_unknown_imports_are_unsupported() {
    for import in [
        r#""env" "f" (func)"#,
        r#""wasi_snapshot_preview1" "sock_open" (func (param i32) (result i32))"#,
        r#""wasi:cli/run@0.2.0" "run" (func)"#,
        r#""wasi_snapshot_preview1" "fd_write" (func (param i32) (result i32))"#,
        r#""wasi_snapshot_preview1" "g" (global i32)"#,
    ] {
        let wat = format!(r#"(module (import {import}) (func (export "f")))"#);
        Task::text(&wat).entry("f").run().failed("unsupported_import");
    }
}

#[test]
fn w03_what_the_bounds_let_pass_compiles_in_bounded_time() {
    // The worst of each kind that is allowed; measured in seconds, unlike the hours of what is refused.
    for body in [
        format!("{} {}", "block ".repeat(5_000), "end ".repeat(5_000)),
        format!("block i32.const 0 br_table {} 0 end", "0 ".repeat(49_999)),
        "i32.const 0 drop ".repeat(100_000),
    ] {
        let wat = format!(r#"(module (func (export "f") {body}))"#);
        let ran = Task::text(&wat).entry("f").run();
        ran.is(r#"{"status":"ok","value":null}"#).within(30.0);
    }
}

#[test]
fn a_module_that_takes_too_long_to_compile_is_too_complex() {
    let wat = format!(
        r#"(module (func (export "f") (local i64) {}))"#,
        "local.get 0 i64.const 3 i64.mul local.set 0 ".repeat(80_000)
    );
    let ran = Task::text(&wat).entry("f").set("COMPILE_SEC", "0.001").run();
    ran.failed("module_too_complex").within(5.0);
}
