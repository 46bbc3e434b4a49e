//! The same bytes give the same document, whatever a guest asks for.

use crate::task::Task;

#[test]
fn w08_clock_random_nan_bits_and_growth_are_the_same_on_every_run() {
    let wat = r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1 3)
        (func $time (param $id i32) (result i64)
            (drop (call $clock (local.get $id) (i64.const 0) (i32.const 32)))
            (i64.load (i32.const 32)))
        (func (export "f") (param $zero f64) (result i64 i64 i64 i64 i64 i32 i32)
            (drop (call $random (i32.const 0) (i32.const 16)))
            (i64.load (i32.const 0))
            (i64.load (i32.const 8))
            (call $time (i32.const 0))
            (call $time (i32.const 1))
            (i64.reinterpret_f64 (f64.div (local.get $zero) (local.get $zero)))
            (memory.grow (i32.const 2))
            (memory.grow (i32.const 1))))"#;
    let run = |input: &str| {
        Task::text(wat).entry("f").set("ARGS_JSON", "[-0.0]").input(input).run().document
    };
    let first = run("one input");
    for _ in 0..20 {
        assert_eq!(run("one input"), first);
    }
    let value: serde_json::Value = serde_json::from_str(&first).unwrap();
    let value = value["value"].as_array().unwrap();
    // Clocks start at 0 and advance by a microsecond for each reading; NaN is the canonical one.
    assert_eq!(
        value[2..].to_vec(),
        serde_json::json!([1000, 2000, 0x7ff8_0000_0000_0000_i64, 1, -1])
            .as_array()
            .unwrap()
            .clone()
    );
    assert_ne!(run("another input"), first);
}

#[test]
fn a_guest_sees_no_environment_no_files_and_one_argument() {
    let wat = r#"(module
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 64) "/etc/passwd")
        (func (export "f") (result i32 i32 i32 i32 i32 i32)
            (drop (call $environ (i32.const 0) (i32.const 4)))
            (drop (call $args (i32.const 8) (i32.const 12)))
            (i32.load (i32.const 0))
            (i32.load (i32.const 4))
            (i32.load (i32.const 8))
            (i32.load (i32.const 12))
            (call $prestat (i32.const 3) (i32.const 16))
            (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 11) (i32.const 0)
                (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 32))))"#;
    // One argument of twelve bytes ("module.wasm"); descriptor 3 does not exist (errno 8).
    let ran = Task::text(wat).entry("f").set("SECRET", "nobody sees it").run();
    ran.is(r#"{"status":"ok","value":[0,0,1,12,8,8]}"#);
}

#[test]
fn relaxed_simd_gives_the_same_bits_everywhere() {
    let wat = r#"(module (func (export "f") (result v128)
        (i8x16.relaxed_swizzle
            (v128.const i8x16 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
            (v128.const i8x16 15 14 16 17 127 -1 -128 0 1 2 3 4 5 6 7 8))))"#;
    let ran = Task::text(wat).entry("f").run();
    ran.is(r#"{"status":"ok","value":"0x08070605040302010000000000000e0f"}"#);
}

#[test]
fn a_reactor_is_initialized_before_its_entry() {
    let wat = r#"(module (global $g (mut i32) (i32.const 0))
        (func (export "_initialize") (global.set $g (i32.const 5)))
        (func (export "f") (result i32) (global.get $g)))"#;
    Task::text(wat).entry("f").run().is(r#"{"status":"ok","value":5}"#);
}
