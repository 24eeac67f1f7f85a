//! Whose process is at the other end of a connection.

use std::net::SocketAddr;
use std::sync::OnceLock;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use tokio::net::TcpStream;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
/// A `nlmsghdr` (16 bytes) and an `inet_diag_req_v2` (56 bytes).
const REQUEST_BYTES: u32 = 72;
/// In the answer, after a `nlmsghdr`: an `inet_diag_msg`, which begins with four numbers of one byte, the two ports
/// and what else names a socket, and has the user's id and the file's number after three numbers more.
const PORTS_AT: usize = 20;
const USER_AT: usize = 80;
const FILE_AT: usize = 84;

/// A client on this machine.
pub(crate) struct LocalCaller {
    own: SocketAddr,
    remote: SocketAddr,
    user: OnceLock<Option<u32>>,
}

impl LocalCaller {
    pub(crate) fn of(stream: &TcpStream) -> std::io::Result<Self> {
        let (own, remote) = (stream.local_addr()?, stream.peer_addr()?);
        Ok(Self { own, remote, user: OnceLock::new() })
    }

    /// One whose user is known, on no connection.
    #[cfg(test)]
    pub(super) fn known(user: u32) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { own: nowhere, remote: nowhere, user: OnceLock::from(Some(user)) }
    }

    /// The user that opened the connection; `None` where the system does not say, or no more. Asked once, and only when
    /// it matters.
    pub(crate) fn user(&self) -> Option<u32> {
        *self.user.get_or_init(|| {
            ask(self.remote, self.own)
                .inspect_err(|fault| tracing::debug!(%fault, "whose connection it is is not told"))
                .ok()
                .flatten()
        })
    }
}

/// Asks the system for one socket by both of its ends (sock_diag(7)), which takes no longer with many sockets.
fn ask(of: SocketAddr, to: SocketAddr) -> rustix::io::Result<Option<u32>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let channel = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?;
    // The system answers within the call.
    sendto(&channel, &request(of, to), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0_u8; 1024];
    let (length, _) = recv(&channel, &mut answer, RecvFlags::empty())?;
    Ok(user(answer.get(..length).unwrap_or_default(), of, to))
}

fn request(of: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut message = Vec::with_capacity(REQUEST_BYTES as usize);
    message.extend(REQUEST_BYTES.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence, port
    let family = if of.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    message.extend([family.as_raw().to_ne_bytes()[0], IPPROTO_TCP, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes()); // in any state
    message.extend(of.port().to_be_bytes());
    message.extend(to.port().to_be_bytes());
    message.extend(address(of));
    message.extend(address(to));
    message.extend(0_u32.to_ne_bytes()); // interface
    message.extend([u8::MAX; 8]); // no cookie
    message
}

fn address(of: SocketAddr) -> [u8; 16] {
    match of {
        SocketAddr::V4(of) => {
            let [a, b, c, d] = of.ip().octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        SocketAddr::V6(of) => of.ip().octets(),
    }
}

fn user(answer: &[u8], of: SocketAddr, to: SocketAddr) -> Option<u32> {
    let kind = answer.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)?;
    let [from, dest] = [of, to].map(|end| end.port().to_be_bytes());
    let is_asked =
        kind == SOCK_DIAG_BY_FAMILY && answer.get(PORTS_AT..PORTS_AT + 4)? == [from, dest].concat();
    let number = |at: usize| answer.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let (user, file) = (number(USER_AT)?, number(FILE_AT)?);
    // A socket that its process has closed has no file, and no owner: the system calls it root's.
    (is_asked && file != 0).then_some(user)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_local_caller_has_a_user() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = tokio::net::TcpListener::bind(listen).await else { continue };
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let caller = LocalCaller::of(&stream).unwrap();
            let own = rustix::process::geteuid().as_raw();
            assert_eq!(ask(caller.remote, caller.own), Ok(Some(own)), "{listen}");
            assert_eq!(caller.user(), Some(own));
            // Who has said all and waits for the answer is still there.
            client.shutdown().await.unwrap();
            assert_eq!(ask(caller.remote, caller.own), Ok(Some(own)), "{listen}");
            drop(client);
            assert_eq!(ask(caller.remote, caller.own), Ok(None), "who is gone is not root, {listen}");
            assert_eq!(caller.user(), Some(own), "it is remembered");
        }
    }

    #[test]
    fn an_answer_about_something_else_is_none() {
        let (of, to) = ("127.0.0.1:4000".parse().unwrap(), "127.0.0.1:40342".parse().unwrap());
        assert_eq!(request(of, to).len(), REQUEST_BYTES as usize);
        let mut answer = vec![0; 88];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[20..24].copy_from_slice(&request(of, to)[24..28]);
        answer[80..84].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(user(&answer, of, to), None, "closed");
        answer[84..88].copy_from_slice(&9_u32.to_ne_bytes());
        assert_eq!(user(&answer, of, to), Some(7));
        assert_eq!(user(&answer, to, of), None, "the other way round");
        assert_eq!(user(&answer[..87], of, to), None, "cut short");
        // An error, such as that there is no such socket.
        answer[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        assert_eq!(user(&answer, of, to), None);
    }
}
