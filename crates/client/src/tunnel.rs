//! A tunnel through an HTTP proxy (RFC 9110 section 9.3.6).

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::connect::tcp;
use crate::origin::authority;
use crate::{ClientFault, Proxy};

pub(crate) const ANSWER_BYTES_MAX: usize = 16 * 1024;
const SHOWN_CHARACTERS_MAX: usize = 100;

impl Proxy {
    /// Asks for a tunnel to `host`, a name or an address without brackets, and gives it as soon as it is there. How
    /// long that may take is for the caller to say.
    pub async fn tunnel(&self, host: &str, port: u16) -> Result<TcpStream, ClientFault> {
        let target = authority(host, port);
        let refused =
            |reason: String| ClientFault::Proxy { proxy: self.to_string(), target: target.clone(), reason };
        let mut stream = tcp(self.host(), self.port(), &format!("the proxy {self}")).await?;
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| refused(error.to_string()))?;
        read_answer(&mut stream).await.map_err(refused)?;
        Ok(stream)
    }
}

/// Reads the proxy's answer to its blank line and not a byte further: what follows belongs to the tunnel. Tells why
/// there is none.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), String> {
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err("its answer is too long".to_owned());
        }
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err("it closed the connection without an answer".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut parts = line.split(' ');
    let (version, status) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if !version.starts_with("HTTP/1.") {
        return Err("its answer is not that of an HTTP proxy".to_owned());
    }
    if matches!(status.as_bytes(), [b'2', b'0'..=b'9', b'0'..=b'9']) {
        return Ok(());
    }
    let shown: String = line.chars().filter(|c| !c.is_control()).take(SHOWN_CHARACTERS_MAX).collect();
    Err(format!("it answered `{shown}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_follows_the_answer_is_left() {
        let mut answer = &b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nrest"[..];
        read_answer(&mut answer).await.unwrap();
        assert_eq!(answer, b"rest");
        assert!(read_answer(&mut &b"HTTP/1.0 200\r\n\r\n"[..]).await.is_ok());
        for (answer, told) in [
            (&b"HTTP/1.1 407 Who\x1b are you\r\n\r\n"[..], "it answered `HTTP/1.1 407 Who are you`"),
            (b"HTTP/1.1 2000 x\r\n\r\n", "it answered `HTTP/1.1 2000 x`"),
            (b"HTTP/1.1 +20 x\r\n\r\n", "it answered `HTTP/1.1 +20 x`"),
            (b"HTTP/2 200\r\n\r\n", "its answer is not that of an HTTP proxy"),
            (b"SSH-2.0\r\n\r\n", "its answer is not that of an HTTP proxy"),
            (b"HTTP/1.1 200 OK\r\n", "it closed the connection without an answer"),
            (&vec![b'x'; ANSWER_BYTES_MAX + 1], "its answer is too long"),
        ] {
            assert_eq!(read_answer(&mut &*answer).await.unwrap_err(), told);
        }
    }
}
