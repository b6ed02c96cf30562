//! The fields of a line: `name=value`, the value as it is, never in Rust's debug form.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use super::text::Escaped;

/// Largest number of characters of one value. A longer value is a bug of ours, and must not fill a disk.
const VALUE_CHARS: usize = 4096;

/// Writes the message, then each field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain;

impl<'writer> FormatFields<'writer> for Plain {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    fn field(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        // Fields of the `log` crate about its own origin.
        if name.starts_with("log.") {
            return Ok(());
        }
        if !self.empty {
            self.writer.write_char(' ')?;
        }
        self.empty = false;
        if name != "message" {
            write!(self.writer, "{name}=")?;
        }
        // A cut value returns an error; the line goes on.
        let _ = Escaped::new(&mut self.writer, VALUE_CHARS).write_fmt(value);
        Ok(())
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_ok() {
            self.result = self.field(field.name(), format_args!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Collects the logged bytes.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn values_stand_as_they_are_on_one_line() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt()
            .fmt_fields(Plain)
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(log, || {
            let error = io::Error::other("first\nsecond");
            tracing::info!(what = "STUN", n = 3, path = %"/a b", %error, "listening");
            tracing::info!(long = "x".repeat(VALUE_CHARS + 1), last = true);
        });
        let text = String::from_utf8(kept.0.lock().expect("not poisoned").clone()).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0].trim(), "INFO listening what=STUN n=3 path=/a b error=first\\nsecond");
        assert_eq!(lines[1].trim(), format!("INFO long={}… last=true", "x".repeat(VALUE_CHARS)));
    }
}
