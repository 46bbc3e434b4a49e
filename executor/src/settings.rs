//! The environment of `executor run`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use executor_protocol::{DEFAULT_LIMITS, Limits, MAX_DOCUMENT_BYTES};

use crate::entry::Invocation;

/// The environment of `executor run`, checked. An empty variable is one that is not set, except for `OUTPUT_PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `WASM_PATH`: the module.
    pub wasm_path: PathBuf,
    /// `INPUT_PATH`: the input; the default one may be missing.
    pub input_path: InputPath,
    /// `OUTPUT_PATH`: where the document goes; with `.txt` the value alone as text; none when set and empty.
    pub output_path: Option<PathBuf>,
    /// `RECORD_PATH`: where the report goes, with everything in it.
    pub record_path: Option<PathBuf>,
    /// `TERMINATION_PATH`: where the report goes, cut to 4,096 bytes.
    pub termination_path: Option<PathBuf>,
    /// `CACHE_DIR`: the folder of compiled modules.
    pub cache_dir: Option<PathBuf>,
    /// `COMPILED_PATH`: a compiled form of the module, sealed with the key in `CACHE_DIR`.
    pub compiled_path: Option<PathBuf>,
    /// `MODULE_SHA256`: what the module must be, in lower-case hex.
    pub module_sha256: Option<String>,
    /// `ENTRY`, `ARGS_JSON`, `ADD_X`, `ADD_Y`.
    pub invocation: Invocation,
    /// `TIMEOUT_SEC`, `MEMORY_MIB`, `FUEL` and the others.
    pub limits: Limits,
}

/// Where the input is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputPath {
    /// It was named and must be there.
    Named(PathBuf),
    /// It was not; without a file there is no input.
    Default(PathBuf),
}

/// A variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value:?} is not allowed: {allowed}")]
pub struct Error {
    /// The variable.
    pub name: &'static str,
    /// What it was set to.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "bad_setting"
    }
}

/// The longest time limit, in seconds: one day.
const MOST_TIMEOUT_SEC: f64 = 86_400.0;

impl Settings {
    /// Reads an environment; the first variable that cannot be used is the error.
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Result<Self, Error> {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let path = |name: &str| get(name).map(PathBuf::from);
        let or = |name: &str, default: &str| path(name).unwrap_or_else(|| PathBuf::from(default));
        let output_path = match environment.get("OUTPUT_PATH") {
            Some(set) if set.is_empty() => None,
            _ => Some(or("OUTPUT_PATH", "/mnt/shared/result.json")),
        };
        if let (Some(value), None) = (get("COMPILED_PATH"), get("CACHE_DIR")) {
            return Err(Error {
                name: "COMPILED_PATH",
                value: value.clone(),
                allowed: "only together with CACHE_DIR, whose key seals compiled forms".to_owned(),
            });
        }
        Ok(Self {
            wasm_path: or("WASM_PATH", "/mnt/input/module.wasm"),
            input_path: path("INPUT_PATH").map_or_else(
                || InputPath::Default(PathBuf::from("/mnt/input/input.json")),
                InputPath::Named,
            ),
            output_path,
            record_path: path("RECORD_PATH"),
            termination_path: path("TERMINATION_PATH"),
            cache_dir: path("CACHE_DIR"),
            compiled_path: path("COMPILED_PATH"),
            module_sha256: get("MODULE_SHA256").map(|value| digest(value)).transpose()?,
            invocation: Invocation::from_environment(environment),
            limits: limits(environment)?,
        })
    }
}

fn digest(value: &str) -> Result<String, Error> {
    let good = value.len() == 64 && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    good.then(|| value.to_owned()).ok_or_else(|| Error {
        name: "MODULE_SHA256",
        value: value.to_owned(),
        allowed: "64 lower-case hex digits".to_owned(),
    })
}

