//! Pipelined HTTP/1.1 requests: only so much of it as the admin socket of a relay needs.

use std::io::BufRead;

use anyhow::{Context as _, ensure};

/// Longest body that an answer may have, in bytes.
const MOST: usize = 1 << 20;

/// Appends a POST request.
pub(super) fn post(out: &mut Vec<u8>, path: &str, body: &str) {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: admin\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body.as_bytes());
}

/// Reads an answer, which must have status 200 and a length; returns its body.
pub(super) fn answer(reader: &mut impl BufRead) -> anyhow::Result<Vec<u8>> {
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let mut length = None;
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "the connection ended");
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>()?);
        }
    }
    let mut body = vec![0; length.filter(|length| *length <= MOST).context("an answer without a length")?];
    reader.read_exact(&mut body)?;
    ensure!(status.contains(" 200 "), "{}: {}", status.trim_end(), String::from_utf8_lossy(&body));
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_follow_each_other_and_a_refusal_is_told() {
        let good = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let bad = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfull";
        let both = format!("{good}{bad}");
        let mut said = both.as_bytes();
        assert_eq!(answer(&mut said).expect("good"), b"{}");
        assert!(answer(&mut said).expect_err("refused").to_string().contains("full"));
    }
}
