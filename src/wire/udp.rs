//! The socket: made once, never waited on, and never a reason to stop.
//!
//! A datagram that the operating system will not take is a lost datagram, as if
//! a router had dropped it: what matters is sent again by those who wait for an
//! answer. So a full buffer, a peer that is not there, a route that went away
//! or a firewall that forbids are counted and nothing else.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::net::UdpSocket;
use socket2::{Domain, Protocol, Socket, Type};

/// How much the socket's buffers are asked to hold. The usual default holds
/// three datagrams of 60 KB, fewer than a window of fragments.
pub const BUFFER_ASKED_BYTES: usize = 4 << 20;
/// No datagram is longer; a buffer of this length takes each of them whole.
pub const DATAGRAM_LIMIT_BYTES: usize = 65_536;
/// How often `receive` passes over a report of an earlier datagram's fate before
/// it lets its caller do something else.
const REPORTS_PASSED_OVER: usize = 64;

/// A socket that is bound.
#[derive(Debug)]
pub struct Bound {
    /// The socket; no call on it blocks.
    pub socket: UdpSocket,
    /// Where it is bound; the port is the real one where port 0 was asked for.
    pub address: SocketAddr,
    /// How much the receive buffer holds, as the operating system counts it.
    pub receive_buffer_bytes: usize,
    /// How much the send buffer holds, as the operating system counts it.
    pub send_buffer_bytes: usize,
}

/// Binds a socket to the address, for this node alone: the address is not shared
/// with a socket that has it already, so that two nodes never answer under one
/// name. The error's text names the address.
pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    bind_socket(address).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot bind a UDP socket to {address}: {error}"))
    })
}

fn bind_socket(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // What the system grants instead is good enough, and reported.
    let _ = socket.set_recv_buffer_size(BUFFER_ASKED_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_ASKED_BYTES);
    socket.bind(&address.into())?;
    let receive_buffer_bytes = socket.recv_buffer_size()?;
    let send_buffer_bytes = socket.send_buffer_size()?;
    let socket = UdpSocket::from_std(socket.into());
    let address = socket.local_addr()?;
    Ok(Bound { socket, address, receive_buffer_bytes, send_buffer_bytes })
}

/// Why a datagram was lost before it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The send buffer, or the system's memory for it, is full.
    Full,
    /// Nobody is there, or no way leads there, as far as the system knows.
    Unreachable,
    /// The system does not send datagrams so long.
    TooLong,
    /// Anything else.
    Other,
}

impl Lost {
    #[cfg(test)]
    /// Every reason, in the order of their numbers (`lost as usize`).
    pub const ALL: [Lost; 4] = [Lost::Full, Lost::Unreachable, Lost::TooLong, Lost::Other];

    /// The name to count it by.
    pub fn name(self) -> &'static str {
        match self {
            Lost::Full => "full",
            Lost::Unreachable => "unreachable",
            Lost::TooLong => "too_long",
            Lost::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Lost {
        /// Linux, and the BSDs with macOS, for a lack of buffers and for a
        /// datagram that is too long: std has no kinds of its own for them.
        const NO_BUFFERS: [i32; 2] = [105, 55];
        const TOO_LONG: [i32; 2] = [90, 40];
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::OutOfMemory => Lost::Full,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable => Lost::Unreachable,
            _ => match error.raw_os_error() {
                Some(code) if NO_BUFFERS.contains(&code) => Lost::Full,
                Some(code) if TOO_LONG.contains(&code) => Lost::TooLong,
                _ => Lost::Other,
            },
        }
    }
}

/// Sends a datagram. `Err` is a datagram lost, to be counted; the socket is as
/// good as before.
pub fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) -> Result<(), Lost> {
    loop {
        match socket.send_to(datagram, to) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Lost::of(&error)),
        }
    }
}

