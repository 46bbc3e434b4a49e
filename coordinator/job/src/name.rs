use std::fmt;

use serde::{Deserialize, Serialize};

/// Before every name, so that a job of ours is known among others.
const PREFIX: &str = "wx";

/// Which coordinator a job belongs to: eight lower-case hex digits, so that two of them in one place never touch
/// each other's jobs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance(String);

impl Instance {
    /// Takes eight lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        (text.len() == 8 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// The first four bytes of an instance's id.
    #[must_use]
    pub fn of(id: &[u8; 16]) -> Self {
        let [a, b, c, d, ..] = *id;
        Self(hex::encode([a, b, c, d]))
    }

    /// The eight digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A job's name: a function of the instance, the task's local id and the attempt, so that starting it again is
/// known as that. Valid as the name of a Kubernetes object and of a container.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Name {
    instance: Instance,
    task: u64,
    attempt: u32,
    text: String,
}

impl Name {
    /// The name of an attempt at a task.
    #[must_use]
    pub fn new(instance: &Instance, task: u64, attempt: u32) -> Self {
        Self {
            instance: instance.clone(),
            task,
            attempt,
            text: format!("{PREFIX}-{}-{task}-{attempt}", instance.as_str()),
        }
    }

    /// Reads a name back; none for a text that [`Name::new`] never makes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (prefix, instance) = (parts.next()?, Instance::parse(parts.next()?)?);
        let (task, attempt) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let name = Self::new(&instance, task, attempt);
        (prefix == PREFIX && name.text == text).then_some(name)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose job it is.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The task's local id.
    #[must_use]
    pub fn task(&self) -> u64 {
        self.task
    }

    /// Which attempt at the task, counted by the asker.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.text
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not the name of a job"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_reads_back_and_fits_kubernetes() {
        let instance = Instance::of(&[0xab; 16]);
        let name = Name::new(&instance, u64::MAX, u32::MAX);
        assert_eq!(name.as_str(), "wx-abababab-18446744073709551615-4294967295");
        assert!(name.as_str().len() <= 63);
        assert_eq!(Name::parse(name.as_str()), Some(name.clone()));
        let json = serde_json::to_string(&name).unwrap();
        assert_eq!(serde_json::from_str::<Name>(&json).unwrap(), name);
    }

    #[test]
    fn what_is_no_name_of_ours_is_not_read_as_one() {
        for text in [
            "",
            "wx-abababab-1",
            "wx-abababab-1-1-1",
            "wx-abababab-01-1",
            "wx-ABABABAB-1-1",
            "wx-ababab-1-1",
            "xx-abababab-1-1",
            "wx-abababab-+1-1",
        ] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }
}
