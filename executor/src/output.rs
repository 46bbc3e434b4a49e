//! What a guest writes.

use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use executor_protocol::{GuestStream, Limits};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

use crate::guest::Stop;

/// A line of guest output is cut after this many bytes.
const LINE_BYTES: usize = 8 << 10;

/// Takes what a guest writes. Each piece, at most one line, becomes one JSON object on a line of the executor's
/// stderr: `{"guest":"stdout","text":"…\n"}`; `"lossy":true` stands in it when bytes were no UTF-8, and
/// `"truncated":true` in the last one when the limit was passed.
///
/// The stdout of a command is its value: it is kept, not logged, up to the result limit (`result_too_large`); when
/// the command fails it is logged after all. Everything else counts against the output limit (`output_too_large`).
#[derive(Clone)]
pub struct Output(Arc<Mutex<Inner>>);

struct Inner {
    log: Box<dyn Write + Send>,
    log_bytes_left: u64,
    value: Option<Vec<u8>>,
    value_bytes_most: usize,
    stdout: Written,
    stderr: Written,
}

#[derive(Default)]
struct Written {
    bytes: u64,
    /// The beginning of a line that has not ended.
    open: Vec<u8>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Output")
    }
}

impl Output {
    /// Output that is logged to `log`; `command` says whether stdout is the value.
    #[must_use]
    pub fn new(log: Box<dyn Write + Send>, command: bool, limits: &Limits) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            log,
            log_bytes_left: limits.output_bytes,
            value: command.then(Vec::new),
            value_bytes_most: usize::try_from(limits.result_bytes).unwrap_or(usize::MAX),
            stdout: Written::default(),
            stderr: Written::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One end for a guest to write to.
    #[must_use]
    pub fn stream(&self, stream: GuestStream) -> Stream {
        Stream { stream, output: self.clone() }
    }

    /// What a command wrote to stdout, as its value.
    #[must_use]
    pub fn take_value(&self) -> Vec<u8> {
        self.lock().value.take().unwrap_or_default()
    }

    /// Ends the log: a value that was not taken is logged, open lines are written.
    pub fn finish(&self) {
        let mut inner = self.lock();
        if let Some(value) = inner.value.take() {
            // The limit was counted when the bytes came.
            let _ = inner.log(GuestStream::Stdout, &value);
        }
        inner.close(GuestStream::Stdout);
        inner.close(GuestStream::Stderr);
    }

    /// Bytes written to stdout and to stderr so far.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.stdout.bytes, inner.stderr.bytes)
    }
}

impl Inner {
    fn written(&mut self, stream: GuestStream) -> &mut Written {
        match stream {
            GuestStream::Stdout => &mut self.stdout,
            GuestStream::Stderr => &mut self.stderr,
        }
    }

    fn take(&mut self, stream: GuestStream, bytes: &[u8]) -> Result<(), Stop> {
        self.written(stream).bytes += bytes.len() as u64;
        if let (GuestStream::Stdout, Some(value)) = (stream, &mut self.value) {
            if value.len() + bytes.len() > self.value_bytes_most {
                return Err(Stop::ResultTooLarge);
            }
            value.extend_from_slice(bytes);
            return Ok(());
        }
        self.log(stream, bytes)
    }

