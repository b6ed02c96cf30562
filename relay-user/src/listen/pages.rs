//! Chooses the answer to a request: DERP, a probe's answer, the captive-portal check, a redirect, the home
//! page.

mod home;

use std::time::SystemTime;

use hyper::{Method, StatusCode};
use relay_common::derp::PROTOCOL_VERSION;
use relay_common::key::NodePublic;

use super::http::{Head, HeadError};

/// Longest challenge that is echoed (upstream's rule, which also sets the allowed characters).
const MAX_CHALLENGE: usize = 64;

/// The result of routing a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageRoute {
    /// The connection speaks DERP from here on; with fast start no answer is sent.
    Derp {
        /// Whether the client waits for no answer.
        fast_start: bool,
    },
    /// An answer.
    Page(PageAnswer),
}

/// An HTTP answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageAnswer {
    status: StatusCode,
    // Names as Go's server writes them; the `http` crate's are in lower case.
    headers: Vec<(&'static str, String)>,
    body: &'static str,
    /// Whether the connection ends after this answer.
    pub close: bool,
}

impl PageAnswer {
    fn new(status: StatusCode) -> Self {
        Self { status, ..Self::default() }
    }

    fn text(status: StatusCode, body: &'static str) -> Self {
        let headers = vec![
            ("Content-Type", "text/plain; charset=utf-8".to_owned()),
            ("X-Content-Type-Options", "nosniff".to_owned()),
        ];
        Self { headers, body, ..Self::new(status) }
    }

    /// The bytes to send at `now`; `keep`: another request may follow; `head`: the body is left out.
    pub fn encode(&self, keep: bool, head: bool, now: SystemTime) -> Vec<u8> {
        let date = httpdate::fmt_http_date(now);
        let mut text = format!("HTTP/1.1 {}\r\nDate: {date}\r\n", self.status);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if self.status != StatusCode::NO_CONTENT {
            text += &format!("Content-Length: {}\r\n", self.body.len());
        }
        if !keep {
            text += "Connection: close\r\n";
        }
        text += "\r\n";
        if !head {
            text += self.body;
        }
        text.into_bytes()
    }
}

/// The answer on a DERP listener.
pub fn route(head: &Head) -> PageRoute {
    if head.method == Method::CONNECT {
        return PageRoute::Page(PageAnswer::text(StatusCode::FORBIDDEN, "CONNECT not enabled\n"));
    }
    match head.path.as_str() {
        "/derp" => derp(head),
        "/derp/probe" | "/derp/latency-check" => PageRoute::Page(probe(head)),
        "/generate_204" => PageRoute::Page(generate_204(head)),
        "/robots.txt" => PageRoute::Page(home::robots()),
        "/bootstrap-dns" => PageRoute::Page(home::bootstrap_dns()),
        // derper refuses strangers here. Any other page here would look like metrics that cannot be read.
        path if path == "/debug" || path.starts_with("/debug/") => PageRoute::Page(PageAnswer::text(
            StatusCode::NOT_FOUND,
            "ask `relayd status` on the relay's host\n",
        )),
        _ => PageRoute::Page(home::page()),
    }
}

/// The answer on the plain companion of a TLS listener.
pub fn companion_route(head: &Head) -> PageRoute {
    PageRoute::Page(match head.path.as_str() {
        "/generate_204" => generate_204(head),
        _ if head.method != Method::GET && !head.is_head() => {
            PageAnswer::text(StatusCode::BAD_REQUEST, "Use HTTPS\n")
        }
        _ => {
            let mut answer = PageAnswer::new(StatusCode::FOUND);
            answer.headers.push(("Location", format!("https://{}{}", head.host, head.target)));
            answer
        }
    })
}

/// The answer to bytes that are not a request; `None`: no client is left to read it.
pub fn refusal(error: &HeadError) -> Option<PageAnswer> {
    let answer = match error {
        HeadError::Io(_) => return None,
        HeadError::Malformed(_) => PageAnswer::text(StatusCode::BAD_REQUEST, "not an HTTP/1 request\n"),
        HeadError::Invalid(why) => PageAnswer::text(StatusCode::BAD_REQUEST, why),
        HeadError::TransferEncoding => {
            PageAnswer::text(StatusCode::NOT_IMPLEMENTED, "unsupported transfer encoding\n")
        }
        HeadError::TooLong => {
            PageAnswer::text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head is too long\n")
        }
        HeadError::Body => {
            PageAnswer::text(StatusCode::PAYLOAD_TOO_LARGE, "no page here takes a request body\n")
        }
    };
    Some(PageAnswer { close: true, ..answer })
}

/// The answer that turns the connection into DERP, in a normal start.
pub fn switching(key: &NodePublic) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\
         Derp-Version: {PROTOCOL_VERSION}\r\nDerp-Public-Key: {}\r\n\r\n",
        key.hex()
    )
    .into_bytes()
}

fn derp(head: &Head) -> PageRoute {
    let refused = |why| PageRoute::Page(PageAnswer::text(StatusCode::UPGRADE_REQUIRED, why));
    match head.upgrade.as_str() {
        "derp" => PageRoute::Derp { fast_start: head.fast_start },
        // Real WebSocket clients name a subprotocol; very old clients named WebSocket but spoke DERP.
        "websocket" if head.websocket_protocol.contains("derp") => {
            refused("WebSocket is not built into this relay; use Upgrade: DERP\n")
        }
        "websocket" => PageRoute::Derp { fast_start: head.fast_start },
        _ => refused("DERP requires connection upgrade\n"),
    }
}

