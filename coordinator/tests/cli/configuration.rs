use std::path::Path;

use coordinator::config::{Config, LogFormat, Needs, Problems, Raw, check};

use crate::{coordinator, folder, text};

/// What three places give.
fn load(
    flags: &[(&str, &str)],
    environment: &[(&str, &str)],
    needs: Needs,
) -> Result<Config, Problems> {
    let flags = flags.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let environment = environment.iter().map(|(name, text)| ((*name).into(), (*text).into()));
    let mut problems = Vec::new();
    let raw = Raw::collect(flags, environment, &mut problems);
    check(&raw, needs, problems)
}

fn write(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

const ONE: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const OTHER: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

#[test]
fn every_default_can_be_used() {
    let config = load(&[], &[], Needs::default()).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8480");
    assert_eq!(config.content.mirror, Path::new("./host/wasm"));
    assert_eq!(config.database, Path::new("./data/coordinator.sqlite"));
    assert_eq!(config.work.defaults.timeout_ms, 30_000);
    assert_eq!(config.work.quota, 1000);
    assert!(config.chain.endpoints.is_empty());
    assert!(load(&[], &[], Needs { serves: true, ..Needs::default() }).is_ok());
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file_and_that_over_the_default() {
    let folder = folder();
    let file = write(
        folder.path(),
        "coordinator.toml",
        "concurrency = 3\nquota = 3\nretries = 3\nlog_format = \"json\"\ndomains = [1, 2]\n",
    );
    let environment = [
        ("COORDINATOR_CONFIG", file.as_str()),
        ("COORDINATOR_CONCURRENCY", "2"),
        ("COORDINATOR_QUOTA", "2"),
        ("PATH", "/bin"),
    ];
    let config = load(&[("concurrency", "1")], &environment, Needs::default()).unwrap();
    assert_eq!(config.work.concurrency, 1);
    assert_eq!(config.work.quota, 2);
    assert_eq!(config.work.retries, 3);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.chain.domains, [1, 2].into());
    // An empty text takes the default back.
    let config = load(&[("quota", "")], &environment, Needs::default()).unwrap();
    assert_eq!(config.work.quota, 1000);
}

#[test]
fn all_problems_are_told_together_each_with_name_value_and_what_is_allowed() {
    let folder = folder();
    let file =
        write(folder.path(), "c.toml", "lisen = \"x\"\ncache_bytes = \"1GB\"\nkey = \"00\"\n");
    let environment = [
        ("COORDINATOR_CONCURENCY", "2"),
        ("COORDINATOR_RUNTIME", "docker"),
        ("COORDINATOR_IPFS_ENDPOINT", "http://ok/ipfs, ftp://bad"),
        ("COORDINATOR_KEY", "not-a-key"),
        ("COORDINATOR_RPC_URL", "gopher://host/secret-token"),
    ];
    let flags = [("config", file.as_str()), ("poll_interval", "5")];
    let needs = Needs { serves: true, ..Needs::default() };
    let problems = load(&flags, &environment, needs).unwrap_err();
    let told = problems.to_string();
    for words in [
        "COORDINATOR_CONCURENCY",
        "did you mean COORDINATOR_CONCURRENCY?",
        "COORDINATOR_RUNTIME is \"docker\"",
        "runtime_not_built",
        "COORDINATOR_IPFS_ENDPOINT is \"ftp://bad\"",
        "did you mean listen?",
        "cache_bytes in ",
        "\"1GB\"",
        "key in ",
        "this setting is not read from a file",
        "--poll-interval is \"5\"",
        "COORDINATOR_KEY is \"(not shown)\"",
        "COORDINATOR_RPC_URL is \"(not shown)\"",
    ] {
        assert!(told.contains(words), "{words} is not in:\n{told}");
    }
    assert!(!told.contains("not-a-key") && !told.contains("secret-token"), "{told}");
    assert_eq!(problems.0.len(), 9, "{told}");
}

#[test]
fn beyond_loopback_tokens_are_needed() {
    let folder = folder();
    let tokens = write(folder.path(), "tokens", "a-token-of-some-length\n\nanother-one-of-these\n");
    let short = write(folder.path(), "short", "short\n");
    let needs = Needs { serves: true, ..Needs::default() };
    let listen = ("COORDINATOR_LISTEN", "0.0.0.0:8480");
    let problems = load(&[], &[listen], needs).unwrap_err().to_string();
    assert!(problems.contains("COORDINATOR_API_TOKEN_FILE"), "{problems}");
    let config = load(&[], &[listen, ("COORDINATOR_API_TOKEN_FILE", &tokens)], needs).unwrap();
    assert_eq!(config.server.tokens.len(), 2);
    assert!(!format!("{config:?}").contains("a-token"));
    assert!(load(&[], &[("COORDINATOR_API_TOKEN_FILE", &short)], needs).is_err());
    // Who only asks others is not held up by it.
    assert!(load(&[], &[listen], Needs::default()).is_ok());
}

#[test]
fn a_key_comes_from_variable_or_file_and_the_clients_is_not_the_publishers() {
    let folder = folder();
    let file = write(folder.path(), "key", &format!("{OTHER}\n"));
    let needs = Needs { client_key: true, ..Needs::default() };
    let config =
        load(&[], &[("COORDINATOR_KEY", ONE), ("COORDINATOR_CLIENT_KEY_FILE", &file)], needs)
            .unwrap();
    assert!(config.chain.key.is_some() && config.chain.client_key.is_some());
    let shown = format!("{config:?}");
    assert!(!shown.contains(&ONE[..16]) && !shown.contains(&OTHER[2..18]), "{shown}");

    let same = [("COORDINATOR_KEY", &OTHER[2..]), ("COORDINATOR_CLIENT_KEY_FILE", file.as_str())];
    for needs in [needs, Needs { serves: true, ..Needs::default() }] {
        let problems = load(&[], &same, needs).unwrap_err().to_string();
        assert!(problems.contains("a key that is not the publisher's"), "{problems}");
    }
    let both = [("COORDINATOR_CLIENT_KEY", OTHER), ("COORDINATOR_CLIENT_KEY_FILE", file.as_str())];
    assert!(load(&[], &both, needs).is_err());
    let problems = load(&[], &[], needs).unwrap_err().to_string();
    assert!(problems.contains("COORDINATOR_CLIENT_KEY"), "{problems}");
    // A command that signs nothing reads no key.
    assert!(load(&[], &[("COORDINATOR_KEY_FILE", "/none")], Needs::default()).is_ok());
}

#[test]
fn what_a_command_needs_is_told_before_anything_is_done() {
    let folder = folder();
    let output = coordinator(folder.path()).args(["verify", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(
        told.contains("COORDINATOR_RPC_URL") && told.contains("COORDINATOR_CONTRACT"),
        "{told}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn the_start_is_stopped_by_unknown_variables_also_as_json() {
    let folder = folder();
    let output = coordinator(folder.path())
        .env("COORDINATOR_LISTN", "127.0.0.1:0")
        .args(["serve", "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], "configuration");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("COORDINATOR_LISTN") && message.contains("COORDINATOR_LISTEN"));
    assert!(!folder.path().join("data").exists(), "something was made before the check");
}

#[test]
fn a_default_above_its_maximum_is_a_problem() {
    let told = load(&[("max_timeout", "10s")], &[], Needs::default()).unwrap_err().to_string();
    assert!(told.contains("COORDINATOR_DEFAULT_TIMEOUT is \"30s\""), "{told}");
}
