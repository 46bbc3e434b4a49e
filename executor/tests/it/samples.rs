//! The committed sample modules.

use std::fs;
use std::path::PathBuf;

use crate::task::Task;

fn sample(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../host/wasm");
    fs::read(folder.join(name)).unwrap()
}

#[test]
fn the_samples_give_what_the_table_says() {
    let with_input =
        |module: &str, input: &str| Task::of(&sample(module)).input(sample(input)).run();
    with_input("fib.wasm", "fib-input.json").is(r#"{"status":"ok","value":144}"#);
    with_input("affine.wasm", "affine-input.json").is(r#"{"status":"ok","value":119}"#);
    let add = Task::of(&sample("module.wasm")).set("ADD_X", "2").set("ADD_Y", "3").run();
    add.is(r#"{"status":"ok","value":5}"#);
    let trap = Task::of(&sample("trap.wasm")).entry("trap").run();
    trap.is(r#"{"status":"failed","code":"trap","trap":"unreachable"}"#);
    let endless = Task::of(&sample("loop.wasm")).entry("loop").set("TIMEOUT_SEC", "0.2").run();
    endless.is(r#"{"status":"timed_out"}"#);
    let count = Task::of(&sample("wordcount.wasm")).input("one two\nthree\n").run();
    count.is(r#"{"status":"ok","value":{"lines":2,"words":3,"bytes":14}}"#);
    let nothing = Task::of(&sample("wordcount.wasm")).input("").run();
    nothing.is(r#"{"status":"ok","value":{"lines":0,"words":0,"bytes":0}}"#);
}

#[test]
fn the_input_files_hold_exactly_these_bytes() {
    assert_eq!(sample("fib-input.json"), br#"{"entry":"fib","args":[12]}"#);
    assert_eq!(sample("affine-input.json"), br#"{"entry":"affine","args":[13,9,2]}"#);
}

#[test]
fn the_assembled_samples_are_what_their_sources_give() {
    for name in ["fib", "affine", "module", "trap", "loop"] {
        let source = sample(&format!("src/{name}.wat"));
        let built = wat::parse_bytes(&source).unwrap();
        assert_eq!(built.as_ref(), sample(&format!("{name}.wasm")), "{name}");
    }
}
