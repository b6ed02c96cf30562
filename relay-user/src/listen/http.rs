//! The head of an HTTP/1.1 request: the parts that the relay needs, read as derper's HTTP server (Go's) reads
//! them. If a header comes twice, the first counts, except where a second one is an error.
//!
//! The head is parsed here over httparse, because fast start forbids any response: the bytes after the head
//! are DERP at once.

use std::io;

use hyper::Method;

/// Longest request head; clients send about 200 bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Most header lines of a request.
const MAX_HEADERS: usize = 64;

/// The parts of a request that decide its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// Path without the query.
    pub path: String,
    /// The request target as received.
    pub target: String,
    /// `Host`.
    pub host: String,
    /// `Upgrade`, in lower case; empty: absent.
    pub upgrade: String,
    /// Whether `Derp-Fast-Start` is exactly `1`.
    pub fast_start: bool,
    /// Whether `Ideal-Node` names another relay that the client would prefer.
    pub not_ideal: bool,
    /// `Sec-WebSocket-Protocol`.
    pub websocket_protocol: String,
    /// `X-Tailscale-Challenge`.
    pub challenge: String,
    /// Whether the client may send another request on this connection.
    pub keep_alive: bool,
}

/// Why no request could be read.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The transport failed or was closed.
    #[error("transport: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not an HTTP/1 request.
    #[error("not an HTTP/1 request: {0}")]
    Malformed(#[from] httparse::Error),
    /// The request breaks a rule of HTTP, which the text names.
    #[error("{0}")]
    Invalid(&'static str),
    /// The body has a transfer coding that is not supported.
    #[error("unsupported transfer encoding")]
    TransferEncoding,
    /// The head is longer than the relay reads.
    #[error("request head over {MAX_HEAD_BYTES} bytes")]
    TooLong,
    /// The request has a body; no page takes one.
    #[error("request with a body")]
    Body,
}

impl Head {
    /// Whether the answer must have no body.
    pub fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }
}

/// Parses the head at the start of `bytes`. Returns the head and its length, or `None` if it is not whole
/// yet.
///
/// # Errors
/// The bytes cannot become a valid request.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let window = &bytes[..bytes.len().min(MAX_HEAD_BYTES)];
    let httparse::Status::Complete(len) = request.parse(window)? else {
        return if bytes.len() >= MAX_HEAD_BYTES { Err(HeadError::TooLong) } else { Ok(None) };
    };
    let is_11 = request.version == Some(1);
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes());
    let method = method.map_err(|_| HeadError::Invalid("malformed method"))?;
    let host = host(&request, is_11 && method != Method::CONNECT)?;
    refuse_body(&request, is_11)?;
    let first = |name| String::from_utf8_lossy(all(&request, name).next().unwrap_or_default()).into_owned();
    let target = request.path.unwrap_or_default().to_owned();
    let head = Head {
        method,
        path: target.split('?').next().unwrap_or_default().to_owned(),
        target,
        host,
        upgrade: first("upgrade").to_ascii_lowercase(),
        fast_start: first("derp-fast-start") == "1",
        not_ideal: !first("ideal-node").is_empty(),
        websocket_protocol: first("sec-websocket-protocol"),
        challenge: first("x-tailscale-challenge"),
        keep_alive: is_11 && !all(&request, "connection").any(says_close),
    };
    Ok(Some((head, len)))
}

/// The values of all headers with this name, without white space around them.
fn all<'a>(request: &'a httparse::Request<'_, '_>, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value.trim_ascii())
}

