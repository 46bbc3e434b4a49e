//! The coordinator's end of the socket to its launcher.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use executor_protocol::launcher::{Ask, MAX_DESCRIPTORS, MAX_MESSAGE_BYTES, Tell};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    recvmsg, sendmsg, shutdown, socketpair,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A socket of packets. The stream type lends only its place in the event loop: nothing is read or written through
/// its own methods.
pub(super) struct Socket(UnixStream);

impl Socket {
    /// A pair: this end, and the one that becomes the launcher's standard input.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let ours = std::os::unix::net::UnixStream::from(ours);
        ours.set_nonblocking(true)?;
        Ok((Self(UnixStream::from_std(ours)?), theirs))
    }

    /// The launcher's next message; none when it has closed its end.
    pub(super) async fn hear(&self) -> io::Result<Option<(Tell, Option<OwnedFd>)>> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        self.0.async_io(Interest::READABLE, || receive(self.0.as_fd(), &mut buffer)).await
    }

    /// Says something. The descriptors are the launcher's as well from then on.
    pub(super) async fn ask(&self, message: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> =
            descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        self.0
            .async_io(Interest::WRITABLE, || {
                let mut space =
                    [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty()
                    && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors))
                {
                    return Err(io::Error::other("too many descriptors"));
                }
                let message = [IoSlice::new(message)];
                sendmsg(&self.0, &message, &mut ancillary, SendFlags::NOSIGNAL)?;
                Ok(())
            })
            .await
    }

    /// Closes both directions: the launcher ends its children and then itself.
    pub(super) fn close(&self) {
        // It may be closed already.
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<Option<(Tell, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = match recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    ) {
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        received => received?,
    };
    let descriptor = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .next();
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::other("a message larger than agreed"));
    }
    let message = buffer.get(..received.bytes).unwrap_or_default();
    Ok(Some((serde_json::from_slice(message)?, descriptor)))
}

/// The largest message to a launcher fits, or the message is not sent at all.
pub(super) fn encode(ask: &Ask) -> Result<Vec<u8>, crate::Error> {
    let message = serde_json::to_vec(ask).map_err(|e| crate::Error::Gone(e.to_string()))?;
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(crate::Error::TooLarge(message.len()));
    }
    Ok(message)
}
