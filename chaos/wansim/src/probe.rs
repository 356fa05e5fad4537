//! Makes sure that a way works before anybody relies on it: a fresh interface drops what is sent
//! until the kernel has taken note of its carrier, which may take a second.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use crate::{Error, Namespace};

/// Longer than the kernel's second, on a machine that is busy.
const WITHIN: Duration = Duration::from_secs(20);
const AGAIN_AFTER: Duration = Duration::from_millis(25);

/// An end of a way.
#[derive(Clone, Copy)]
pub(crate) struct End<'n> {
    pub(crate) namespace: &'n Namespace,
    pub(crate) address: Ipv4Addr,
}

impl End<'_> {
    fn open(self) -> Result<UdpSocket, Error> {
        let bound = self.namespace.enter(|| UdpSocket::bind((self.address, 0)))?;
        bound.map_err(Error::kernel("open a probe"))
    }
}

/// Waits until a datagram of `from` reaches `to`.
pub(crate) fn reach(from: End<'_>, to: End<'_>) -> Result<(), Error> {
    let (sender, receiver) = (from.open()?, to.open()?);
    let address = receiver.local_addr().map_err(Error::kernel("open a probe"))?;
    receiver.set_read_timeout(Some(AGAIN_AFTER)).map_err(Error::kernel("open a probe"))?;
    let end = Instant::now() + WITHIN;
    while Instant::now() < end {
        // Where the way is not known yet, the next one may find it.
        let _lost = sender.send_to(&[0], address);
        if receiver.recv(&mut [0; 8]).is_ok() {
            return Ok(());
        }
    }
    Err(Error::Unreached { from: from.address, to: to.address })
}
