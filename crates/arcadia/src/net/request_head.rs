//! The first lines of a client of the proxy: `CONNECT host:443 HTTP/1.1`, also as HTTP/1.0 without any header.

use arcadia_kernel::parse_authority;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest head that is read, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What a client of the proxy asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// A tunnel to a host (a name, or an address without brackets) and a port.
    Connect { host: String, port: u16 },
    /// `GET http://...`: plain HTTP to be forwarded.
    Forward,
    /// `GET /...`: someone took the proxy for a web server.
    Origin,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// The client went away; there is nobody to answer.
    #[error("the connection ended before a request")]
    Closed,
    #[error("the request head is longer than {HEAD_BYTES_MAX} bytes")]
    TooLong,
    #[error("this is not an HTTP/1.x request: {0}")]
    Malformed(&'static str),
}

/// Reads one request head; returns also the bytes that came after it, which belong to the tunnel.
pub async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Ask, Vec<u8>), HeadFault> {
    let mut buffer = Vec::with_capacity(1024);
    let mut searched = 0;
    let end = loop {
        if let Some(at) = find(&buffer[searched..], b"\r\n\r\n") {
            break searched + at;
        }
        // The end may have begun. What is before it is not looked at again, however small the pieces.
        searched = buffer.len().saturating_sub(3);
        if buffer.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            // A TLS hello or another protocol: say so at once instead of waiting for an end that never comes.
            return Err(HeadFault::Malformed("it does not begin with a method"));
        }
        if buffer.len() >= HEAD_BYTES_MAX {
            return Err(HeadFault::TooLong);
        }
        let mut chunk = [0; 4096];
        let room = chunk.len().min(HEAD_BYTES_MAX - buffer.len());
        let count = stream.read(&mut chunk[..room]).await.map_err(|_| HeadFault::Closed)?;
        if count == 0 {
            return Err(HeadFault::Closed);
        }
        buffer.extend_from_slice(&chunk[..count]);
    };
    let rest = buffer.split_off(end + 4);
    buffer.truncate(end);
    Ok((parse(&buffer)?, rest))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn parse(head: &[u8]) -> Result<Ask, HeadFault> {
    let text = std::str::from_utf8(head).map_err(|_| HeadFault::Malformed("it is not text"))?;
    let line = text.split("\r\n").next().unwrap_or_default();
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadFault::Malformed("its first line is not `METHOD target HTTP/1.1`"));
    };
    if !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
        return Err(HeadFault::Malformed("its version is not HTTP/1.0 or HTTP/1.1"));
    }
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(HeadFault::Malformed("its method is not a word"));
    }
    if method == "CONNECT" {
        let (host, port) = parse_authority(target)
            .ok_or(HeadFault::Malformed("the target of CONNECT is not `host:port`"))?;
        return Ok(Ask::Connect { host, port });
    }
    Ok(if target.starts_with('/') || target == "*" { Ask::Origin } else { Ask::Forward })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<(Ask, Vec<u8>), HeadFault> {
        read_head(&mut &*bytes).await
    }

    fn connect(host: &str, port: u16) -> Ask {
        Ask::Connect { host: host.into(), port }
    }

    #[tokio::test]
    async fn both_versions_with_and_without_headers() {
        for head in [
            "CONNECT kv.vault.azure.net:443 HTTP/1.0\r\n\r\n",
            "CONNECT kv.vault.azure.net:443 HTTP/1.1\r\nHost: kv.vault.azure.net:443\r\n\r\n",
            "CONNECT kv.vault.azure.net:443 HTTP/1.1\r\nHost: kv.vault.azure.net\r\nUser-Agent: x\r\n\r\n",
        ] {
            let (ask, rest) = read(&[head.as_bytes(), b"\x16\x03"].concat()).await.unwrap();
            assert_eq!((ask, rest.as_slice()), (connect("kv.vault.azure.net", 443), &b"\x16\x03"[..]));
        }
        let (ask, _) = read(b"CONNECT [::1]:443 HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(ask, connect("::1", 443));
    }

    #[tokio::test]
    async fn a_head_may_come_in_any_pieces() {
        let head = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\nrest";
        for size in 1..head.len() {
            let (mut far, mut near) = tokio::io::duplex(size);
            let sent = tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut far, head).await });
            let (ask, mut rest) = read_head(&mut near).await.unwrap();
            near.read_to_end(&mut rest).await.unwrap();
            assert_eq!((ask, rest.as_slice()), (connect("a.example", 443), &b"rest"[..]), "{size}");
            sent.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn other_requests_are_told_apart() {
        assert_eq!(read(b"GET http://a/ HTTP/1.1\r\n\r\n").await.unwrap().0, Ask::Forward);
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap().0, Ask::Origin);
    }

    #[tokio::test]
    async fn malformed_heads() {
        for head in [
            "CONNECT a HTTP/1.1\r\n\r\n",
            "CONNECT a: HTTP/1.1\r\n\r\n",
            "CONNECT a:0 HTTP/1.1\r\n\r\n",
            "CONNECT a:+443 HTTP/1.1\r\n\r\n",
            "CONNECT a:65536 HTTP/1.1\r\n\r\n",
            "CONNECT :443 HTTP/1.1\r\n\r\n",
            "CONNECT ::1:443 HTTP/1.1\r\n\r\n",
            "CONNECT .:443 HTTP/1.1\r\n\r\n",
            "CONNECT localhost..:443 HTTP/1.1\r\n\r\n",
            "CONNECT management.azure.com..:443 HTTP/1.1\r\n\r\n",
            "CONNECT a..vault.azure.net:443 HTTP/1.1\r\n\r\n",
            "CONNECT .vault.azure.net:443 HTTP/1.1\r\n\r\n",
            "CONNECT [a]:443 HTTP/1.1\r\n\r\n",
            "CONNECT a/b:443 HTTP/1.1\r\n\r\n",
            "CONNECT u@a:443 HTTP/1.1\r\n\r\n",
            "CONNECT a:443 HTTP/2.0\r\n\r\n",
            "CONNECT  a:443 HTTP/1.1\r\n\r\n",
            "CONNECT a:443\r\n\r\n",
            "\x16\x03\x01\x02\x00",
        ] {
            assert!(matches!(read(head.as_bytes()).await, Err(HeadFault::Malformed(_))), "{head:?}");
        }
        let long = format!("CONNECT {}:443 HTTP/1.1\r\n\r\n", "a".repeat(254));
        assert!(matches!(read(long.as_bytes()).await, Err(HeadFault::Malformed(_))));
        let endless = format!("CONNECT a:443 HTTP/1.1\r\nX: {}", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(read(endless.as_bytes()).await.unwrap_err(), HeadFault::TooLong);
        assert_eq!(read(b"CONNECT a:443 HT").await.unwrap_err(), HeadFault::Closed);
    }
}
