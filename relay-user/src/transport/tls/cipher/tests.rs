//! One direction alone: records are sealed and opened with the same secrets.

use proptest::prelude::*;
use rustls::crypto::cipher::{AeadKey, Iv};

use super::*;

/// Sealer and opener with the same secrets.
fn pair(seed: u8) -> [Cipher; 2] {
    let secrets = || {
        let (key, iv) = (AeadKey::from([seed; 32]), Iv::new([seed ^ 0x5a; 12]));
        (u64::from(seed), ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv })
    };
    [(); 2].map(|()| Cipher::new(secrets()).expect("a known cipher"))
}

fn sealed(cipher: &mut Cipher, kind: u8, plaintext: &[u8]) -> Vec<u8> {
    let mut out = vec![0; plaintext.len() + OVERHEAD];
    let len = cipher.seal(kind, plaintext, &mut out).expect("room");
    assert_eq!(len, out.len());
    out
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(
        records in prop::collection::vec((1u8.., prop::collection::vec(any::<u8>(), 0..2000)), 1..6),
        seed: u8,
    ) {
        let [mut sealer, mut opener] = pair(seed);
        for (kind, plaintext) in records {
            let mut record = sealed(&mut sealer, kind, &plaintext);
            let len = record.len();
            for part in [0, 4, len - 1] {
                prop_assert_eq!(opener.open(&mut record[..part]), Ok(None));
            }
            prop_assert_eq!(opener.open(&mut record), Ok(Some(Record { kind, plaintext: &plaintext, len })));
        }
        prop_assert_eq!(sealer.sequence(), opener.sequence());
    }

    #[test]
    fn padding_is_taken_off(
        plaintext in prop::collection::vec(any::<u8>(), 0..200),
        zeros in 0usize..300,
        kind in 1u8..,
    ) {
        let [mut sealer, mut opener] = pair(1);
        let mut inner = plaintext.clone();
        inner.push(kind);
        inner.extend(vec![0; zeros]);
        let mut record = sealed(&mut sealer, 0, &inner);
        let len = record.len();
        prop_assert_eq!(opener.open(&mut record), Ok(Some(Record { kind, plaintext: &plaintext, len })));
    }

    #[test]
    fn a_record_with_any_bit_changed_does_not_open(bit in 0usize..8 * (100 + OVERHEAD)) {
        let [mut sealer, mut opener] = pair(2);
        let mut record = sealed(&mut sealer, APPLICATION_DATA, &[7; 100]);
        record[bit / 8] ^= 1 << (bit % 8);
        // A longer length makes it a part of a record, which will never open either.
        prop_assert!(!matches!(opener.open(&mut record), Ok(Some(_))));
    }
}

#[test]
fn a_record_opens_once_and_in_its_turn() {
    let [mut sealer, mut opener] = pair(3);
    let [first, second] = [b"a", b"b"].map(|text| sealed(&mut sealer, APPLICATION_DATA, text));
    assert_eq!(opener.open(&mut second.clone()), Err(Broken::Seal));
    assert!(matches!(opener.open(&mut first.clone()), Ok(Some(_))));
    assert_eq!(opener.open(&mut first.clone()), Err(Broken::Seal));
    assert!(matches!(opener.open(&mut second.clone()), Ok(Some(_))));
}

#[test]
fn what_cannot_be_a_record_is_said_at_once() {
    let [mut sealer, mut opener] = pair(4);
    assert_eq!(opener.open(&mut [22, 3, 3, 0, 1]), Err(Broken::Type(22)));
    let [high, low] = 16_641u16.to_be_bytes();
    assert_eq!(opener.open(&mut [23, 3, 3, high, low]), Err(Broken::TooLong(16_641)));
    assert_eq!(opener.open(&mut [23, 3, 3, 0, 2, 0, 0]), Err(Broken::Seal), "shorter than a tag");
    assert_eq!(opener.open(&mut sealed(&mut sealer, 0, &[0; 9])), Err(Broken::NoType));
    assert_eq!(
        opener.open(&mut sealed(&mut sealer, 23, &[1; MAX_PLAINTEXT + 1])),
        Err(Broken::TooLong(MAX_PLAINTEXT + 2)),
        "with its content type"
    );
}

#[test]
fn secrets_do_not_outlive_their_cipher() {
    fn is_wiped(_: &impl zeroize::ZeroizeOnDrop) {}
    let [cipher, _] = pair(6);
    is_wiped(&cipher.iv);
}

#[test]
fn sealing_needs_its_room() {
    let [mut sealer, _] = pair(5);
    assert!(sealer.seal(23, &[1; 10], &mut [0; 10 + OVERHEAD - 1]).is_err());
    assert_eq!(sealer.sequence(), 5, "nothing was sealed");
}
