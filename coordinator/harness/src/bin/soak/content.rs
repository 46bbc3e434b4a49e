//! What tasks are made of, and what the answer to each must be: told from the bytes that a submission names, not from
//! what somebody meant to submit.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use alloy::primitives::U256;
use harness::{
    Dice,
    scene::{Fault, Scene},
};
use ipfs::CidVersion;
use serde_json::Value;
use task_board::{Submission, Submitted};

/// How long content that nobody has is waited for, in seconds.
const GIVEN_UP_AFTER_S: u64 = 20;
/// How many different inputs a module has.
const INPUTS: u64 = 400;

/// What a module does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Module {
    Fib,
    Affine,
    Add,
    Words,
    Trap,
    Endless,
    Printing(String),
    /// Nobody has its bytes.
    Absent,
}

/// What must come of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// This document.
    Document(String),
    /// A rejection with one of these codes.
    Rejected(&'static [&'static str]),
}

/// Everything that tasks of this run can name.
#[derive(Debug, Default)]
pub(crate) struct Content {
    modules: BTreeMap<Vec<u8>, Module>,
    inputs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Submissions to choose from, by how often they are.
    usual: Vec<(u64, Vec<Submission>)>,
    absent: u64,
}

impl Content {
    /// Puts modules and inputs into the mirror.
    pub(crate) fn lay_out(scene: &Scene, dice: &mut Dice) -> Result<Self, Fault> {
        let mut content = Self { absent: dice.number(), ..Self::default() };
        let mut fib = Vec::new();
        for n in 0..90 {
            let input = format!(r#"{{"entry":"fib","args":[{n}]}}"#);
            fib.push(content.task(scene, "fib.wasm", Module::Fib, Some(&input))?);
        }
        let mut affine = Vec::new();
        let mut add = Vec::new();
        let mut words = Vec::new();
        for _ in 0..INPUTS {
            let [a, b, c] = [(); 3].map(|()| dice.below(100_000));
            let input = format!(r#"{{"entry":"affine","args":[{a},{b},{c}]}}"#);
            affine.push(content.task(scene, "affine.wasm", Module::Affine, Some(&input))?);
            let [x, y] = [(); 2].map(|()| dice.below(1 << 40));
            let input = format!(r#"{{"args":[{x},{y}]}}"#);
            let task = content.task(scene, "module.wasm", Module::Add, Some(&input))?;
            add.push(Submission { entry: Some("add".to_owned()), ..task });
        }
        for _ in 0..INPUTS / 10 {
            let (lines, count) = (dice.between(1, 20), dice.between(1, 9));
            let line = vec!["word"; usize::try_from(count)?].join(" ") + "\n";
            let text = line.repeat(usize::try_from(lines)?);
            words.push(content.task(scene, "wordcount.wasm", Module::Words, Some(&text))?);
        }
        let mut large = Vec::new();
        for _ in 0..10 {
            let text = format!("x{:07x}", dice.below(1 << 28)).repeat(64);
            let name = format!("large-{}.wasm", dice.number());
            scene.add(&name, &printing(&text)?)?;
            large.push(content.task(scene, &name, Module::Printing(text), None)?);
        }
        let trap = content.task(scene, "trap.wasm", Module::Trap, None)?;
        let endless = content.task(scene, "loop.wasm", Module::Endless, None)?;
        let named =
            |task: Submission, entry: &str| Submission { entry: Some(entry.to_owned()), ..task };
        let container = Submission { kind: 2, ..fib.first().cloned().unwrap_or_default() };
        content.usual = vec![
            (330, fib),
            (300, affine),
            (255, add),
            (60, words),
            (20, large),
            (20, vec![named(trap, "trap")]),
            (5, vec![Submission { timeout_s: 1, ..named(endless, "loop") }]),
            (10, vec![container]),
        ];
        Ok(content)
    }

    fn task(
        &mut self,
        scene: &Scene,
        name: &str,
        module: Module,
        input: Option<&str>,
    ) -> Result<Submission, Fault> {
        let submission = scene.wasm(name, input.map(str::as_bytes))?;
        self.modules.insert(submission.module.clone().unwrap_or_default(), module);
        if let (Some(cid), Some(input)) = (&submission.input, input) {
            self.inputs.insert(cid.clone(), input.as_bytes().to_vec());
        }
        Ok(submission)
    }

    /// Any task: one in six has a fee.
    pub(crate) fn any(&mut self, dice: &mut Dice) -> Result<Submission, Fault> {
        if dice.falls(3) {
            return self.absent();
        }
        let sum = self.usual.iter().map(|(weight, _)| weight).sum();
        let mut number = dice.below(sum);
        let mut submission = Submission::default();
        for (weight, choices) in &self.usual {
            if number < *weight {
                let index = usize::try_from(dice.below(choices.len() as u64))?;
                submission = choices.get(index).cloned().unwrap_or_default();
                break;
            }
            number -= weight;
        }
        if dice.falls(160) {
            submission.fee = U256::from(dice.between(1, 1_000_000));
        }
        Ok(submission)
    }

    /// A task whose module nobody has.
    fn absent(&mut self) -> Result<Submission, Fault> {
        self.absent = self.absent.wrapping_add(1);
        let cid = ipfs::cid_of_bytes(&self.absent.to_be_bytes(), CidVersion::V1).to_bytes();
        self.modules.insert(cid.clone(), Module::Absent);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let deadline = now + GIVEN_UP_AFTER_S;
        Ok(Submission { kind: 1, module: Some(cid), deadline, ..Submission::default() })
    }

    /// What must come of a task that stands on chain.
    pub(crate) fn expected(&self, task: &Submitted) -> Result<Expected, Fault> {
        if task.kind != 1 {
            return Ok(Expected::Rejected(&["unsupported_kind"]));
        }
        let module = task.module.as_ref().and_then(|cid| self.modules.get(cid));
        let module = module.ok_or_else(|| format!("task {} has an unknown module", task.id))?;
        let input = task.input.as_ref().and_then(|cid| self.inputs.get(cid));
        let input = input.map_or(&[][..], Vec::as_slice);
        let arguments: Value = serde_json::from_slice(input).unwrap_or_default();
        let argument = |at: usize| {
            let value = arguments.get("args").and_then(|all| all.get(at)).and_then(Value::as_u64);
            value.ok_or_else(|| Fault::from(format!("task {} has no argument {at}", task.id)))
        };
        let value = match module {
            Module::Absent => {
                return Ok(Expected::Rejected(&["content_unavailable", "deadline_passed"]));
            }
            Module::Trap => {
                let document = r#"{"status":"failed","code":"trap","trap":"unreachable"}"#;
                return Ok(Expected::Document(document.to_owned()));
            }
            Module::Endless => {
                return Ok(Expected::Document(r#"{"status":"timed_out"}"#.to_owned()));
            }
            Module::Fib => fibonacci(argument(0)?).to_string(),
            Module::Affine => (argument(0)? * argument(1)? + argument(2)?).to_string(),
            Module::Add => (argument(0)? + argument(1)?).to_string(),
            Module::Words => {
                let text = std::str::from_utf8(input)?;
                let (lines, words) = (text.lines().count(), text.split_whitespace().count());
                format!(r#"{{"lines":{lines},"words":{words},"bytes":{}}}"#, text.len())
            }
            Module::Printing(text) => format!(r#"{{"text":"{text}"}}"#),
        };
        Ok(Expected::Document(format!(r#"{{"status":"ok","value":{value}}}"#)))
    }

    /// The blocks that results put into the mirror.
    pub(crate) fn blocks(&self) -> BTreeSet<String> {
        let texts = self.modules.values().filter_map(|module| match module {
            Module::Printing(text) => {
                Some(format!(r#"{{"status":"ok","value":{{"text":"{text}"}}}}"#))
            }
            _ => None,
        });
        texts.map(|document| ipfs::raw_cid(document.as_bytes()).to_string()).collect()
    }
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
