use executor_protocol::PlainFailure;
use wasmparser::{BinaryReaderError, FunctionBody, Operator, Payload};

use super::Refusal;

/// What a module as a whole may have of each kind of item.
const ITEMS: &[(&str, u32)] = &[
    ("types", 20_000),
    ("imports", 1_000),
    ("functions", 100_000),
    ("tables", 100),
    ("memories", 1),
    ("globals", 20_000),
    ("exports", 20_000),
    ("element segments", 20_000),
    ("data segments", 20_000),
    ("custom sections", 1_000),
];

/// Bytes of one function's body.
const BODY_BYTES: usize = 1 << 20;
/// Locals of one function, its parameters not counted.
const LOCALS: u64 = 10_000;
/// Nested blocks of one function.
const NESTING: u32 = 5_000;
/// Branch targets of all `br_table` instructions of one function.
const BRANCH_TARGETS: u64 = 50_000;
/// Nesting times size: the work that is square in a function, in open blocks summed over the function's blocks.
const OPEN_BLOCKS: u64 = 20_000_000;

/// Counts what makes compilation expensive and refuses what passes a bound.
#[derive(Debug, Default)]
pub(super) struct Budget {
    custom_sections: u32,
}

impl Budget {
    /// Takes one part of a module.
    pub(super) fn take(&mut self, payload: &Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::TypeSection(s) => within("types", s.count()),
            Payload::ImportSection(s) => within("imports", s.count()),
            Payload::FunctionSection(s) => within("functions", s.count()),
            Payload::TableSection(s) => within("tables", s.count()),
            Payload::GlobalSection(s) => within("globals", s.count()),
            Payload::ExportSection(s) => within("exports", s.count()),
            Payload::ElementSection(s) => within("element segments", s.count()),
            Payload::DataSection(s) => within("data segments", s.count()),
            Payload::DataCountSection { count, .. } => within("data segments", *count),
            Payload::CustomSection(_) => {
                self.custom_sections += 1;
                within("custom sections", self.custom_sections)
            }
            Payload::CodeSectionEntry(body) => function(body),
            _ => Ok(()),
        }
    }
}

fn within(name: &str, count: u32) -> Result<(), Refusal> {
    match ITEMS.iter().find(|(item, _)| *item == name) {
        Some((_, most)) if count > *most => Err(too_complex(name, count.into(), (*most).into())),
        _ => Ok(()),
    }
}

fn too_complex(what: &str, count: u64, most: u64) -> Refusal {
    Refusal::new(PlainFailure::ModuleTooComplex, format!("{count} {what}, allowed are {most}"))
}

fn function(body: &FunctionBody<'_>) -> Result<(), Refusal> {
    let malformed = |error: BinaryReaderError| Refusal::invalid(&error);
    let size = body.range().len();
    if size > BODY_BYTES {
        return Err(too_complex("bytes in one function", size as u64, BODY_BYTES as u64));
    }
    let mut locals = 0_u64;
    for group in body.get_locals_reader().map_err(malformed)? {
        locals += u64::from(group.map_err(malformed)?.0);
        if locals > LOCALS {
            return Err(too_complex("locals in one function", locals, LOCALS));
        }
    }
    let (mut depth, mut targets, mut open_blocks) = (0_u32, 0_u64, 0_u64);
    let mut operators = body.get_operators_reader().map_err(malformed)?;
    while !operators.eof() {
        match operators.read().map_err(malformed)? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                depth += 1;
                open_blocks += u64::from(depth);
                if depth > NESTING {
                    return Err(too_complex("nested blocks", depth.into(), NESTING.into()));
                }
                if open_blocks > OPEN_BLOCKS {
                    return Err(too_complex("open blocks in sum", open_blocks, OPEN_BLOCKS));
                }
            }
            Operator::End => depth = depth.saturating_sub(1),
            Operator::BrTable { targets: table } => {
                targets += u64::from(table.len());
                if targets > BRANCH_TARGETS {
                    return Err(too_complex(
                        "branch targets in one function",
                        targets,
                        BRANCH_TARGETS,
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use executor_protocol::Limits;

    use super::*;

    fn check(text: &str, too_complex: bool) {
        let bytes = wat::parse_str(text).unwrap();
        let finding = super::super::check(&bytes, &Limits::default());
        let refused = finding
            .as_ref()
            .is_err_and(|refusal| refusal.failure == PlainFailure::ModuleTooComplex);
        assert_eq!(refused, too_complex, "{finding:?}");
    }

    #[test]
    fn w03_what_would_take_long_to_compile_is_refused() {
        let nested =
            |n: usize| format!("(module (func {} {}))", "block ".repeat(n), "end ".repeat(n));
        check(&nested(5_000), false);
        check(&nested(100_000), true);
        let branches = |n: usize| {
            format!("(module (func block i32.const 0 br_table {} 0 end))", "0 ".repeat(n))
        };
        check(&branches(50_000), false);
        check(&branches(1_000_000), true);
        let locals = |n: usize| format!("(module (func (local {})))", "i64 ".repeat(n));
        check(&locals(10_000), false);
        check(&locals(50_000), true);
        let size = |n: usize| format!("(module (func {}))", "i32.const 0 drop ".repeat(n));
        check(&size(100_000), false);
        check(&size(7_000_000 / 3), true);
        let exports = |n: usize| {
            let exports: String = (0..n).map(|i| format!("(export \"{i}\" (func 0))")).collect();
            format!("(module (func) {exports})")
        };
        check(&exports(20_000), false);
        check(&exports(20_001), true);
    }

    #[test]
    fn a_module_above_the_byte_limit_is_refused() {
        let limits = Limits { module_bytes: 7, ..Limits::default() };
        let refusal = super::super::check(b"\0asm\x01\0\0\0", &limits).unwrap_err();
        assert_eq!(refusal.failure, PlainFailure::ModuleTooComplex);
    }
}
