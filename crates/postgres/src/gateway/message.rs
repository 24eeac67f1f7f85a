//! Messages of PostgreSQL's protocol, version 3: a type, a length, a body.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a server says before it is ready, and what a client answers (a token is the longest), in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 32 * 1024;

#[derive(Debug)]
pub(super) struct Message {
    pub kind: u8,
    pub body: Vec<u8>,
}

impl Message {
    pub(super) fn new(kind: u8, body: Vec<u8>) -> Self {
        Self { kind, body }
    }

    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let kind = from.read_u8().await?;
        let length = from.read_u32().await? as usize;
        let body = length.checked_sub(4).filter(|body| *body <= MESSAGE_BYTES_MAX);
        let body = body.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "a message's length is out of bounds")
        })?;
        let mut message = Self { kind, body: vec![0; body] };
        from.read_exact(&mut message.body).await?;
        Ok(message)
    }

    pub(super) fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.kind);
        bytes.extend((self.body.len() as u32 + 4).to_be_bytes());
        bytes.extend(&self.body);
    }

    pub(super) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.body.len() + 5);
        self.append_to(&mut bytes);
        to.write_all(&bytes).await?;
        to.flush().await
    }

    /// The number that an authentication message begins with.
    pub(super) fn number(&self) -> Option<u32> {
        self.body.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// What follows that number.
    pub(super) fn rest(&self) -> &[u8] {
        self.body.get(4..).unwrap_or_default()
    }

    /// The code of an error.
    pub(super) fn error_code(&self) -> Option<&str> {
        let fields = self.body.split(|byte| *byte == 0);
        let code = fields.filter_map(|field| field.strip_prefix(b"C")).next()?;
        std::str::from_utf8(code).ok()
    }
}

/// Why a client is turned away, in the protocol's own form.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Five characters, such as `28000`: no such login.
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

pub(super) async fn refuse(to: &mut (impl AsyncWrite + Unpin), refusal: &Refusal) -> io::Result<()> {
    let mut body = Vec::new();
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', refusal.code), (b'M', &refusal.message)] {
        body.push(field);
        body.extend(value.bytes().filter(|byte| *byte != 0));
        body.push(0);
    }
    body.push(0);
    Message::new(b'E', body).write(to).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever says nothing but a length is given no memory for it.
    #[tokio::test]
    async fn a_message_is_as_long_as_it_may_be_or_not_read() {
        let read = async |length: usize| {
            let bytes = [&[b'p'][..], &(length as u32).to_be_bytes()].concat();
            Message::read(&mut bytes.as_slice()).await.unwrap_err().kind()
        };
        for length in [0, 3, MESSAGE_BYTES_MAX + 5, u32::MAX as usize] {
            assert_eq!(read(length).await, io::ErrorKind::InvalidData, "{length}");
        }
        assert_eq!(read(MESSAGE_BYTES_MAX + 4).await, io::ErrorKind::UnexpectedEof, "it is waited for");
    }
}
