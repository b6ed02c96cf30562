//! The head of an HTTP request, from any bytes: bytes behind the head do not change the result, and an
//! incomplete head waits or is refused but never parses as another request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_user::listen::http::parse;

/// The longest head that the parser accepts.
const MAX_HEAD: usize = 8 * 1024;

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (cut, bytes) = input;
    let prefix = &bytes[..usize::from(cut) % (bytes.len() + 1)];
    match parse(&bytes) {
        Ok(Some((head, len))) => {
            assert!(len <= bytes.len().min(MAX_HEAD));
            assert!(bytes[..len].ends_with(b"\n"));
            assert!(head.target.starts_with(&head.path) && !head.path.contains('?'));
            // The head is the same without the bytes behind it, and with other bytes behind it.
            assert_eq!(parse(&bytes[..len]).expect("a head"), Some((head.clone(), len)));
            let other = [&bytes[..len], b"\x02\r\n\r\nGET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(parse(&other).expect("a head"), Some((head.clone(), len)));
            // With only a part of the head, the parser waits for the rest.
            let early = parse(prefix).expect("the beginning of a head");
            assert_eq!(early.is_some(), prefix.len() >= len);
            // The server can answer the request.
            let _ = relay_user::listen::pages::route(&head);
            let _ = relay_user::listen::pages::companion_route(&head);
        }
        Ok(None) => {
            assert!(bytes.len() < MAX_HEAD);
            assert!(parse(prefix).expect("the beginning of what waits").is_none());
        }
        // A refused head stays refused, whatever bytes follow.
        Err(_) => {
            let more = [&bytes[..], b"\r\n\r\n"].concat();
            assert!(parse(&more).is_err());
        }
    }
});
