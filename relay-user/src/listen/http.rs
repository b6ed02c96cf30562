//! The head of an HTTP/1.1 request, as far as the relay cares.
//!
//! Parsed by hand over httparse, because fast start forbids any response: what follows the head is DERP at
//! once.

use std::io;

/// Longest request head: what clients send has some 200 bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Most header lines.
const MAX_HEADERS: usize = 64;

/// The parts of a request that decide its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// `GET` and so on.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// The request target as it came.
    pub target: String,
    /// `Host`.
    pub host: String,
    /// `Upgrade`, lower case; empty: none.
    pub upgrade: String,
    /// `Derp-Fast-Start` is exactly `1`.
    pub fast_start: bool,
    /// `X-Tailscale-Challenge`.
    pub challenge: String,
    /// The client may send another request on this connection.
    pub keep_alive: bool,
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The transport failed or was closed.
    #[error("transport: {0}")]
    Io(#[from] io::Error),
    /// Not an HTTP/1 request.
    #[error("not an HTTP/1 request: {0}")]
    Malformed(#[from] httparse::Error),
    /// Longer than the relay will read.
    #[error("request head over {MAX_HEAD_BYTES} bytes")]
    TooLong,
    /// A request with a body, which no page takes.
    #[error("request with a body")]
    Body,
}

impl Head {
    /// Whether the answer must have no body.
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

/// Parses the head at the start of `bytes`: the head and its length, or `None` while it is not whole.
///
/// # Errors
/// It cannot become a request any more.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let window = &bytes[..bytes.len().min(MAX_HEAD_BYTES)];
    let httparse::Status::Complete(len) = request.parse(window)? else {
        return if bytes.len() >= MAX_HEAD_BYTES { Err(HeadError::TooLong) } else { Ok(None) };
    };
    let target = request.path.unwrap_or_default().to_owned();
    let mut head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: target.split('?').next().unwrap_or_default().to_owned(),
        target,
        keep_alive: request.version == Some(1),
        ..Head::default()
    };
    for header in request.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        match header.name.to_ascii_lowercase().as_str() {
            "host" => head.host = value.into_owned(),
            "upgrade" => head.upgrade = value.to_ascii_lowercase(),
            "derp-fast-start" => head.fast_start = value == "1",
            "x-tailscale-challenge" => head.challenge = value.into_owned(),
            "connection" if value.eq_ignore_ascii_case("close") => head.keep_alive = false,
            "content-length" if value.trim() != "0" => return Err(HeadError::Body),
            "transfer-encoding" => return Err(HeadError::Body),
            _ => {}
        }
    }
    Ok(Some((head, len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST_START: &[u8] =
        b"GET /derp?x=1 HTTP/1.1\r\nHost: relay.example\r\nUser-Agent: Go-http-client/1.1\r\n\
        Connection: Upgrade\r\nDerp-Fast-Start: 1\r\nUpgrade: DERP\r\n\r\n\x02rest";

    #[test]
    fn what_follows_the_head_is_left_alone() {
        let (head, len) = parse(FAST_START).expect("valid").expect("whole");
        assert_eq!(&FAST_START[len..], b"\x02rest");
        assert_eq!((head.path.as_str(), head.upgrade.as_str(), head.fast_start), ("/derp", "derp", true));
    }

    #[test]
    fn every_shorter_prefix_waits_for_more() {
        let whole = FAST_START.len() - 5;
        for len in 0..whole {
            assert!(matches!(parse(&FAST_START[..len]), Ok(None)), "{len} bytes");
        }
    }

    #[test]
    fn garbage_length_and_bodies_are_told_apart() {
        assert!(matches!(parse(b"\x16\x03\x01\x02\x00\x01"), Err(HeadError::Malformed(_))));
        let mut long = b"GET / HTTP/1.1\r\nX: ".to_vec();
        long.resize(MAX_HEAD_BYTES + 1, b'a');
        assert!(matches!(parse(&long), Err(HeadError::TooLong)));
        assert!(matches!(parse(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), Err(HeadError::Body)));
    }

    #[test]
    fn fast_start_is_exactly_one() {
        let (head, _) =
            parse(b"GET /derp HTTP/1.1\r\nDerp-Fast-Start: true\r\n\r\n").expect("valid").expect("whole");
        assert!(!head.fast_start);
    }
}
