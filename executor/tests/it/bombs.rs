//! Guests that want everything.

use crate::task::Task;

#[test]
fn w02_growing_memory_without_end_is_a_memory_limit() {
    let wat = r#"(module (memory 1) (func (export "f")
        (loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))))"#;
    let ran = Task::text(wat).entry("f").set("MEMORY_MIB", "64").run();
    ran.failed("memory_limit").within(10.0);
    assert_eq!(ran.report.record.unwrap().peak_memory_bytes, (64 << 20) - (15 << 16));
}

#[test]
fn w02_touching_all_memory_that_is_allowed_is_fine() {
    let wat = r#"(module (memory 1024) (func (export "f")
        (memory.fill (i32.const 0) (i32.const 7) (i32.const 0x4000000))))"#;
    let ran = Task::text(wat).entry("f").set("MEMORY_MIB", "64").run();
    ran.is(r#"{"status":"ok","value":null}"#);
    assert_eq!(ran.report.record.unwrap().peak_memory_bytes, 64 << 20);
}

#[test]
fn w02_a_minimum_of_65536_pages_is_a_memory_limit() {
    let wat = r#"(module (memory 65536) (func (export "f")))"#;
    Task::text(wat).entry("f").run().failed("memory_limit").within(5.0);
}

#[test]
fn w02_a_table_of_all_elements_is_a_memory_limit() {
    let wat = r#"(module (table 4294967295 funcref) (func (export "f")))"#;
    Task::text(wat).entry("f").run().failed("memory_limit").within(5.0);
}

#[test]
fn w02_many_tables_count_together() {
    let table = "(table 60000 funcref)";
    let wat = format!(r#"(module {table} {table} (func (export "f")))"#);
    Task::text(&wat).entry("f").run().failed("memory_limit");
    let wat = format!(r#"(module {table} (func (export "f")))"#);
    Task::text(&wat).entry("f").run().is(r#"{"status":"ok","value":null}"#);
}

#[test]
fn w02_growing_a_table_without_end_is_a_memory_limit() {
    let wat = r#"(module (table 1 funcref) (func (export "f")
        (loop $again (br_if $again (i32.ne (table.grow (ref.null func) (i32.const 1000)) (i32.const -1))))))"#;
    Task::text(wat).entry("f").run().failed("memory_limit");
}

#[test]
fn w02_memory64_is_not_run() {
    for wat in [
        r#"(module (table i64 1 funcref) (func (export "f")))"#,
        r#"(module (memory i64 1) (func (export "f")))"#,
        r#"(module (table i64 0xffffffffffffffff funcref) (func (export "f")))"#,
    ] {
        Task::text(wat).entry("f").run().failed("invalid_module");
    }
}

#[test]
fn w02_unbounded_recursion_is_a_stack_overflow() {
    let direct = r#"(module (func $f (export "f") (call $f)))"#;
    let indirect = r#"(module (table 1 funcref) (elem (i32.const 0) $f) (func $f (export "f")
        (call_indirect (i32.const 0))))"#;
    let wide = r#"(module (func $f (export "f") (param i64 i64 i64 i64) (result i64)
        (i64.add (local.get 3) (call $f (local.get 0) (local.get 1) (local.get 2)
            (i64.add (local.get 3) (i64.const 1))))))"#;
    for stack_bytes in ["65536", "1048576", "67108864"] {
        for (wat, args) in [(direct, "[]"), (indirect, "[]"), (wide, "[1,2,3,4]")] {
            let task = Task::text(wat).entry("f").set("ARGS_JSON", args);
            task.set("STACK_BYTES", stack_bytes).run().failed("stack_overflow");
        }
    }
}

#[test]
fn a_tail_call_needs_no_stack() {
    let wat = r#"(module (func $f (export "f") (param i64) (result i64)
        (if (result i64) (i64.eqz (local.get 0))
            (then (i64.const 7))
            (else (return_call $f (i64.sub (local.get 0) (i64.const 1)))))))"#;
    let ran = Task::text(wat).entry("f").set("ARGS_JSON", "[1000000]").run();
    ran.is(r#"{"status":"ok","value":7}"#);
}

#[test]
fn a_large_random_request_is_answered_within_the_guests_own_memory() {
    let wat = r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "f") (result i32 i32)
            (call $random (i32.const 0) (i32.const -1))
            (call $random (i32.const 0) (i32.const 65536))))"#;
    // Out of reach: the WASI errno 21 (fault); all of it: fine.
    Task::text(wat).entry("f").run().is(r#"{"status":"ok","value":[21,0]}"#);
}

#[test]
fn random_bytes_cost_fuel() {
    let wat = r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (memory (export "memory") 1024)
        (func (export "f")
            (loop $again (drop (call $random (i32.const 0) (i32.const 0x4000000))) (br $again))))"#;
    let ran = Task::text(wat).entry("f").set("FUEL", "1000000").run();
    ran.failed("out_of_fuel").within(5.0);
    let endless = Task::text(wat).entry("f").set("TIMEOUT_SEC", "0.2");
    endless.set("FUEL", "18446744073709551615").run().is(r#"{"status":"timed_out"}"#).within(2.2);
}

#[test]
fn references_in_tables_need_nothing_of_the_host() {
    let wat = r#"(module (table 10 externref) (global (mut externref) (ref.null extern))
        (func (export "f") (result i32 i32)
            (table.set (i32.const 1) (ref.null extern))
            (ref.is_null (table.get (i32.const 1)))
            (table.grow (ref.null extern) (i32.const 5))))"#;
    Task::text(wat).entry("f").run().is(r#"{"status":"ok","value":[1,10]}"#);
}

#[test]
fn the_names_in_a_module_do_not_flood_the_report() {
    let name = "n".repeat(90_000);
    let wat =
        format!(r#"(module (func ${name} (export "f") unreachable) (func (export "{name}")))"#);
    let ran = Task::text(&wat).entry("f").run();
    assert!(ran.report.record.unwrap().message.unwrap().chars().count() <= 2_001);
    let wat = format!(r#"(module (import "{name}" "{name}" (func)))"#);
    let ran = Task::text(&wat).entry("f").run();
    assert!(ran.report.record.unwrap().message.unwrap().chars().count() <= 2_001);
}
