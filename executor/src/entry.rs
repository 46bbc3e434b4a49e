//! Which export runs, and with which arguments.

use std::collections::BTreeMap;

use executor_protocol::PlainFailure;
use serde_json::value::RawValue;
use wasmtime::{FuncType, Val};

use crate::value;

/// What the environment says about what to call; an empty variable is one that is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// `ENTRY`.
    pub entry: Option<String>,
    /// `ARGS_JSON`.
    pub arguments: Option<String>,
    /// `ADD_X` and `ADD_Y`, when both are set.
    pub add: Option<(String, String)>,
}

impl Invocation {
    /// Takes the variables out of an environment.
    #[must_use]
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| environment.get(name).filter(|v| !v.is_empty()).cloned();
        Self {
            entry: get("ENTRY"),
            arguments: get("ARGS_JSON"),
            add: get("ADD_X").zip(get("ADD_Y")),
        }
    }
}

/// The name of a WASI command's entry.
pub const COMMAND: &str = "_start";

/// What to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The exported function.
    pub entry: String,
    /// Its arguments, not read yet.
    pub arguments: Arguments,
}

/// Arguments as they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arguments {
    /// The JSON text of an array, or nothing at all.
    Json(Option<String>),
    /// The two unsigned numbers of the default `add`; its result is unsigned too.
    Add(String, String),
}

impl Call {
    /// Chooses: `ENTRY`, else the input's `"entry"`, else `_start` if exported, else `add` when `ADD_X` and `ADD_Y`
    /// are set. Arguments: `ARGS_JSON`, else the input's `"args"`; a command's input is its standard input and its
    /// `"args"` mean nothing here.
    pub fn choose(
        invocation: &Invocation,
        input: Option<&[u8]>,
        is_exported: impl Fn(&str) -> bool,
    ) -> Result<Self, PlainFailure> {
        let fields = input.and_then(fields).unwrap_or_default();
        let named = invocation.entry.clone().or_else(|| {
            let token = fields.get("entry")?;
            serde_json::from_str::<String>(token.get()).ok()
        });
        let entry = match named {
            Some(entry) => entry,
            None if is_exported(COMMAND) => COMMAND.to_owned(),
            None => match &invocation.add {
                Some((x, y)) if is_exported("add") => {
                    return Ok(Self {
                        entry: "add".to_owned(),
                        arguments: Arguments::Add(x.clone(), y.clone()),
                    });
                }
                _ => return Err(PlainFailure::NoEntry),
            },
        };
        if !is_exported(&entry) {
            return Err(PlainFailure::NoEntry);
        }
        let given = invocation.arguments.clone();
        let arguments = if entry == COMMAND {
            given
        } else {
            given.or_else(|| Some(fields.get("args")?.get().to_owned()))
        };
        Ok(Self { entry, arguments: Arguments::Json(arguments) })
    }

    /// Whether results are written unsigned.
    #[must_use]
    pub fn is_unsigned(&self) -> bool {
        matches!(self.arguments, Arguments::Add(..))
    }

    /// The arguments as values of the entry's parameters.
    pub fn values(&self, ty: &FuncType) -> Result<Vec<Val>, PlainFailure> {
        let values: Option<Vec<Val>> = match &self.arguments {
            Arguments::Add(x, y) => {
                if ty.params().len() != 2 {
                    return Err(PlainFailure::BadArguments);
                }
                [x, y]
                    .into_iter()
                    .zip(ty.params())
                    .map(|(digits, ty)| value::read_unsigned(digits, &ty))
                    .collect()
            }
            Arguments::Json(text) => {
                let text = text.as_deref().unwrap_or("[]");
                let tokens: Vec<&RawValue> =
                    serde_json::from_str(text).map_err(|_| PlainFailure::BadArguments)?;
                if tokens.len() != ty.params().len() {
                    return Err(PlainFailure::BadArguments);
                }
                tokens
                    .iter()
                    .zip(ty.params())
                    .map(|(token, ty)| value::read(token.get(), &ty))
                    .collect()
            }
        };
        values.ok_or(PlainFailure::BadArguments)
    }
}

/// The fields of an input that is one JSON object; other inputs are a command's bytes.
fn fields(input: &[u8]) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_slice(input).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        (entry, args, add): (&str, &str, bool),
        input: Option<&str>,
        exports: &[&str],
        wanted: Result<(&str, Arguments), PlainFailure>,
    ) {
        let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let invocation = Invocation {
            entry: set(entry),
            arguments: set(args),
            add: add.then(|| ("1".to_owned(), "2".to_owned())),
        };
        let call =
            Call::choose(&invocation, input.map(str::as_bytes), |name| exports.contains(&name));
        let wanted = wanted.map(|(entry, arguments)| Call { entry: entry.to_owned(), arguments });
        assert_eq!(call, wanted, "{invocation:?} {input:?} {exports:?}");
    }

    #[test]
    fn the_order_of_precedence_is_kept() {
        let json = |text: &str| Arguments::Json(Some(text.to_owned()));
        let none = || Arguments::Json(None);
        let add = || Arguments::Add("1".to_owned(), "2".to_owned());
        let file = Some(r#"{"entry":"fib","args":[12]}"#);
        let all = ["fib", "other", "_start", "add"];
        check(("other", "[1]", true), file, &all, Ok(("other", json("[1]"))));
        check(("other", "", true), file, &all, Ok(("other", json("[12]"))));
        check(("", "[7]", true), file, &all, Ok(("fib", json("[7]"))));
        check(("", "", true), None, &all, Ok(("_start", none())));
        check(("", "", true), Some(r#"{"args":[1]}"#), &all, Ok(("_start", none())));
        check(("", "", true), Some(r#"{"entry":5}"#), &all, Ok(("_start", none())));
        check(("", "", true), Some("no JSON"), &["add"], Ok(("add", add())));
        check(("", "", true), None, &["fib"], Err(PlainFailure::NoEntry));
        check(("", "", false), None, &["add"], Err(PlainFailure::NoEntry));
        check(("nothing", "", false), None, &all, Err(PlainFailure::NoEntry));
    }
}
