//! Assembles WebAssembly text: `assemble IN.wat OUT.wasm`. It makes the sample modules in `host/wasm`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [source, target] = paths.as_slice() else {
        eprintln!("usage: assemble IN.wat OUT.wasm");
        return ExitCode::from(2);
    };
    let written = wat::parse_file(source)
        .map_err(|error| error.to_string())
        .and_then(|module| std::fs::write(target, module).map_err(|error| error.to_string()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("assemble: {source}: {error}");
            ExitCode::FAILURE
        }
    }
}
