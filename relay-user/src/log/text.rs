//! Text of others in a log: on one line, without what a terminal would obey, and not too long.

use std::fmt::{self, Display, Write};

/// Characters of a text that a client can choose.
const BRIEF_CHARS: usize = 200;

/// A text that a client had a part in: escaped, and cut to some 200 characters.
pub fn brief(text: &impl Display) -> impl Display {
    let mut out = String::new();
    let mut short = Escaped::new(&mut out, BRIEF_CHARS);
    // A text that is cut ends as an error, which is how it is told to stop.
    let _ = write!(short, "{text}");
    out
}

/// Writes on, escapes what is not a visible character, and ends with an ellipsis behind so many characters.
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

/// Control characters, line separators, and those that change the direction of what follows.
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
