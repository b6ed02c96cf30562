//! The head of a request, by any bytes: nothing behind it changes what is read of it, and what is not whole
//! waits or is refused, but is never taken for another request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_user::listen::http::parse;

/// The longest head that is read.
const MAX_HEAD: usize = 8 * 1024;

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (cut, bytes) = input;
    let prefix = &bytes[..usize::from(cut) % (bytes.len() + 1)];
    match parse(&bytes) {
        Ok(Some((head, len))) => {
            assert!(len <= bytes.len().min(MAX_HEAD));
            assert!(bytes[..len].ends_with(b"\n"));
            assert!(head.target.starts_with(&head.path) && !head.path.contains('?'));
            // The head is the same without what follows it, and with something else behind it.
            assert_eq!(parse(&bytes[..len]).expect("a head"), Some((head.clone(), len)));
            let other = [&bytes[..len], b"\x02\r\n\r\nGET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(parse(&other).expect("a head"), Some((head.clone(), len)));
            // With less than all of it, the parser waits for the rest.
            let early = parse(prefix).expect("the beginning of a head");
            assert_eq!(early.is_some(), prefix.len() >= len);
            // An answer can be given to it.
            let _ = relay_user::listen::pages::route(&head);
            let _ = relay_user::listen::pages::companion_route(&head);
        }
        Ok(None) => {
            assert!(bytes.len() < MAX_HEAD);
            assert!(parse(prefix).expect("the beginning of what waits").is_none());
        }
        // What is refused stays refused, whatever comes.
        Err(_) => {
            let more = [&bytes[..], b"\r\n\r\n"].concat();
            assert!(parse(&more).is_err());
        }
    }
});