/// The limits of an environment; what is not set has its default.
pub fn limits(environment: &BTreeMap<String, String>) -> Result<Limits, Error> {
    let default = DEFAULT_LIMITS;
    let read = Reader(environment);
    Ok(Limits {
        timeout_ms: read.seconds("TIMEOUT_SEC", default.timeout_ms)?,
        memory_mib: read.number("MEMORY_MIB", default.memory_mib, 0, 4096)?,
        fuel: read.number("FUEL", default.fuel, 0, u64::MAX)?,
        table_elements: read.number("TABLE_ELEMENTS", default.table_elements, 0, 10_000_000)?,
        stack_bytes: read.number("STACK_BYTES", default.stack_bytes, 64 << 10, 64 << 20)?,
        output_bytes: read.number("OUTPUT_BYTES", default.output_bytes, 0, 1 << 30)?,
        result_bytes: read.number(
            "RESULT_BYTES",
            default.result_bytes,
            64,
            MAX_DOCUMENT_BYTES as u32,
        )?,
        module_bytes: read.number("MODULE_BYTES", default.module_bytes, 8, 256 << 20)?,
        compile_ms: read.seconds("COMPILE_SEC", default.compile_ms)?,
        compile_mib: read.number("COMPILE_MIB", default.compile_mib, 64, 65_536)?,
    })
}

struct Reader<'a>(&'a BTreeMap<String, String>);

impl Reader<'_> {
    fn number<T>(&self, name: &'static str, default: T, least: T, most: T) -> Result<T, Error>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let Some(value) = self.0.get(name).filter(|value| !value.is_empty()) else {
            return Ok(default);
        };
        let number = value.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| Error {
            name,
            value: value.clone(),
            allowed: format!("a whole number from {least} to {most}"),
        })
    }

    /// Seconds, with a fraction if need be, as milliseconds.
    fn seconds(&self, name: &'static str, default: u64) -> Result<u64, Error> {
        let Some(value) = self.0.get(name).filter(|value| !value.is_empty()) else {
            return Ok(default);
        };
        let seconds = value.parse().ok().filter(|s: &f64| (0.001..=MOST_TIMEOUT_SEC).contains(s));
        let duration = seconds.and_then(|s| std::time::Duration::try_from_secs_f64(s).ok());
        duration.and_then(|duration| u64::try_from(duration.as_millis()).ok()).ok_or_else(|| {
            Error {
                name,
                value: value.clone(),
                allowed: format!("seconds from 0.001 to {MOST_TIMEOUT_SEC}"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn nothing_set_means_the_defaults() {
        let settings = Settings::from_environment(&BTreeMap::new()).unwrap();
        assert_eq!(settings.limits, DEFAULT_LIMITS);
        assert_eq!(settings.wasm_path, PathBuf::from("/mnt/input/module.wasm"));
        assert_eq!(settings.output_path, Some(PathBuf::from("/mnt/shared/result.json")));
        let empty = environment(&[("ENTRY", ""), ("FUEL", ""), ("CACHE_DIR", "")]);
        assert_eq!(Settings::from_environment(&empty).unwrap(), settings);
    }

    #[test]
    fn a_bad_value_names_variable_value_and_what_is_allowed() {
        for (name, value) in [
            ("TIMEOUT_SEC", "0"),
            ("TIMEOUT_SEC", "NaN"),
            ("TIMEOUT_SEC", "30s"),
            ("MEMORY_MIB", "4097"),
            ("FUEL", "-1"),
            ("RESULT_BYTES", "1048577"),
            ("STACK_BYTES", "1"),
            ("MODULE_SHA256", "AB"),
            ("COMPILED_PATH", "module.cwasm"),
        ] {
            let error = Settings::from_environment(&environment(&[(name, value)])).unwrap_err();
            assert_eq!((error.name, error.value.as_str()), (name, value));
            assert!(!error.allowed.is_empty());
        }
    }

    #[test]
    fn seconds_may_have_a_fraction() {
        let limits = limits(&environment(&[("TIMEOUT_SEC", "0.25")])).unwrap();
        assert_eq!(limits.timeout_ms, 250);
    }
}
