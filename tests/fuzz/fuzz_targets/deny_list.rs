//! Lists of denied networks: what is parsed holds the first address of each line, and what is refused is
//! refused with its line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_user::access::networks::Networks;

fuzz_target!(|text: &str| {
    let line_of = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    match Networks::parse(text) {
        Ok(networks) => {
            for line in text.lines().map(line_of).filter(|line| !line.is_empty()) {
                let address = line.split('/').next().expect("a first part");
                assert!(networks.contains(address.parse().expect("an address")), "{line}");
            }
        }
        Err(error) => {
            let line = text.lines().nth(error.line - 1).expect("a line of the text");
            assert_eq!(line_of(line), error.text);
            assert!(Networks::parse(&error.text).is_err(), "the line alone is refused too");
        }
    }
});
