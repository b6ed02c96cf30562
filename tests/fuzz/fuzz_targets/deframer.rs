//! Any bytes, cut anywhere, give the same frames and the same verdict. Every byte is accounted for, and an
//! idle deframer holds no buffer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_common::derp::{
    HEADER_LEN,
    deframer::{Deframer, PushError},
    frame::Header,
    limits::{self, Disposition, FrameError},
};
use std::{cell::Cell, convert::Infallible};

struct Run {
    frames: Vec<(Header, Vec<u8>)>,
    /// Bytes of all frames whose header has arrived, including the headers.
    announced: usize,
    error: Option<FrameError>,
    deframer: Deframer,
}

fn run(bytes: &[u8], cuts: &[u8]) -> Run {
    let (mut rest, mut frames, mut deframer) = (bytes, Vec::new(), Deframer::new());
    let (announced, mut error, mut cuts) = (Cell::new(0), None, cuts.iter().cycle());
    while error.is_none() && !rest.is_empty() {
        let len = cuts.next().map_or(rest.len(), |cut| usize::from(*cut).clamp(1, rest.len()));
        let (piece, after) = rest.split_at(len);
        rest = after;
        let limits = |header| {
            let disposition: Disposition = limits::server(header)?;
            announced.set(announced.get() + HEADER_LEN + header.len as usize);
            Ok(disposition)
        };
        let result = deframer.push(piece, limits, |header, body| {
            assert_eq!(header.len as usize, body.len());
            frames.push((header, body.to_vec()));
            Ok::<_, Infallible>(())
        });
        if let Err(PushError::Frame(frame)) = result {
            error = Some(frame);
        }
        assert!(deframer.retained_bytes() <= (2 * bytes.len()).max(2048));
    }
    Run { frames, announced: announced.get(), error, deframer }
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (cuts, bytes) = input;
    let (whole, cut) = (run(&bytes, &[]), run(&bytes, &cuts));
    assert_eq!((&whole.frames, whole.error), (&cut.frames, cut.error));
    assert_eq!(whole.announced, cut.announced);
    if whole.error.is_none() {
        // Either all frames are complete and up to four bytes of a header wait, or the last frame is
        // incomplete.
        let idle = whole.deframer.is_idle();
        assert_eq!(idle, whole.announced == bytes.len());
        assert_eq!(cut.deframer.is_idle(), idle);
        assert!(whole.announced + HEADER_LEN > bytes.len());
    }
    if cut.deframer.is_idle() {
        assert_eq!(cut.deframer.retained_bytes(), 0);
    }
});
