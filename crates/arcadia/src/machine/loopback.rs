//! Brings the loopback interface of a new network namespace up, which gives it 127.0.0.1 and ::1.

use std::io;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFF_UP: u32 = 1;
const LOOPBACK_INDEX: i32 = 1;

/// Sets the interface's state to up (rtnetlink(7), `RTM_NEWLINK` with `IFF_UP`).
pub fn up() -> io::Result<()> {
    // Protocol 0 of netlink is rtnetlink.
    let channel = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    sendto(&channel, &request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0_u8; 1024];
    let (length, _) = recv(&channel, &mut answer, RecvFlags::empty())?;
    outcome(answer.get(..length).unwrap_or_default())
}

/// A `nlmsghdr` (16 bytes) and an `ifinfomsg` (16 bytes), in the machine's byte order.
fn request() -> Vec<u8> {
    let mut message = Vec::with_capacity(32);
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend([0_u8, 0]); // family, padding
    message.extend(0_u16.to_ne_bytes()); // device type
    message.extend(LOOPBACK_INDEX.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes()); // flags
    message.extend(IFF_UP.to_ne_bytes()); // which flags to change
    message
}

/// The kernel acknowledges with an `nlmsgerr` whose error number is 0, or negative when it refused.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::other("an answer from the kernel that is no acknowledgement")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledgement(error: i32) -> Vec<u8> {
        let mut answer = vec![0_u8; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        answer[16..20].copy_from_slice(&error.to_ne_bytes());
        answer
    }

    #[test]
    fn the_kernels_word_counts() {
        assert_eq!(request().len(), 32);
        assert!(outcome(&acknowledgement(0)).is_ok());
        assert_eq!(outcome(&acknowledgement(-1)).unwrap_err().raw_os_error(), Some(1));
        assert!(outcome(&[]).is_err());
    }
}
