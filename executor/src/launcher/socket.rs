//! The launcher's end of the socket to its coordinator.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use executor_protocol::launcher::{Ask, MAX_MESSAGE_BYTES, Tell};
use rustix::io::Errno;

use crate::confine::{packet, wipe};

/// What came.
pub(super) enum Heard {
    /// A message with its descriptors.
    Ask(Ask, Vec<OwnedFd>),
    /// Nothing now.
    Nothing,
    /// The coordinator is gone.
    Closed,
}

/// The socket, with what waits to be said. Nothing here ever waits: the launcher's timers must not.
pub(super) struct Socket {
    descriptor: OwnedFd,
    waiting: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    buffer: Vec<u8>,
}

impl Socket {
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Self { descriptor, waiting: VecDeque::new(), buffer: vec![0; MAX_MESSAGE_BYTES] })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Whether something waits to be said.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes the next message.
    pub(super) fn hear(&mut self) -> io::Result<Heard> {
        let (length, descriptors) = match packet::receive(&self.descriptor, &mut self.buffer) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Heard::Nothing),
            Err(Errno::CONNRESET) => return Ok(Heard::Closed),
            Err(error) => return Err(error.into()),
        };
        if length == 0 {
            return Ok(Heard::Closed);
        }
        let message = self.buffer.get_mut(..length).unwrap_or_default();
        let ask = serde_json::from_slice(message)?;
        wipe(message);
        Ok(Heard::Ask(ask, descriptors))
    }

    /// Says something, now or as soon as there is room.
    pub(super) fn tell(&mut self, tell: &Tell, descriptor: Option<OwnedFd>) -> io::Result<()> {
        self.waiting.push_back((serde_json::to_vec(tell)?, descriptor));
        self.flush()
    }

    /// Says what waits, as far as there is room.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some((message, descriptor)) = self.waiting.front() {
            let descriptors: Vec<BorrowedFd<'_>> =
                descriptor.iter().map(|descriptor| descriptor.as_fd()).collect();
            match packet::send(&self.descriptor, message, &descriptors) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The coordinator is gone, which the next poll says as well.
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.waiting.clear();
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