/// The next datagram, its length and its sender, or `None` when none is there.
/// `buffer` should have `DATAGRAM_LIMIT_BYTES`: what does not fit is cut off, and
/// then does not open. An error is the socket's own and may be met again.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
    for _ in 0..REPORTS_PASSED_OVER {
        match socket.recv_from(buffer) {
            Ok((length, from)) => return Ok(Some((length, from))),
            Err(error) if is_report(error.kind()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    // So many reports in a row say nothing about what lies behind them, and only
    // an empty socket may be left to wait on.
    Err(ErrorKind::Interrupted.into())
}

/// Whether the error tells of a datagram sent earlier (some systems say on
/// receiving that nobody was there), or of nothing at all.
fn is_report(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Interrupted
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn received(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; DATAGRAM_LIMIT_BYTES];
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some((length, from)) = receive(socket, &mut buffer).unwrap() {
                return (buffer[..length].to_vec(), from);
            }
            std::thread::yield_now();
        }
        panic!("no datagram arrived in 10 s");
    }

    #[test]
    fn long_datagrams_pass_between_loopback_addresses() {
        let [a, b] = [bind(any_port()).unwrap(), bind(any_port()).unwrap()];
        let datagram = vec![7; crate::wire::frame::LOOPBACK_DATAGRAM];
        send(&a.socket, &datagram, b.address).unwrap();
        assert_eq!(received(&b.socket), (datagram, a.address));
        assert_eq!(receive(&b.socket, &mut [0; 10]).unwrap(), None);
    }

    #[test]
    fn an_address_is_bound_once() {
        let first = bind(any_port()).unwrap();
        let error = bind(first.address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&first.address.to_string()), "{error}");
        drop(first.socket);
        bind(first.address).unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_named_in_the_error() {
        let error = bind("192.0.2.1:5565".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("192.0.2.1:5565"), "{error}");
    }

    #[test]
    fn the_buffers_that_were_granted_are_said() {
        let bound = bind(any_port()).unwrap();
        assert!(bound.receive_buffer_bytes > 0);
        assert!(bound.send_buffer_bytes > 0);
    }

    #[test]
    fn a_peer_that_is_not_there_harms_nothing() {
        let [a, b] = [bind(any_port()).unwrap(), bind(any_port()).unwrap()];
        let gone = bind(any_port()).unwrap().address;
        for _ in 0..10 {
            let _ = send(&a.socket, b"nobody", gone);
            assert_eq!(receive(&a.socket, &mut [0; 10]).unwrap(), None);
        }
        send(&a.socket, b"somebody", b.address).unwrap();
        assert_eq!(received(&b.socket).0, b"somebody");
    }

    #[test]
    fn a_send_that_cannot_be_is_a_lost_datagram() {
        let [a, b] = [bind(any_port()).unwrap(), bind(any_port()).unwrap()];
        assert!(send(&a.socket, &vec![0; 70_000], b.address).is_err());
        assert!(send(&a.socket, b"to IPv6", "[::1]:9".parse().unwrap()).is_err());
        send(&a.socket, b"still good", b.address).unwrap();
        assert_eq!(received(&b.socket).0, b"still good");
    }

    #[test]
    fn losses_are_told_apart() {
        let of = |code| Lost::of(&io::Error::from_raw_os_error(code));
        if cfg!(target_os = "linux") {
            assert_eq!(of(11), Lost::Full); // EAGAIN
            assert_eq!(of(12), Lost::Full); // ENOMEM
            assert_eq!(of(105), Lost::Full); // ENOBUFS
            assert_eq!(of(111), Lost::Unreachable); // ECONNREFUSED
            assert_eq!(of(113), Lost::Unreachable); // EHOSTUNREACH
            assert_eq!(of(101), Lost::Unreachable); // ENETUNREACH
            assert_eq!(of(90), Lost::TooLong); // EMSGSIZE
            assert_eq!(of(1), Lost::Other); // EPERM, a firewall's no
        }
        for (number, lost) in Lost::ALL.into_iter().enumerate() {
            assert_eq!(lost as usize, number);
        }
    }
}
