use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::Error;
use crate::telemetry::causes;

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) fn is_json(self) -> bool {
        self.json
    }

    /// Data, to stdout: the text, or the JSON when that was asked for.
    pub(super) fn data(self, text: &str, value: &impl Serialize) {
        let line = if self.json {
            serde_json::to_string(value).unwrap_or_else(|error| {
                json!({"error": {"code": "json", "message": error.to_string()}}).to_string()
            })
        } else {
            text.to_owned()
        };
        // A reader that has gone away wants no more.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// Talk, to stderr; with JSON there is none.
    pub(super) fn say(self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// An error, to stderr.
    pub(super) fn error(self, error: &Error) {
        let message = causes(error);
        let line = if self.json {
            json!({"error": {"code": error.code(), "message": message}}).to_string()
        } else {
            format!("error: {message}")
        };
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    /// Something that may take a while: a spinner on a terminal, else a line.
    pub(super) fn progress(self, what: &str) -> Progress {
        if self.json {
            return Progress(ProgressBar::hidden());
        }
        if !std::io::stderr().is_terminal() {
            self.say(what);
            return Progress(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Progress(bar)
    }
}

/// A spinner that goes when it is dropped.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