fn says_close(connection: &[u8]) -> bool {
    connection.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn host(request: &httparse::Request<'_, '_>, is_required: bool) -> Result<String, HeadError> {
    let mut hosts = all(request, "host");
    let Some(host) = hosts.next() else {
        return if is_required {
            Err(HeadError::Invalid("missing required Host header"))
        } else {
            Ok(String::new())
        };
    };
    if hosts.next().is_some() {
        return Err(HeadError::Invalid("too many Host headers"));
    }
    // The characters allowed in a host (RFC 3986, 3.2.2), and the colon before its port.
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(byte);
    if !host.iter().all(allowed) {
        return Err(HeadError::Invalid("malformed Host header"));
    }
    Ok(String::from_utf8_lossy(host).into_owned())
}

/// Refuses any body: no page takes one. Even so, where a body begins or ends must be unambiguous (RFC 9112,
/// 6.3).
fn refuse_body(request: &httparse::Request<'_, '_>, is_11: bool) -> Result<(), HeadError> {
    // HTTP/1.0 has no transfer codings: the header has no meaning there.
    let mut codings = all(request, "transfer-encoding").filter(|_| is_11);
    if let Some(coding) = codings.next() {
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        return Err(if is_chunked { HeadError::Body } else { HeadError::TransferEncoding });
    }
    let mut lengths = all(request, "content-length");
    let Some(length) = lengths.next() else { return Ok(()) };
    if lengths.any(|other| other != length) {
        return Err(HeadError::Invalid("several values of Content-Length"));
    }
    match length {
        [] => Err(HeadError::Invalid("malformed Content-Length")),
        digits if !digits.iter().all(u8::is_ascii_digit) => {
            Err(HeadError::Invalid("malformed Content-Length"))
        }
        digits if digits.iter().all(|digit| *digit == b'0') => Ok(()),
        _ => Err(HeadError::Body),
    }
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
        assert!(matches!(parse(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc"), Err(HeadError::Body)));
    }

    /// The head of a request with these header lines besides `Host`.
    fn with(headers: &str) -> Result<Head, HeadError> {
        let request = format!("GET /derp HTTP/1.1\r\nHost: relay.example\r\n{headers}\r\n");
        parse(request.as_bytes()).map(|whole| whole.expect("whole").0)
    }

    #[test]
    fn fast_start_is_exactly_one() {
        assert!(!with("Derp-Fast-Start: true\r\n").expect("valid").fast_start);
        assert!(with("Derp-Fast-Start:  1 \r\n").expect("valid").fast_start);
    }

    #[test]
    fn of_a_header_that_comes_twice_the_first_counts() {
        let head = with(
            "Upgrade: derp\r\nUPGRADE: h2c\r\nDerp-Fast-Start: 0\r\nDerp-Fast-Start: 1\r\n\
             X-Tailscale-Challenge: a\r\nX-Tailscale-Challenge: b\r\n",
        )
        .expect("valid");
        assert_eq!((head.upgrade.as_str(), head.fast_start, head.challenge.as_str()), ("derp", false, "a"));
        let head = with("Upgrade:\r\nUpgrade: derp\r\n").expect("valid");
        assert_eq!(head.upgrade, "", "also when it is empty");
    }

    #[test]
    fn a_host_is_named_exactly_once() {
        let refused = |request: &[u8]| matches!(parse(request), Err(HeadError::Invalid(_)));
        assert!(refused(b"GET / HTTP/1.1\r\n\r\n"));
        assert!(refused(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"));
        assert!(refused(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"));
        for fine in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n\r\n"] {
            assert!(parse(fine.as_bytes()).expect("valid").is_some(), "{fine}");
        }
    }

    #[test]
    fn a_connection_closes_when_any_token_says_so() {
        for (headers, keep) in [
            ("", true),
            ("Connection: keep-alive\r\n", true),
            ("Connection: close\r\n", false),
            ("Connection: x , CLOSE\r\n", false),
            ("Connection: Upgrade\r\nconnection: Close, x\r\n", false),
            ("Connection: closed\r\n", true),
        ] {
            assert_eq!(with(headers).expect("valid").keep_alive, keep, "{headers:?}");
        }
    }

    #[test]
    fn where_a_body_ends_is_beyond_doubt() {
        for fine in ["Content-Length: 0\r\n", "Content-Length: 0\r\nContent-Length:  0\r\n"] {
            assert!(with(fine).is_ok(), "{fine:?}");
        }
        for body in ["Content-Length: 7\r\n", "Transfer-Encoding: CHUNKED\r\nContent-Length: 0\r\n"] {
            assert!(matches!(with(body), Err(HeadError::Body)), "{body:?}");
        }
        for length in ["-1", "+0", "0x0", "", "0, 0", "0\r\nContent-Length: 1"] {
            let wrong = with(&format!("Content-Length: {length}\r\n"));
            assert!(matches!(wrong, Err(HeadError::Invalid(_))), "{length:?}: {wrong:?}");
        }
        for coding in ["gzip", "chunked, gzip", "chunked\r\nTransfer-Encoding: chunked"] {
            let wrong = with(&format!("Transfer-Encoding: {coding}\r\n"));
            assert!(matches!(wrong, Err(HeadError::TransferEncoding)), "{coding:?}: {wrong:?}");
        }
    }
}
