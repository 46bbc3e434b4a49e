//! The log: one line for each event, on stderr, so that stdout carries data alone.
//!
//! Texts of guests, gateways and providers get into fields. Here is the one place where a field becomes part of a
//! line, so here it is made harmless: what could end or reorder a line is escaped, what is long is cut, and no field
//! takes the place of the message or of another one.

use std::{
    fmt::{self, Write as _},
    io::IsTerminal as _,
};

use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    EnvFilter, Layer, layer::Context, layer::SubscriberExt as _, registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::config::{Log, LogFormat};

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter's directives cannot be read.
    #[error("the log filter cannot be used")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// There is a log already.
    #[error("the log is started already")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts the log of this process.
pub fn start(log: &Log) -> Result<(), Error> {
    let lines = Lines::new(log.format, std::io::stderr().is_terminal(), |line: &str| {
        use std::io::Write as _;
        // One write for a line; a reader that has gone away wants no more.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    });
    tracing_subscriber::registry().with(EnvFilter::try_new(&log.filter)?).with(lines).try_init()?;
    Ok(())
}

/// The most characters of one field, and of the message.
const LONGEST: usize = 2_000;
/// The most characters of one line's fields together; further ones are left out.
const LONGEST_LINE: usize = 16_000;
/// What a line in JSON has of its own.
const OWN_KEYS: [&str; 6] = ["timestamp", "level", "message", "name", "target", "spans"];

/// Writes each event as one line.
pub struct Lines<W> {
    format: LogFormat,
    is_colored: bool,
    write: W,
}

impl<W> fmt::Debug for Lines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("format", &self.format).finish_non_exhaustive()
    }
}

impl<W: Fn(&str)> Lines<W> {
    /// Lines of this form, each handed to `write` with its line break.
    pub fn new(format: LogFormat, is_colored: bool, write: W) -> Self {
        Self { format, is_colored, write }
    }
}

/// The fields of a span, as they were recorded.
struct SpanFields(Fields);

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&str) + 'static,
{
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(SpanFields(fields)) = span.extensions_mut().get_mut() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut spans = Vec::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<SpanFields>().map(|SpanFields(fields)| fields.clone());
            spans.push((span.name(), fields.unwrap_or_default()));
        }
        let metadata = event.metadata();
        let at = format!("{:.6}", jiff::Timestamp::now());
        let line = match self.format {
            LogFormat::Text => text(&at, metadata.level(), self.is_colored, &spans, &fields),
            LogFormat::Json => json(&at, metadata.level(), metadata.target(), &spans, fields),
        };
        (self.write)(&line);
    }
}

/// Fields in their order, each name once, and the message apart.
#[derive(Debug, Clone, Default)]
struct Fields {
    message: String,
    named: Vec<(String, Value)>,
    size: usize,
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        self.size += value.as_str().map_or(8, str::len) + field.name().len();
        if self.size > LONGEST_LINE {
            return;
        }
        // A field that is called like something of the line's own keeps its value under another name.
        let mut name = match OWN_KEYS.contains(&field.name()) {
            true => format!("field.{}", field.name()),
            false => field.name().to_owned(),
        };
        while self.named.iter().any(|(known, _)| *known == name) {
            name.push('_');
        }
        self.named.push((name, value));
    }

    fn text(&mut self, field: &Field, text: &str, is_message: bool) {
        if is_message && field.name() == "message" && self.message.is_empty() {
            self.message = plain(text);
        } else {
            self.push(field, Value::String(plain(text)));
        }
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.push(field, value.to_string().into());
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.push(field, value.to_string().into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    /// A text is a value: it is never the message, which comes as the event's format.
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value, false);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &causes(value), false);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Bounded { text: String::new(), left: LONGEST * 2 };
        // A text that is too long is cut: that is the only error there is.
        let _ = write!(text, "{value:?}");
        self.text(field, &text.text, true);
    }
}

/// Takes as much as it has room for.
struct Bounded {
    text: String,
    left: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                return Err(fmt::Error);
            }
            self.left -= 1;
            self.text.push(c);
        }
        Ok(())
    }
}

