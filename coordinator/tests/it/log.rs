//! Names and texts that guests and gateways choose make no lines of the log.

use serde_json::Value;
use task_board::Submission;

use crate::stage::{answers, reaches, result, stage, stop};

const FORGED: &str = "2026-01-01T00:00:00.000000Z ERROR forged: the key is lost";

/// A guest that traps in a function whose name has line breaks in it.
fn traps() -> Vec<u8> {
    let name = format!("a\\n{FORGED}\\r\\n\\u{{2028}}\\u{{202e}}\\\",\\\"message\\\":\\\"forged");
    let module = format!(
        r#"(module (func $"{name}" (unreachable)) (func (export "trap") (call $"{name}")))"#
    );
    wat::parse_str(module).unwrap()
}

/// A module that exports one such name twice: it is refused with the name in the message.
fn doubled() -> Vec<u8> {
    let name = format!("e\n{FORGED}\n");
    let length = u8::try_from(name.len()).unwrap();
    let mut module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0".to_vec();
    module.extend([7, 2 * (length + 3) + 1, 2]);
    for _ in 0..2 {
        module.push(length);
        module.extend(name.as_bytes());
        module.extend([0, 0]);
    }
    module.extend(b"\x0a\x04\x01\x02\0\x0b");
    module
}

#[tokio::test]
async fn v4_names_that_a_guest_chooses_make_no_line_and_no_message() {
    for format in ["text", "json"] {
        let scene = stage().await;
        let variables =
            [("COORDINATOR_LOG_FORMAT", format), ("COORDINATOR_LOG", "info,coordinator=debug")];
        let daemon = scene.coordinator_with(&variables).unwrap();
        let trap = scene.add("traps.wasm", &traps()).unwrap();
        let trap = Submission {
            kind: 1,
            module: Some(trap.to_bytes()),
            entry: Some("trap".to_owned()),
            ..Submission::default()
        };
        let module = scene.add("doubled.wasm", &doubled()).unwrap();
        let doubled =
            Submission { kind: 1, module: Some(module.to_bytes()), ..Submission::default() };
        let ids = scene.submit(&[trap, doubled]).await.unwrap();
        answers(&scene, ids[0], r#"{"status":"failed","code":"trap","trap":"unreachable"}"#).await;
        result(&scene, ids[1]).await;
        let task = reaches(&scene, ids[1], "final").await;
        assert_eq!(task["outcome"]["code"], "invalid_module", "{task}");
        stop(daemon).await;
        let log = std::fs::read(scene.folder().join("coordinator.log")).unwrap();
        let log = String::from_utf8(log).unwrap();
        assert!(log.contains("forged"), "the names are in the log: as values");
        for line in log.lines() {
            assert!(!line.contains(['\r', '\u{2028}', '\u{202e}', '\u{1b}']), "{line:?}");
            if format == "json" {
                let value: Value = serde_json::from_str(line).unwrap();
                assert!(!value["message"].as_str().unwrap().contains("forged"), "{line}");
                assert_ne!(value["level"], "ERROR", "{line}");
                assert_eq!(line.matches("\"message\":").count(), 1, "{line}");
            } else {
                let (at, rest) = line.split_once(' ').unwrap();
                assert!(at.ends_with('Z') && at.len() == 27, "{line:?}");
                assert!(!rest.trim_start().starts_with("ERROR"), "{line:?}");
                assert_ne!(line, FORGED);
            }
        }
    }
}
