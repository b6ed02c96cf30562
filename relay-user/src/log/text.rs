//! Makes texts of others safe to log: one line, no terminal control characters, and limited length.

use std::fmt::{self, Display, Write};

/// Largest number of characters of a text that a client can choose.
const BRIEF_CHARS: usize = 200;

/// A text that a client influenced: escaped, and cut to about 200 characters.
pub fn brief(text: &impl Display) -> impl Display {
    let mut out = String::new();
    let mut short = Escaped::new(&mut out, BRIEF_CHARS);
    // A cut text ends with an error, which stops the writing.
    let _ = write!(short, "{text}");
    out
}

/// Passes text on, escapes invisible characters, and cuts it with an ellipsis after a number of characters.
pub(super) struct Escaped<W> {
    inner: W,
    left: usize,
}

impl<W: Write> Escaped<W> {
    pub(super) fn new(inner: W, chars: usize) -> Self {
        Self { inner, left: chars }
    }
}

impl<W: Write> Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                self.inner.write_char('…')?;
                return Err(fmt::Error);
            }
            self.left -= 1;
            if is_hidden(c) {
                write!(self.inner, "{}", c.escape_default())?;
            } else {
                self.inner.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Whether `c` is a control character, a line separator, or a character that changes the text direction.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_text_is_short_and_on_one_line() {
        let long = brief(&"x".repeat(256 * 1024)).to_string();
        assert_eq!(long, "x".repeat(BRIEF_CHARS) + "…");
        let nasty = brief(&"a\nb\x1b[31mc\u{202e}d\r").to_string();
        assert_eq!(nasty, "a\\nb\\u{1b}[31mc\\u{202e}d\\r");
        assert_eq!(brief(&"it's \"plain\"").to_string(), "it's \"plain\"");
    }
}
