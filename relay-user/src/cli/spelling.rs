//! Writes flags as users know them: derper's with one dash, relayd's own with two. clap writes two
//! everywhere.

use super::derper;

/// clap's text with derper's flags in derper's spelling. In a list of flags the columns stay aligned.
pub fn spelled(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let mut parts = line.split("--");
        let indent = parts.next().unwrap_or_default();
        out.push_str(indent);
        // A flag at the start of a line of a list.
        let mut listed = indent.len() > 1 && indent.trim().is_empty();
        for part in parts {
            let name = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(part.len());
            out.push_str(match (derper::FLAGS.contains(&&part[..name]), listed) {
                (true, true) => " -",
                (true, false) => "-",
                (false, _) => "--",
            });
            out.push_str(part);
            listed = false;
        }
    }
    out
}

/// A flag's name with its dashes.
pub fn flag(name: &str) -> String {
    let dashes = if derper::FLAGS.contains(&name) { "-" } else { "--" };
    format!("{dashes}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derpers_flags_have_one_dash_and_ours_two() {
        assert_eq!(spelled("for '--a <ADDR>', --xdp and --c."), "for '-a <ADDR>', --xdp and -c.");
        assert_eq!(
            spelled("      --a <ADDR>\n      --admin-socket"),
            "       -a <ADDR>\n      --admin-socket"
        );
        assert_eq!(spelled("--certdir=x --cert -- a"), "-certdir=x --cert -- a");
        assert_eq!((flag("c"), flag("workers")), ("-c".to_owned(), "--workers".to_owned()));
    }
}
