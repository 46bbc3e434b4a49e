//! Guests that never end.

use crate::task::Task;

const LOOP: &str = "(loop $again (br $again))";

const TIMED_OUT: &str = r#"{"status":"timed_out"}"#;

/// The three places where a guest can loop; `f` is the entry.
fn loops() -> [(&'static str, String); 3] {
    [
        ("an export", format!(r#"(module (func (export "f") {LOOP}))"#)),
        ("start", format!(r#"(module (start $s) (func $s {LOOP}) (func (export "f")))"#)),
        (
            "_initialize",
            format!(r#"(module (func (export "_initialize") {LOOP}) (func (export "f")))"#),
        ),
    ]
}

/// A command that sleeps through `poll_oneoff` for one hour, relative or absolute, and then says so.
fn sleeper(flags: u32) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "poll_oneoff"
                (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "f") (result i32)
                (i32.store (i32.const 16) (i32.const 1))
                (i64.store (i32.const 24) (i64.const 3600000000000))
                (i32.store16 (i32.const 40) (i32.const {flags}))
                (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))))"#
    )
}

#[test]
fn w01_a_loop_anywhere_ends_at_the_time_limit() {
    for (place, wat) in loops() {
        let ran = Task::text(&wat)
            .entry("f")
            .set("TIMEOUT_SEC", "0.3")
            .set("FUEL", "18446744073709551615")
            .run();
        assert_eq!(ran.document, TIMED_OUT, "in {place}");
        ran.within(0.3 + 2.0);
    }
}

#[test]
fn w01_a_loop_anywhere_ends_at_the_fuel_limit_the_same_on_every_run() {
    for (place, wat) in loops() {
        let fuel: Vec<_> = (0..3)
            .map(|_| {
                let ran = Task::text(&wat).entry("f").set("FUEL", "1000000").run();
                assert_eq!(
                    ran.document, r#"{"status":"failed","code":"out_of_fuel"}"#,
                    "in {place}"
                );
                ran.report.record.unwrap().fuel_used
            })
            .collect();
        assert!(fuel.iter().all(|used| *used == fuel[0]), "in {place}: {fuel:?}");
    }
}

#[test]
fn w01_a_sleep_of_an_hour_ends_at_the_time_limit() {
    for flags in [0, 1] {
        let ran = Task::text(&sleeper(flags)).entry("f").set("TIMEOUT_SEC", "0.3").run();
        ran.is(TIMED_OUT).within(0.3 + 2.0);
        assert!(ran.took.as_secs_f64() >= 0.3, "it really slept: {:?}", ran.took);
    }
}

#[test]
fn w01_an_endless_start_of_a_command_times_out_too() {
    let wat = format!(r#"(module (func (export "_start") {LOOP}))"#);
    Task::text(&wat).set("TIMEOUT_SEC", "0.3").run().is(TIMED_OUT).within(2.3);
}

#[test]
fn a_short_sleep_ends_by_itself_and_moves_the_clock_by_what_was_slept() {
    let wat = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (func $now (result i64)
            (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 200)))
            (i64.load (i32.const 200)))
        (func (export "f") (result i64 i32 i32 i32)
            (local $before i64)
            (local.set $before (call $now))
            (i32.store (i32.const 16) (i32.const 1))
            (i64.store (i32.const 24) (i64.const 50000000))
            (i32.const 0)
            (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))
            (i32.add)
            (i64.sub (call $now) (local.get $before))
            (i32.load (i32.const 128))
            (i32.load8_u (i32.const 74))
            (call $order))
        (func $order (param i32 i64 i32 i32) (result i64 i32 i32 i32)
            local.get 1 local.get 0 local.get 2 local.get 3))"#;
    let ran = Task::text(wat).entry("f").run();
    // 50 ms and one reading; no error; one event, of a clock.
    ran.is(r#"{"status":"ok","value":[50001000,0,1,0]}"#);
    assert!(ran.took.as_millis() >= 50);
}
