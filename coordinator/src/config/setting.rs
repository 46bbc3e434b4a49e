//! The one list of settings: it drives the flags, the environment, the file and the table in the documentation.

pub use super::list::SETTINGS;

/// What the names of all environment variables begin with.
pub const PREFIX: &str = "COORDINATOR_";

/// Where a setting may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// Flag, environment and file.
    Open,
    /// Environment and file: the path of something secret.
    Guarded,
    /// The environment alone: the value itself is secret.
    Secret,
    /// Flag and environment: the path of the configuration file.
    Locator,
}

impl Sources {
    /// Whether there is a flag.
    #[must_use]
    pub fn flag(self) -> bool {
        matches!(self, Self::Open | Self::Locator)
    }

    /// Whether the configuration file may have it.
    #[must_use]
    pub fn file(self) -> bool {
        matches!(self, Self::Open | Self::Guarded)
    }
}

/// What holds when nobody says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// This text, read like any other value.
    Text(&'static str),
    /// Nothing; the words say what that means.
    Unset(&'static str),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its key in the file; flag and variable are made from it.
    pub name: &'static str,
    /// Under which heading it is shown.
    pub group: &'static str,
    /// What a value is, in a word.
    pub value: &'static str,
    /// Its default.
    pub preset: Preset,
    /// What it means.
    pub help: &'static str,
    /// Where it may come from.
    pub sources: Sources,
}

impl Setting {
    /// The setting of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Its flag, without the dashes in front.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Its environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_uppercase())
    }

    /// Whether a bad value may stand in a message. URLs of chain endpoints often hold a key.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.sources != Sources::Secret && self.name != "rpc_url"
    }

    /// The default in words.
    #[must_use]
    pub fn preset_text(&self) -> &'static str {
        match self.preset {
            Preset::Text(text) | Preset::Unset(text) => text,
        }
    }
}

/// The table for the documentation, in Markdown: one row for each setting.
#[must_use]
pub fn table() -> String {
    let mut out = String::from(
        "| variable | flag | file key | meaning | default |\n| --- | --- | --- | --- | --- |\n",
    );
    for setting in SETTINGS {
        let flag = if setting.sources.flag() {
            format!("`--{} {}`", setting.flag(), setting.value)
        } else {
            "none".to_owned()
        };
        let key =
            if setting.sources.file() { format!("`{}`", setting.name) } else { "none".to_owned() };
        let preset = match setting.preset {
            Preset::Text(text) => format!("`{text}`"),
            Preset::Unset(words) => words.to_owned(),
        };
        let row = format!(
            "| `{}` | {flag} | {key} | {} | {preset} |\n",
            setting.variable(),
            setting.help.replace('|', "\\|"),
        );
        out.push_str(&row);
    }
    out
}
