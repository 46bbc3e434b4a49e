//! Guests that write.

use crate::task::Task;

/// A module whose export writes `count` times 4,096 bytes `byte` to a stream.
fn writer(export: &str, fd: u32, byte: u8, count: u64) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 2)
            (func (export "{export}")
                (local $left i64)
                (local.set $left (i64.const {count}))
                (memory.fill (i32.const 65536) (i32.const {byte}) (i32.const 4096))
                (i32.store (i32.const 0) (i32.const 65536))
                (i32.store (i32.const 4) (i32.const 4096))
                (loop $again
                    (drop (call $write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8)))
                    (local.set $left (i64.sub (local.get $left) (i64.const 1)))
                    (br_if $again (i64.ne (local.get $left) (i64.const 0))))))"#
    )
}

/// Chunks of a gibibyte.
const GIBIBYTE: u64 = 1 << 18;

#[test]
fn w05_a_gibibyte_to_stderr_is_cut_and_flagged() {
    for (export, fd) in [("_start", 2), ("f", 1), ("f", 2)] {
        let ran = Task::text(&writer(export, fd, b'x', GIBIBYTE))
            .entry(export)
            .set("OUTPUT_BYTES", "100000")
            .run();
        ran.failed("output_too_large").within(10.0);
        let stream = if fd == 1 { "stdout" } else { "stderr" };
        assert_eq!(ran.logged(stream).len(), 100_000);
        assert_eq!(ran.log.last().unwrap()["truncated"], true);
    }
}

#[test]
fn w05_a_gibibyte_from_a_command_is_a_result_too_large() {
    let ran = Task::text(&writer("_start", 1, b'x', GIBIBYTE)).run();
    ran.failed("result_too_large").within(10.0);
    let record = ran.report.record.as_ref().unwrap();
    assert_eq!(record.stdout_bytes, (1 << 20) + 4096);
    // It failed, so what it said is logged after all, up to the limit.
    assert_eq!(ran.logged("stdout").len(), 1 << 20);
}

#[test]
fn w05_five_mebibytes_of_result_are_too_large_and_not_cut() {
    Task::text(&writer("_start", 1, b'7', 5 << 8)).run().failed("result_too_large");
}

#[test]
fn a_result_of_nearly_a_mebibyte_arrives_whole() {
    let ran = Task::text(&writer("_start", 1, b'7', 255)).run();
    assert_eq!(ran.document.len(), r#"{"status":"ok","value":}"#.len() + 255 * 4096);
    // It stands in no report: it does not fit.
    assert_eq!(ran.report.document, None);
}

#[test]
fn text_that_grows_by_escaping_is_measured_as_it_is_written() {
    // 800,000 bytes of control characters are six times as long in JSON.
    Task::text(&writer("_start", 1, 1, 200)).run().failed("result_too_large");
}

#[test]
fn no_guest_can_write_a_line_that_reads_as_a_result() {
    let wat = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\1c\00\00\00")
        (data (i32.const 16) "\n{\"status\":\"ok\",\"value\":1}\n\n")
        (func (export "f") (result i32)
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
            (i32.const 2)))"#;
    let ran = Task::text(wat).entry("f").run();
    ran.is(r#"{"status":"ok","value":2}"#);
    assert_eq!(ran.logged("stdout"), "\n{\"status\":\"ok\",\"value\":1}\n\n");
    assert!(ran.log.iter().all(|line| line.get("status").is_none()));
}

#[test]
fn a_failed_commands_output_is_in_the_log() {
    let wat = writer("_start", 1, b'x', 1).replace("(br_if $again", "unreachable (br_if $again");
    let ran = Task::text(&wat).run();
    ran.is(r#"{"status":"failed","code":"trap","trap":"unreachable"}"#);
    assert_eq!(ran.logged("stdout").len(), 4096);
}