fn probe(head: &Head) -> PageAnswer {
    if head.method != Method::GET && !head.is_head() {
        return PageAnswer::text(StatusCode::METHOD_NOT_ALLOWED, "bogus probe method\n");
    }
    let mut answer = PageAnswer::new(StatusCode::OK);
    answer.headers.push(("Access-Control-Allow-Origin", "*".to_owned()));
    answer
}

fn generate_204(head: &Head) -> PageAnswer {
    let mut answer = PageAnswer::new(StatusCode::NO_CONTENT);
    let uncached = "no-cache, no-store, must-revalidate, no-transform, max-age=0";
    answer.headers.push(("Cache-Control", uncached.to_owned()));
    if is_challenge(&head.challenge) {
        answer.headers.push(("X-Tailscale-Response", format!("response {}", head.challenge)));
    }
    answer
}

fn is_challenge(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    (1..=MAX_CHALLENGE).contains(&text.len()) && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, path: &str) -> Head {
        Head {
            method: method.parse().expect("a method"),
            path: path.into(),
            target: path.into(),
            host: "h".into(),
            ..Head::default()
        }
    }

    fn answer(route: PageRoute) -> String {
        let PageRoute::Page(answer) = route else { return "derp".into() };
        String::from_utf8(answer.encode(true, false, SystemTime::UNIX_EPOCH)).expect("text")
    }

    #[test]
    fn derp_needs_its_upgrade() {
        let request = head("GET", "/derp");
        assert!(answer(route(&request)).starts_with("HTTP/1.1 426 "));
        let request = Head { upgrade: "derp".into(), ..request };
        assert_eq!(route(&request), PageRoute::Derp { fast_start: false });
        let request = Head { fast_start: true, ..request };
        assert_eq!(route(&request), PageRoute::Derp { fast_start: true });
    }

    #[test]
    fn websocket_without_its_subprotocol_is_derp() {
        let request = Head { upgrade: "websocket".into(), ..head("GET", "/derp") };
        assert_eq!(route(&request), PageRoute::Derp { fast_start: false });
        let request = Head { websocket_protocol: "derp".into(), ..request };
        let answer = answer(route(&request));
        assert!(answer.starts_with("HTTP/1.1 426 ") && answer.contains("WebSocket is not built"), "{answer}");
    }

    #[test]
    fn every_path_has_derpers_answer() {
        for (path, kind, body) in [
            ("/", "text/html; charset=utf-8", "DERP"),
            ("/favicon.ico", "text/html; charset=utf-8", "DERP"),
            ("/derp/", "text/html; charset=utf-8", "DERP"),
            ("/robots.txt", "text/plain; charset=utf-8", "User-agent: *\nDisallow: /\n"),
            ("/bootstrap-dns", "application/json", "\r\n\r\n{}\n"),
        ] {
            let answer = answer(route(&head("GET", path)));
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
                "{answer}"
            );
            assert!(answer.contains(&format!("Content-Type: {kind}\r\n")), "{answer}");
            for name in ["Strict-Transport-Security", "Content-Security-Policy", "X-Frame-Options"] {
                assert!(answer.contains(&format!("\r\n{name}: ")), "{path}: {name}");
            }
            assert!(answer.contains(body), "{answer}");
        }
        for path in ["/debug", "/debug/", "/debug/varz"] {
            assert!(answer(route(&head("GET", path))).starts_with("HTTP/1.1 404 "), "{path}");
        }
        assert!(answer(route(&head("CONNECT", "h:443"))).ends_with("\r\n\r\nCONNECT not enabled\n"));
    }

    #[test]
    fn an_answer_says_whether_the_connection_goes_on() {
        let answer = home::robots();
        let text = |keep| String::from_utf8(answer.encode(keep, true, SystemTime::UNIX_EPOCH)).expect("text");
        assert!(!text(true).contains("Connection:") && text(false).contains("\r\nConnection: close\r\n"));
        assert!(text(true).ends_with("\r\n\r\n"), "HEAD has no body");
        assert!(home::bootstrap_dns().close);
    }

    #[test]
    fn a_challenge_is_echoed_only_when_well_formed() {
        let good = Head { challenge: "ts_192.0.2.1".into(), ..head("GET", "/generate_204") };
        assert!(answer(route(&good)).contains("X-Tailscale-Response: response ts_192.0.2.1\r\n"));
        for challenge in ["", "a b", "x\r\nSet-Cookie: y", &"a".repeat(65)] {
            let bad = Head { challenge: challenge.into(), ..head("GET", "/generate_204") };
            assert!(!answer(companion_route(&bad)).contains("X-Tailscale-Response"), "{challenge}");
        }
    }

    #[test]
    fn probes_answer_get_and_head_only() {
        for path in ["/derp/probe", "/derp/latency-check"] {
            assert!(answer(route(&head("GET", path))).starts_with("HTTP/1.1 200 "));
            assert!(answer(route(&head("HEAD", path))).contains("Access-Control-Allow-Origin: *\r\n"));
            assert!(answer(route(&head("PUT", path))).starts_with("HTTP/1.1 405 "));
        }
    }

    #[test]
    fn the_companion_never_speaks_derp() {
        let upgrade = Head { upgrade: "derp".into(), ..head("GET", "/derp") };
        assert!(answer(companion_route(&upgrade)).contains("Location: https://h/derp\r\n"));
        assert!(answer(companion_route(&head("POST", "/x"))).starts_with("HTTP/1.1 400 "));
    }
}
