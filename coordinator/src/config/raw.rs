//! The first stage: what flags, environment and file say, as text, and which of it nobody knows.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    Problem,
    setting::{PREFIX, Setting},
};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// The environment.
    Environment,
    /// The configuration file.
    File(PathBuf),
    /// The setting's default.
    Preset,
}

impl Origin {
    /// The setting's name as it is written there.
    #[must_use]
    pub fn name_of(&self, setting: &Setting) -> String {
        match self {
            Self::Flag => format!("--{}", setting.flag()),
            Self::Environment | Self::Preset => setting.variable(),
            Self::File(path) => format!("{} in {}", setting.name, path.display()),
        }
    }
}

/// Texts by setting, each from the most important place that has one: flag, then environment, then file.
#[derive(Clone, Default)]
pub struct Raw {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.values.iter().map(|(name, (_, origin))| (name, origin))).finish()
    }
}

impl Raw {
    /// Puts the three places together. `flags` are pairs of a setting's name and its text; of `environment` only
    /// names with the prefix are looked at. What cannot be used is added to `problems`.
    pub fn collect(
        flags: impl IntoIterator<Item = (String, String)>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut raw = Self::default();
        for (name, text) in flags {
            if let Some(setting) = Setting::named(&name) {
                raw.values.entry(setting.name).or_insert((text, Origin::Flag));
            }
        }
        raw.environment(environment, problems);
        if let Some((path, _)) = raw.get("config").filter(|(path, _)| !path.is_empty()) {
            let path = PathBuf::from(path);
            raw.file(&path, problems);
        }
        raw
    }

    /// A setting's text and where it came from; none when nobody said anything.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<(&str, &Origin)> {
        self.values.get(name).map(|(text, origin)| (text.as_str(), origin))
    }

    fn environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        problems: &mut Vec<Problem>,
    ) {
        for (variable, text) in environment {
            let Some(variable) = variable.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let name = variable.trim_start_matches(PREFIX).to_lowercase();
            let known = Setting::named(&name).filter(|setting| setting.variable() == variable);
            match (known, text.into_string()) {
                (Some(setting), Ok(text)) => {
                    self.values.entry(setting.name).or_insert((text, Origin::Environment));
                }
                (Some(_), Err(_)) => problems.push(Problem {
                    name: variable.to_owned(),
                    value: None,
                    wanted: "text in UTF-8".to_owned(),
                }),
                (None, _) => problems.push(unknown(
                    variable.to_owned(),
                    |setting| (setting.variable(), true),
                    variable,
                )),
            }
        }
    }

    fn file(&mut self, path: &Path, problems: &mut Vec<Problem>) {
        let bad = |value: Option<String>, wanted: String| Problem {
            name: path.display().to_string(),
            value,
            wanted,
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                problems.push(bad(None, format!("a readable configuration file: {error}")));
                return;
            }
        };
        let table: toml::Table = match toml::from_str(&text) {
            Ok(table) => table,
            Err(error) => {
                // The whole error shows the line, and a line may hold what is not to be shown.
                let at = error.span().map_or(0, |span| {
                    text.get(..span.start).map_or(0, |before| before.lines().count().max(1))
                });
                problems.push(bad(None, format!("TOML; line {at}: {}", error.message())));
                return;
            }
        };
        for (key, value) in table {
            let Some(setting) = Setting::named(&key).filter(|setting| setting.sources.file())
            else {
                problems.push(unknown(
                    format!("{key} in {}", path.display()),
                    |setting| (setting.name.to_owned(), setting.sources.file()),
                    &key,
                ));
                continue;
            };
            match flat(&value) {
                Some(text) => {
                    let origin = Origin::File(path.to_owned());
                    self.values.entry(setting.name).or_insert((text, origin));
                }
                None => problems.push(Problem {
                    name: format!("{key} in {}", path.display()),
                    value: None,
                    wanted: "a string, a number, a truth value, or a list of strings or numbers"
                        .to_owned(),
                }),
            }
        }
    }
}

/// A file's value as the same text that a flag would have.
fn flat(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Array(values) => {
            let parts: Option<Vec<_>> = values
                .iter()
                .map(|value| if value.is_array() { None } else { flat(value) })
                .collect();
            Some(parts?.join(","))
        }
        _ => None,
    }
}

/// A name that is no setting's here, with the one that was probably meant.
fn unknown(
    name: String,
    spelled: impl Fn(&'static Setting) -> (String, bool),
    written: &str,
) -> Problem {
    let nearest = super::setting::SETTINGS
        .iter()
        .map(spelled)
        .filter(|(_, allowed)| *allowed)
        .map(|(candidate, _)| (distance(&candidate, written), candidate))
        .min();
    let meant = match nearest {
        Some((distance, candidate)) if distance <= 3 => format!(" (did you mean {candidate}?)"),
        _ => String::new(),
    };
    let secret = Setting::named(&written.to_lowercase()).is_some_and(|s| !s.sources.file());
    let wanted = if secret {
        "nothing: this setting is not read from a file".to_owned()
    } else {
        format!("a known setting; `coordinator --help` lists them{meant}")
    };
    Problem { name, value: None, wanted }
}

/// Edits from one word to another.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = *cell;
            left = substituted.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
