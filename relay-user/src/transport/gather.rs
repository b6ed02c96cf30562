//! Cuts and joins runs of bytes to full records.

use std::io;

/// Hands `seal` all of `runs`, in order, in pieces of `full` bytes; the last piece may be shorter. A piece
/// that lies in one run is handed on in place; short runs are joined in `scratch` first.
///
/// # Errors
/// The first error that `seal` returns.
pub fn pieces(
    runs: &mut dyn Iterator<Item = &[u8]>,
    full: usize,
    scratch: &mut Vec<u8>,
    mut seal: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    scratch.clear();
    let mut runs = runs.filter(|run| !run.is_empty()).peekable();
    while let Some(mut run) = runs.next() {
        if !scratch.is_empty() {
            let (begin, rest) = run.split_at(run.len().min(full - scratch.len()));
            scratch.extend_from_slice(begin);
            run = rest;
            if scratch.len() == full {
                seal(scratch)?;
                scratch.clear();
            }
        }
        let last = runs.peek().is_none();
        while run.len() >= full || (last && scratch.is_empty() && !run.is_empty()) {
            let (piece, rest) = run.split_at(run.len().min(full));
            seal(piece)?;
            run = rest;
        }
        scratch.extend_from_slice(run);
    }
    if scratch.is_empty() { Ok(()) } else { seal(scratch) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gathered(runs: &[Vec<u8>], full: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut keep = |piece: &[u8]| {
            out.push(piece.to_vec());
            Ok(())
        };
        let mut slices = runs.iter().map(Vec::as_slice);
        pieces(&mut slices, full, &mut Vec::new(), &mut keep).expect("nothing fails");
        out
    }

    proptest! {
        #[test]
        fn every_piece_but_the_last_is_full_and_nothing_changes(
            runs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
            full in 1..20usize,
        ) {
            let pieces = gathered(&runs, full);
            prop_assert_eq!(pieces.concat(), runs.concat());
            if let [most @ .., last] = &pieces[..] {
                prop_assert!(most.iter().all(|piece| piece.len() == full));
                prop_assert!((1..=full).contains(&last.len()));
            }
        }
    }

    #[test]
    fn an_error_ends_it() {
        let error = |_: &[u8]| Err(io::ErrorKind::Other.into());
        let mut runs = [&b"abc"[..], b"d"].into_iter();
        assert!(pieces(&mut runs, 2, &mut Vec::new(), error).is_err());
    }
}