/// A text that stays in its line and in its place, whatever is in it: control characters, line and paragraph separators,
/// and what changes the direction of writing are escaped; so is the backslash, so that escapes cannot be imitated.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (n, c) in text.chars().enumerate() {
        if n >= LONGEST {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if is_unsafe(c) => {
                // Writing into a text does not fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn text(
    at: &str,
    level: &Level,
    is_colored: bool,
    spans: &[(&'static str, Fields)],
    fields: &Fields,
) -> String {
    let mut line = match is_colored {
        true => format!("\x1b[2m{at}\x1b[0m {}{level:>5}\x1b[0m ", color(level)),
        false => format!("{at} {level:>5} "),
    };
    for (n, (name, fields)) in spans.iter().enumerate() {
        if n > 0 {
            line.push(':');
        }
        line.push_str(name);
        if !fields.named.is_empty() {
            line.push('{');
            line.push_str(&pairs(fields));
            line.push('}');
        }
    }
    if !spans.is_empty() {
        line.push_str(": ");
    }
    line.push_str(&fields.message);
    if !fields.named.is_empty() {
        line.push(' ');
        line.push_str(&pairs(fields));
    }
    line.push('\n');
    line
}

fn color(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// `name=value` pairs; a value that could be taken for several is quoted.
fn pairs(fields: &Fields) -> String {
    let mut out = String::new();
    for (name, value) in &fields.named {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(name);
        out.push('=');
        match value {
            Value::String(text)
                if text.is_empty()
                    || text.contains(|c: char| {
                        c.is_whitespace() || matches!(c, '"' | '=' | '{' | '}')
                    }) =>
            {
                out.push('"');
                out.push_str(&text.replace('"', "\\\""));
                out.push('"');
            }
            Value::String(text) => out.push_str(text),
            other => out.push_str(&other.to_string()),
        }
    }
    out
}

fn json(
    at: &str,
    level: &Level,
    target: &str,
    spans: &[(&'static str, Fields)],
    fields: Fields,
) -> String {
    let mut line = Map::new();
    line.insert("timestamp".to_owned(), at.into());
    line.insert("level".to_owned(), level.as_str().into());
    line.insert("message".to_owned(), fields.message.into());
    line.extend(fields.named);
    line.insert("target".to_owned(), target.into());
    let spans: Vec<Value> = spans
        .iter()
        .map(|(name, fields)| {
            let mut span: Map<_, _> = fields.named.iter().cloned().collect();
            span.insert("name".to_owned(), (*name).into());
            Value::Object(span)
        })
        .collect();
    if !spans.is_empty() {
        line.insert("spans".to_owned(), spans.into());
    }
    format!("{}\n", Value::Object(line))
}

/// An error and everything that caused it, in one line.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What guests, gateways and providers may say.
    const HOSTILE: [&str; 8] = [
        "two\nlines",
        "a\r\n2026-01-01T00:00:00Z ERROR forged: the key is lost",
        "sep\u{2028}arated\u{2029}lines\u{85}next",
        "\u{202e}desrever\u{2066}isolated\u{2069}",
        "\x1b[31mred\x1b[0m\x07\0",
        r#"","level":"ERROR","message":"forged"#,
        "\\n not a line break",
        "a=b message=\"forged\"",
    ];

    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let written = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&written);
        let lines = Lines::new(format, false, move |line: &str| to.lock().unwrap().push_str(line));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
        Arc::try_unwrap(written).map_or_else(
            |shared| shared.lock().unwrap().clone(),
            |alone| alone.into_inner().unwrap(),
        )
    }

    fn log_everywhere(text: &str) {
        let span = tracing::info_span!("task", name = text, message = %text, level = text);
        let _entered = span.enter();
        let error = std::io::Error::other(text.to_owned());
        tracing::warn!(
            message = text, error = %error, debug = ?text, level = text, timestamp = text, again = text,
            number = 7, cause = &error as &dyn std::error::Error, "a sentence of ours"
        );
    }

    #[test]
    fn v4_no_text_makes_a_line_of_its_own() {
        for text in HOSTILE {
            for format in [LogFormat::Text, LogFormat::Json] {
                let line = logged(format, || log_everywhere(text));
                assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
                let line = line.trim_end_matches('\n');
                assert!(!line.contains(is_unsafe), "{line:?}");
                assert!(line.contains("a sentence of ours"), "{line:?}");
            }
        }
    }

    #[test]
    fn v4_in_text_a_value_stays_between_its_quotes() {
        let line = logged(LogFormat::Text, || tracing::info!(value = HOSTILE[7], "a sentence"));
        assert!(
            line.ends_with(" INFO a sentence value=\"a=b message=\\\"forged\\\"\"\n"),
            "{line}"
        );
        let line = logged(LogFormat::Text, || tracing::info!(value = HOSTILE[6], "a sentence"));
        assert!(line.contains("value=\"\\\\n not a line break\""), "an escape is imitated: {line}");
    }

    #[test]
    fn v4_in_json_every_key_stands_once_and_the_message_is_ours() {
        for text in HOSTILE {
            let line = logged(LogFormat::Json, || log_everywhere(text));
            let value: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["message"], "a sentence of ours");
            assert_eq!(value["level"], "WARN");
            assert_eq!(value["field.message"], plain(text));
            assert_eq!(value["spans"][0]["name"], "task");
            // A map has each key once: what was written has no more.
            let keys = value.as_object().unwrap().keys();
            for key in keys {
                let key_text = format!("{}:", serde_json::to_string(key).unwrap());
                let written = line.matches(&key_text);
                let in_spans = value["spans"][0].get(key).map_or(0, |_| 1);
                assert!(written.count() <= 1 + in_spans, "{key} in {line}");
            }
        }
    }

    #[test]
    fn v4_what_is_long_is_cut() {
        let long = "x".repeat(1 << 20);
        for format in [LogFormat::Text, LogFormat::Json] {
            let line = logged(format, || {
                tracing::info!(a = long, b = %long, c = ?long, d = long, e = long, "short");
            });
            assert!(line.len() < 3 * LONGEST_LINE, "{}", line.len());
        }
    }
}
