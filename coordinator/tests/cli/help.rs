use crate::{coordinator, folder, text};

const COMMANDS: [&str; 13] = [
    "serve", "demo", "deploy", "submit", "run", "status", "result", "verify", "cancel", "withdraw",
    "cid", "watch", "chain",
];

#[test]
fn help_goes_to_stdout_and_shows_every_command_with_examples() {
    let folder = folder();
    let output = coordinator(folder.path()).arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let help = text(&output.stdout);
    for command in COMMANDS {
        assert!(help.contains(command), "{command}");
        let output = coordinator(folder.path()).args([command, "--help"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(text(&output.stdout).contains("Example"), "{command}");
        // The short help leaves the settings out.
        let output = coordinator(folder.path()).args([command, "-h"]).output().unwrap();
        assert!(!text(&output.stdout).contains("--ipfs-mirror"), "{command}");
    }
}

#[test]
fn no_help_shows_a_secret_of_the_environment() {
    let folder = folder();
    let secret = "c0ffee00".repeat(8);
    for word in ["--help", "-h"] {
        let output =
            coordinator(folder.path()).env("COORDINATOR_KEY", &secret).arg(word).output().unwrap();
        assert!(!text(&output.stdout).contains(&secret));
    }
}

#[test]
fn a_command_line_that_cannot_be_read_ends_with_2() {
    let folder = folder();
    for words in [
        &["dance"][..],
        &["submit"],
        &["status", "1", "--no-such-flag"],
        &["run", "x.wasm", "--args", "[1]", "--input", "y"],
        &["cid", "x", "--cid-version", "2"],
        &["submit", "x", "--timeout", "30"],
        &["serve", "--key", "00"],
    ] {
        let output = coordinator(folder.path()).args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}