    fn log(&mut self, stream: GuestStream, bytes: &[u8]) -> Result<(), Stop> {
        let room = usize::try_from(self.log_bytes_left).unwrap_or(usize::MAX);
        let (fits, rest) = bytes.split_at(bytes.len().min(room));
        self.log_bytes_left -= fits.len() as u64;
        for line in fits.split_inclusive(|byte| *byte == b'\n') {
            self.written(stream).open.extend_from_slice(line);
            if line.ends_with(b"\n") || self.written(stream).open.len() >= LINE_BYTES {
                self.flush(stream);
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        self.close(stream);
        self.emit(&serde_json::json!({"guest": stream, "text": "", "truncated": true}));
        Err(Stop::OutputTooLarge)
    }

    /// Writes the open line, in pieces that do not cut a character.
    fn flush(&mut self, stream: GuestStream) {
        let mut open = std::mem::take(&mut self.written(stream).open);
        while !open.is_empty() {
            let whole = open.len() <= LINE_BYTES && open.ends_with(b"\n");
            let mut end = open.len().min(LINE_BYTES);
            if !whole
                && let Some(Err(error)) = open.get(..end).map(std::str::from_utf8)
                && error.error_len().is_none()
            {
                end = error.valid_up_to();
            }
            if end == 0 || (!whole && end < LINE_BYTES - 4) {
                break;
            }
            let rest = open.split_off(end);
            self.piece(stream, &open);
            open = rest;
        }
        self.written(stream).open = open;
    }

    /// Writes what is left of the open line.
    fn close(&mut self, stream: GuestStream) {
        let open = std::mem::take(&mut self.written(stream).open);
        for piece in open.chunks(LINE_BYTES) {
            self.piece(stream, piece);
        }
    }

    fn piece(&mut self, stream: GuestStream, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let lossy = matches!(text, std::borrow::Cow::Owned(_));
        let mut line = serde_json::json!({"guest": stream, "text": text});
        if let (true, Some(fields)) = (lossy, line.as_object_mut()) {
            fields.insert("lossy".to_owned(), true.into());
        }
        self.emit(&line);
    }

    fn emit(&mut self, line: &serde_json::Value) {
        // A log that nobody takes is no reason for a guest to fail.
        let _ = self.log.write_all(format!("{line}\n").as_bytes());
    }
}

/// One of a guest's output streams.
#[derive(Debug, Clone)]
pub struct Stream {
    stream: GuestStream,
    output: Output,
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let taken = self.output.lock().take(self.stream, &bytes);
        taken.map_err(|stop| StreamError::Trap(stop.into()))
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(64 << 10)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let taken = self.output.lock().take(self.stream, bytes);
        Poll::Ready(taken.map(|()| bytes.len()).map_err(std::io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::sync::mpsc;

    use super::*;

    struct Pipe(mpsc::Sender<u8>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            bytes.iter().for_each(|byte| self.0.send(*byte).unwrap());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(writes: &[&[u8]], limits: &Limits) -> (Vec<serde_json::Value>, Option<Stop>) {
        let (sender, receiver) = mpsc::channel();
        let output = Output::new(Box::new(Pipe(sender)), false, limits);
        let stop =
            writes.iter().find_map(|bytes| output.lock().take(GuestStream::Stderr, bytes).err());
        output.finish();
        drop(output);
        let text = String::from_utf8(receiver.iter().collect()).unwrap();
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), stop)
    }

    fn joined(lines: &[serde_json::Value]) -> String {
        lines.iter().map(|line| line["text"].as_str().unwrap()).collect()
    }

    #[test]
    fn every_line_is_one_object_and_nothing_is_lost() {
        let (lines, stop) =
            logged(&[b"one\ntw", b"o\n{\"status\":\"ok\"}\nend"], &Limits::default());
        assert!(stop.is_none());
        assert_eq!(lines.len(), 4);
        assert_eq!(joined(&lines), "one\ntwo\n{\"status\":\"ok\"}\nend");
        assert!(lines.iter().all(|line| line["guest"] == "stderr" && line.get("lossy").is_none()));
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let text = "ä€𝄞".repeat(5_000);
        let (lines, _) = logged(&[text.as_bytes()], &Limits::default());
        assert!(lines.len() > 4);
        assert_eq!(joined(&lines), text);
        assert!(lines.iter().all(|line| line.get("lossy").is_none()));
    }

    #[test]
    fn bytes_that_are_no_text_are_flagged() {
        let (lines, _) = logged(&[b"a\xff\n", &[0xff; 20_000]], &Limits::default());
        assert_eq!(
            lines[0],
            serde_json::json!({"guest": "stderr", "text": "a\u{fffd}\n", "lossy": true})
        );
        assert_eq!(joined(&lines).chars().filter(|c| *c == '\u{fffd}').count(), 20_001);
    }

    #[test]
    fn more_than_the_limit_is_cut_and_flagged() {
        let limits = Limits { output_bytes: 10, ..Limits::default() };
        let (lines, stop) = logged(&[b"12345\n", b"678901"], &limits);
        assert!(matches!(stop, Some(Stop::OutputTooLarge)));
        assert_eq!(joined(&lines), "12345\n6789");
        assert_eq!(lines.last().unwrap()["truncated"], true);
    }
}
