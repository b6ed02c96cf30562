//! The house rules for one source file.

/// The only files that may contain `unsafe`.
const UNSAFE_FILES: &[&str] = &[
    "relay-ebpf/src/values.rs",
    "relay-ebpf/src/packet.rs",
    "relay-user/src/fastpath/abi.rs",
    "relay-user/src/fastpath/batch.rs",
    "relay-user/src/fastpath/gro.rs",
    "relay-user/src/fastpath/mapped.rs",
    "relay-user/src/udp/batch.rs",
];

/// Maximum lines of a file, without its tests.
const LINE_BUDGET: usize = 400;
/// Maximum columns of a line.
const WIDTH: usize = 110;
/// File names that do not describe the content.
const EMPTY_NAMES: &[&str] =
    &["common.rs", "helpers.rs", "misc.rs", "mod.rs", "types.rs", "util.rs", "utils.rs"];

/// The faults of the file called `path`, in parts of sentences.
pub(super) fn complaints(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let name = path.rsplit('/').next().unwrap_or(path);
    if EMPTY_NAMES.contains(&name) {
        complaints.push("name the file after the idea in it".to_owned());
    }
    if !text.starts_with("//!") {
        complaints.push("the first line is `//!` and says what this file is and why".to_owned());
    }
    let tests = text.find("\n#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text[..tests].lines().count();
    if lines > LINE_BUDGET {
        complaints.push(format!("{lines} lines without its tests; split at {LINE_BUDGET}"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        // A test vector or an address cannot be wrapped.
        let columns = line.chars().count();
        if columns > WIDTH && line.trim().contains(' ') && !line.contains("://") && !line.contains('"') {
            complaints.push(format!("line {number} has {columns} columns; {WIDTH} at most"));
        }
        if is_unsafe(line) && !UNSAFE_FILES.contains(&path) {
            complaints
                .push(format!("line {number} is unsafe code, which belongs in {}", UNSAFE_FILES.join(", ")));
        }
    }
    complaints
}

/// Whether a line opens unsafe code. An attribute such as `#[unsafe(no_mangle)]` is a promise about a symbol
/// and not code.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("unsafe").any(|(at, word)| {
        let starts =
            code.get(..at).is_some_and(|before| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        let rest = code.get(at + word.len()..).unwrap_or_default();
        starts && [" {", " fn", " impl", " extern", " trait"].iter().any(|opening| rest.starts_with(opening))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "//! What.\n";

    #[test]
    fn unsafe_code_is_found_outside_its_files_only() {
        let block = format!("{HEAD}let x = {} {{ read(p) }};\n", "unsafe");
        assert_eq!(complaints("relay-user/src/conn.rs", &block).len(), 1);
        assert_eq!(complaints("relay-user/src/udp/batch.rs", &block).len(), 0);
    }

    #[test]
    fn words_about_unsafe_code_are_not_unsafe_code() {
        let text = format!("{HEAD}#![forbid(unsafe_code)]\n// {} {{\n#[unsafe(no_mangle)]\n", "unsafe");
        assert!(complaints("relay-common/src/lib.rs", &text).is_empty());
    }

    #[test]
    fn tests_do_not_count_towards_the_length() {
        let body = "x\n".repeat(LINE_BUDGET - 1);
        assert!(complaints("a.rs", &format!("{HEAD}{body}#[cfg(test)]\nmod tests {{\n{body}}}")).is_empty());
        let declared = "#[cfg(test)]\nmod model;\n";
        assert_eq!(complaints("a.rs", &format!("{HEAD}{declared}{body}")).len(), 1);
        assert_eq!(complaints("a.rs", &format!("{HEAD}{body}{body}")).len(), 1);
    }

    #[test]
    fn a_file_needs_a_name_and_a_purpose() {
        assert_eq!(complaints("relay-user/src/conn/mod.rs", "fn x() {}\n").len(), 2);
    }
}
