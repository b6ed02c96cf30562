//! Tables and numbers in the form that all answers for people use.

use comfy_table::{CellAlignment, Table, presets};

/// A heading, and the alignment of the column below it.
pub(crate) type Column = (&'static str, Align);

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Lines of text in columns as wide as needed, `indent` spaces from the margin. Ends with a line feed.
pub(crate) fn table<const N: usize>(
    indent: usize,
    columns: [Column; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.map(|(heading, _)| heading));
    table.add_rows(rows);
    for (column, (_, align)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        column.set_cell_alignment(match align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        });
    }
    table
        .lines()
        .map(|line| format!("{:indent$}{}", "", line.trim_end()).trim_end().to_owned() + "\n")
        .collect()
}

/// A number with thousands separators: 1,234,567.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes with three digits and a unit, in powers of ten: 1.23 MB.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (n as f64, "B");
    for larger in UNITS {
        // A value that would round up to four digits gets the next unit.
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    match value {
        _ if unit == "B" => format!("{n} B"),
        ..9.995 => format!("{value:.2} {unit}"),
        ..99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// A time span in one unit.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `1 client`, `2 clients`.
pub(crate) fn plural(n: usize, what: &str) -> String {
    format!("{} {what}{}", count(n as u64), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units_and_separated_thousands() {
        let counts = [0, 999, 1000, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let sizes = [0, 999, 1000, 9_994, 9_995, 99_949, 999_499, 999_500, 12_300_000_000].map(bytes);
        let wanted =
            ["0 B", "999 B", "1.00 kB", "9.99 kB", "10.0 kB", "99.9 kB", "999 kB", "1.00 MB", "12.3 GB"];
        assert_eq!(sizes, wanted);
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!([119, 120, 7200, 172_800].map(age), ["119 s", "2 min", "2 h", "2 d"]);
        assert_eq!((plural(1, "client"), plural(0, "client")), ("1 client".into(), "0 clients".into()));
    }

    #[test]
    fn a_table_has_aligned_columns_and_no_trailing_blanks() {
        let rows = [["ab".to_owned(), "1".to_owned()], ["c".to_owned(), "234".to_owned()]];
        let text = table(2, [("WORD", Align::Left), ("N", Align::Right)], rows);
        assert_eq!(text, "  WORD    N\n  ab      1\n  c     234\n");
    }
}
