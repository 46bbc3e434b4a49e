//! Which tasks are submitted, and what must come of each.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use alloy::primitives::U256;
use harness::{
    Dice,
    scene::{Fault, Scene},
};
use ipfs::CidVersion;
use task_board::{Submission, TaskId};

/// How long content that cannot be had is waited for: the deadline of such a task, in seconds from now.
const GIVEN_UP_AFTER_S: u64 = 8;

/// What must stand on chain in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// One result, with this document.
    Document(String),
    /// None; the coordinator has recorded a rejection with one of these codes.
    Recorded(&'static [&'static str]),
    /// It was cancelled: none or one, and if there is one, this document.
    AtMost(String),
}

/// A task to be submitted.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    /// What it is, for people.
    pub(crate) what: &'static str,
    pub(crate) submission: Submission,
    /// Whether it is cancelled right after.
    pub(crate) cancels: bool,
    pub(crate) expected: Expected,
}

impl Planned {
    /// Whether a result must stand on chain.
    pub(crate) fn is_published(&self) -> bool {
        matches!(self.expected, Expected::Document(_))
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Fib,
    Paid,
    Affine,
    Add,
    Words,
    Trap,
    Endless,
    Large,
    Corrupt,
    Container,
    PaidContainer,
    Cancelled,
    PaidCancelled,
}

/// One of each first, then as they fall: most are quick, a tenth takes its second.
const EACH: [Kind; 13] = [
    Kind::Fib,
    Kind::Paid,
    Kind::Corrupt,
    Kind::Large,
    Kind::Trap,
    Kind::Endless,
    Kind::Words,
    Kind::Affine,
    Kind::Add,
    Kind::PaidContainer,
    Kind::Cancelled,
    Kind::Container,
    Kind::PaidCancelled,
];
const USUAL: [Kind; 20] = [
    Kind::Fib,
    Kind::Fib,
    Kind::Fib,
    Kind::Fib,
    Kind::Fib,
    Kind::Affine,
    Kind::Affine,
    Kind::Add,
    Kind::Add,
    Kind::Words,
    Kind::Words,
    Kind::Paid,
    Kind::Paid,
    Kind::Large,
    Kind::Large,
    Kind::Trap,
    Kind::Endless,
    Kind::Endless,
    Kind::Cancelled,
    Kind::PaidContainer,
];

/// The blocks that tasks put into the mirror: long documents, and what is there with other bytes.
pub(crate) fn blocks(tasks: &[(TaskId, &Planned)]) -> BTreeSet<String> {
    tasks
        .iter()
        .filter_map(|(_, planned)| match &planned.expected {
            Expected::Document(document) => Some(ipfs::raw_cid(document.as_bytes()).to_string()),
            _ => planned
                .submission
                .module
                .as_deref()
                .and_then(|cid| Some(ipfs::Cid::from_bytes(cid).ok()?.to_string())),
        })
        .collect()
}

/// The tasks of a run, in the order they are submitted.
pub(crate) fn plan(scene: &Scene, tasks: usize, dice: &mut Dice) -> Result<Vec<Planned>, Fault> {
    let mut kinds: Vec<_> = EACH.into_iter().take(tasks).collect();
    while kinds.len() < tasks {
        kinds.push(dice.one_of(&USUAL));
    }
    dice.shuffle(&mut kinds);
    // Its deadline counts from now, so it comes first.
    kinds.sort_by_key(|kind| !matches!(kind, Kind::Corrupt));
    kinds.into_iter().map(|kind| planned(scene, kind, dice)).collect()
}

fn planned(scene: &Scene, kind: Kind, dice: &mut Dice) -> Result<Planned, Fault> {
    let ok = |value: String| format!(r#"{{"status":"ok","value":{value}}}"#);
    let plain = |what, submission, document| Planned {
        what,
        submission,
        cancels: false,
        expected: Expected::Document(document),
    };
    let fib = |dice: &mut Dice| -> Result<_, Fault> {
        let n = dice.below(90);
        let input = format!(r#"{{"entry":"fib","args":[{n}]}}"#);
        Ok((scene.wasm("fib.wasm", Some(input.as_bytes()))?, ok(fibonacci(n).to_string())))
    };
    let fee = |dice: &mut Dice| U256::from(1 + dice.below(1_000_000));
    Ok(match kind {
        Kind::Fib => {
            let (submission, document) = fib(dice)?;
            plain("fib", submission, document)
        }
        Kind::Paid => {
            let (submission, document) = fib(dice)?;
            plain("fib with a fee", Submission { fee: fee(dice), ..submission }, document)
        }
        Kind::Affine => {
            let [a, b, c] = [(); 3].map(|()| dice.below(1000));
            let input = format!(r#"{{"entry":"affine","args":[{a},{b},{c}]}}"#);
            let submission = scene.wasm("affine.wasm", Some(input.as_bytes()))?;
            plain("affine", submission, ok((a * b + c).to_string()))
        }
        Kind::Add => {
            let [x, y] = [(); 2].map(|()| dice.below(1 << 40));
            let submission =
                scene.wasm("module.wasm", Some(format!(r#"{{"args":[{x},{y}]}}"#).as_bytes()))?;
            let submission = Submission { entry: Some("add".to_owned()), ..submission };
            plain("add", submission, ok((x + y).to_string()))
        }
        Kind::Words => {
            let (lines, words) = (1 + dice.below(20), 1 + dice.below(9));
            let line = vec!["word"; usize::try_from(words)?].join(" ") + "\n";
            let text = line.repeat(usize::try_from(lines)?);
            let submission = scene.wasm("wordcount.wasm", Some(text.as_bytes()))?;
            let words = lines * words;
            let value = format!(r#"{{"lines":{lines},"words":{words},"bytes":{}}}"#, text.len());
            plain("wordcount", submission, ok(value))
        }
        Kind::Trap => {
            let submission = entry(scene.wasm("trap.wasm", None)?, "trap");
            let document = r#"{"status":"failed","code":"trap","trap":"unreachable"}"#;
            plain("trap", submission, document.to_owned())
        }
        Kind::Endless => {
            let submission = entry(scene.wasm("loop.wasm", None)?, "loop");
            let submission = Submission { timeout_s: 1, ..submission };
            plain("endless", submission, r#"{"status":"timed_out"}"#.to_owned())
        }
        Kind::Large => {
            let text = format!("x{:07x}", dice.below(1 << 28)).repeat(64);
            let name = format!("large-{}.wasm", &text[..8]);
            let module = scene.add(&name, &printing(&text)?)?;
            let submission =
                Submission { kind: 1, module: Some(module.to_bytes()), ..Submission::default() };
            plain("large result", submission, ok(format!(r#"{{"text":"{text}"}}"#)))
        }
        Kind::Corrupt => {
            let cid = ipfs::cid_of_bytes(&dice.number().to_be_bytes(), CidVersion::V1);
            let blocks = scene.mirror().join("blocks");
            std::fs::create_dir_all(&blocks)?;
            std::fs::write(blocks.join(cid.to_string()), "other bytes")?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            Planned {
                what: "corrupt content",
                submission: Submission {
                    kind: 1,
                    module: Some(cid.to_bytes()),
                    deadline: now + GIVEN_UP_AFTER_S,
                    ..Submission::default()
                },
                cancels: false,
                expected: Expected::Recorded(&["content_unavailable", "deadline_passed"]),
            }
        }
        Kind::Container => Planned {
            what: "container",
            submission: Submission { kind: 2, ..scene.wasm("fib.wasm", None)? },
            cancels: false,
            expected: Expected::Recorded(&["unsupported_kind"]),
        },
        Kind::PaidContainer => {
            let submission =
                Submission { kind: 2, fee: fee(dice), ..scene.wasm("fib.wasm", None)? };
            let document = r#"{"status":"rejected","code":"unsupported_kind"}"#;
            plain("container with a fee", submission, document.to_owned())
        }
        Kind::Cancelled | Kind::PaidCancelled => {
            let (mut submission, document) = fib(dice)?;
            let paid = matches!(kind, Kind::PaidCancelled);
            if paid {
                submission.fee = fee(dice);
            }
            Planned {
                what: if paid { "cancelled, with a fee" } else { "cancelled" },
                submission,
                cancels: true,
                expected: Expected::AtMost(document),
            }
        }
    })
}

fn entry(submission: Submission, name: &str) -> Submission {
    Submission { entry: Some(name.to_owned()), ..submission }
}

fn fibonacci(n: u64) -> u64 {
    (0..n).fold((0_u64, 1_u64), |(a, b), _| (b, a.wrapping_add(b))).0
}

/// A WASI command that prints a text.
fn printing(text: &str) -> Result<Vec<u8>, Fault> {
    let length: String =
        u32::try_from(text.len())?.to_le_bytes().map(|byte| format!("\\{byte:02x}")).concat();
    let source = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00{length}")
            (data (i32.const 16) "{text}")
            (func (export "_start")
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    );
    Ok(wat::parse_str(source)?)
}
