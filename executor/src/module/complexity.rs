use executor_protocol::PlainFailure;
use wasmparser::{
    BinaryReaderError, BlockType, CompositeInnerType, FunctionBody, ImportSectionReader, Operator,
    Payload, TypeRef, TypeSectionReader,
};

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
/// Work of one function: for each block its locals and the values that pass its ends, for each branch and call the
/// values that it carries. What a compiler does with joins grows with this product, not with the size: a function
/// of 100 KB can keep it busy for minutes.
const WORK: u64 = 2_000_000;
/// A conditional branch costs this fraction of a block: what follows it has only one way in.
const BRANCH_SHARE: u64 = 16;
/// A value that a branch or a call carries costs as much as so many locals of a block: measured.
const CARRIED: u64 = 4;

/// Counts what makes compilation expensive and refuses what passes a bound.
#[derive(Debug, Default)]
pub(super) struct Budget {
    custom_sections: u32,
    /// The number of parameters and results of each type.
    widths: Vec<(u64, u64)>,
    /// The type of each function, imported ones first.
    functions: Vec<u32>,
    /// How many functions are imported, and how many bodies have been seen.
    bodies: usize,
}

impl Budget {
    /// Takes one part of a module.
    pub(super) fn take(&mut self, payload: &Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::TypeSection(s) => {
                within("types", s.count())?;
                self.take_types(s.clone()).map_err(malformed)
            }
            Payload::ImportSection(s) => {
                within("imports", s.count())?;
                self.take_imports(s.clone()).map_err(malformed)
            }
            Payload::FunctionSection(s) => {
                within("functions", s.count())?;
                for ty in s.clone() {
                    self.functions.push(ty.map_err(malformed)?);
                }
                Ok(())
            }
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
            Payload::CodeSectionEntry(body) => self.function(body),
            _ => Ok(()),
        }
    }

    fn take_types(&mut self, section: TypeSectionReader<'_>) -> Result<(), BinaryReaderError> {
        for group in section {
            self.widths.extend(group?.into_types().map(|ty| match ty.composite_type.inner {
                CompositeInnerType::Func(ty) => {
                    (ty.params().len() as u64, ty.results().len() as u64)
                }
                _ => (0, 0),
            }));
        }
        Ok(())
    }

    fn take_imports(&mut self, section: ImportSectionReader<'_>) -> Result<(), BinaryReaderError> {
        for import in section.into_imports() {
            if let TypeRef::Func(ty) | TypeRef::FuncExact(ty) = import?.ty {
                self.functions.push(ty);
                self.bodies += 1;
            }
        }
        Ok(())
    }

    /// Parameters and results of a type; an unknown one is the validator's to refuse.
    fn width(&self, ty: Option<u32>) -> (u64, u64) {
        let index = ty.and_then(|ty| usize::try_from(ty).ok());
        index.and_then(|index| self.widths.get(index).copied()).unwrap_or_default()
    }

    fn block_width(&self, ty: BlockType) -> (u64, u64) {
        match ty {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(ty) => self.width(Some(ty)),
        }
    }

    fn callee(&self, function: u32) -> Option<u32> {
        let index = usize::try_from(function).ok()?;
        self.functions.get(index).copied()
    }

    fn function(&mut self, body: &FunctionBody<'_>) -> Result<(), Refusal> {
        let size = body.range().len();
        if size > BODY_BYTES {
            return Err(too_complex("bytes in one function", size as u64, BODY_BYTES as u64));
        }
        let (parameters, results) = self.width(self.functions.get(self.bodies).copied());
        self.bodies += 1;
        let mut locals = 0_u64;
        for group in body.get_locals_reader().map_err(malformed)? {
            locals += u64::from(group.map_err(malformed)?.0);
            if locals > LOCALS {
                return Err(too_complex("locals in one function", locals, LOCALS));
            }
        }
        let (mut depth, mut targets, mut work) = (0_u32, 0_u64, 0_u64);
        // The most values that a branch here can carry.
        let mut carried = results;
        let mut operators = body.get_operators_reader().map_err(malformed)?;
        while !operators.eof() {
            work += match operators.read().map_err(malformed)? {
                Operator::Block { blockty }
                | Operator::Loop { blockty }
                | Operator::If { blockty } => {
                    depth += 1;
                    if depth > NESTING {
                        return Err(too_complex("nested blocks", depth.into(), NESTING.into()));
                    }
                    let (inward, outward) = self.block_width(blockty);
                    carried = carried.max(inward).max(outward);
                    1 + parameters + locals + inward + outward
                }
                Operator::End => {
                    depth = depth.saturating_sub(1);
                    0
                }
                Operator::BrTable { targets: table } => {
                    targets += u64::from(table.len());
                    if targets > BRANCH_TARGETS {
                        return Err(too_complex(
                            "branch targets in one function",
                            targets,
                            BRANCH_TARGETS,
                        ));
                    }
                    u64::from(table.len().saturating_add(1)) * (1 + CARRIED * carried)
                }
                Operator::BrIf { .. } => {
                    1 + CARRIED * carried + (parameters + locals) / BRANCH_SHARE
                }
                Operator::Br { .. } | Operator::Return => 1 + CARRIED * carried,
                Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                    let (inward, outward) = self.width(self.callee(function_index));
                    1 + CARRIED * (inward + outward)
                }
                Operator::CallIndirect { type_index, .. }
                | Operator::ReturnCallIndirect { type_index, .. } => {
                    let (inward, outward) = self.width(Some(type_index));
                    1 + CARRIED * (inward + outward)
                }
                _ => 0,
            };
            if work > WORK {
                return Err(too_complex("units of work in one function", work, WORK));
            }
        }
        Ok(())
    }
}

fn malformed(error: BinaryReaderError) -> Refusal {
    Refusal::invalid(&error)
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
        // Each alone is small; together they are minutes of work for the compiler.
        let joins = |locals: usize, loops: usize| {
            let loops = "loop i32.const 0 br_if 0 end ".repeat(loops);
            format!("(module (func (local {}) {loops}))", "i32 ".repeat(locals))
        };
        check(&joins(1_000, 1_800), false);
        check(&joins(4_000, 4_000), true);
        let carried = |values: usize, branches: usize| {
            let (types, values) = ("i32 ".repeat(values), "i32.const 0 ".repeat(values));
            let branches = "i32.const 0 br_if 0 ".repeat(branches);
            format!("(module (func (result {types}) {values} {branches}))")
        };
        check(&carried(4, 100_000), false);
        check(&carried(1_000, 10_000), true);
        let calls = |values: usize, calls: usize| {
            let (types, calls) = ("i32 ".repeat(values), "call 0 ".repeat(calls));
            format!(
                "(module (func $f (param {types}) (result {types}) {} {calls}))",
                (0..values).map(|i| format!("local.get {i} ")).collect::<String>()
            )
        };
        check(&calls(4, 50_000), false);
        check(&calls(1_000, 10_000), true);
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
