//! The pages for people and robots that visit a relay with a browser, with derper's paths and headers.

use hyper::StatusCode;

use super::PageAnswer;

/// The page shown on every path that has no page of its own.
const PAGE: &str = "<!DOCTYPE html>
<html lang=\"en\">
<head><meta charset=\"utf-8\"><title>DERP relay</title></head>
<body>
<h1>DERP relay</h1>
<p>This server is a relay for Tailscale-compatible clients. Two machines that cannot reach each other directly
send their packets through it. The packets are encrypted end to end: the relay cannot read them.</p>
<p>There is nothing else to see here.</p>
</body>
</html>
";

/// The home page.
pub(super) fn page() -> PageAnswer {
    browsed("text/html; charset=utf-8", PAGE)
}

/// `/robots.txt`: search engines must not index the relay.
pub(super) fn robots() -> PageAnswer {
    browsed("text/plain; charset=utf-8", "User-agent: *\nDisallow: /\n")
}

/// `/bootstrap-dns`: no names are published. Clients ask several relays, so they do not need the connection
/// any more.
pub(super) fn bootstrap_dns() -> PageAnswer {
    PageAnswer { close: true, ..browsed("application/json", "{}\n") }
}

/// A page with headers that let browsers only show it.
fn browsed(kind: &str, body: &'static str) -> PageAnswer {
    let policy = "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; \
                  block-all-mixed-content; object-src 'none'";
    let headers = [
        ("Content-Type", kind),
        ("Strict-Transport-Security", "max-age=63072000; includeSubDomains"),
        ("Content-Security-Policy", policy),
        ("X-Frame-Options", "DENY"),
        ("X-Content-Type-Options", "nosniff"),
    ];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).into();
    PageAnswer { headers, body, ..PageAnswer::new(StatusCode::OK) }
}
