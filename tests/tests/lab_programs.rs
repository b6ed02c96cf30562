//! The lab's own programs judge other programs, so they are tested too: the checker finds wrong checksums,
//! and the generator numbers its frames and keeps their checksums right.

use anyhow::Result;
use relay_common::{
    forward::sample,
    net::datagram::{fill_checksums, udp_checksum_is_right},
};
use relay_ebpf::lab::{Checked, LabConfig, SEQUENCE_OFFSET, VniCount};
use relay_tests::{
    bpf::{LabPrograms, Objects, run},
    skip,
};

const XDP_ABORTED: u32 = 0;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

fn far(test: &str) -> Result<Option<LabPrograms>> {
    match Objects::find() {
        Ok(objects) => LabPrograms::load(&objects.lab).map(Some),
        Err(reason) => {
            skip(test, &reason);
            Ok(None)
        }
    }
}

fn config(drop: u32) -> LabConfig {
    LabConfig { egress: 1, template_mask: 1, drop, reserved: 0 }
}

fn frame(body: &[u8]) -> Vec<u8> {
    sample::frame(0, &sample::geneve(sample::VNI, body))
}

#[test]
fn the_checker_knows_a_good_frame_from_each_kind_of_bad_one() -> Result<()> {
    let Some(mut far) = far("the_checker_knows_a_good_frame_from_each_kind_of_bad_one")? else {
        return Ok(());
    };
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = frame(b"some body of odd length");
        change(&mut changed);
        changed
    };
    let frames = [
        (Checked::Good, frame(&[])),
        (Checked::Good, frame(b"odd")),
        (Checked::Good, frame(b"even")),
        (Checked::Good, frame(&[0xff; 1492])),
        (Checked::Good, changed(&|f| f.extend([0xaa; 9]))),
        (Checked::BadIp, changed(&|f| f[22] ^= 1)),
        (Checked::BadUdp, changed(&|f| f[41] ^= 1)),
        (Checked::BadUdp, changed(&|f| f[35] ^= 1)),
        (Checked::BadUdp, changed(&|f| *f.last_mut().expect("not empty") ^= 0x80)),
        (Checked::NoChecksum, changed(&|f| f[40..42].fill(0))),
        (Checked::Other, changed(&|f| f[12] = 0x86)),
        (Checked::Other, changed(&|f| f[23] = 6)),
        (Checked::Other, changed(&|f| f.truncate(60))),
        (Checked::Other, frame(&[0; 1493])),
    ];
    let mut expected = [0; Checked::COUNT as usize];
    for (number, (checked, frame)) in frames.iter().enumerate() {
        expected[*checked as usize] += 1;
        far.configure(&config(0))?;
        assert_eq!(run(far.checker()?, frame)?, (XDP_PASS, frame.clone()), "frame {number}");
        assert_eq!(far.checked()?, expected, "frame {number}");

        expected[*checked as usize] += 1;
        far.configure(&config(1))?;
        let action = if *checked == Checked::Other { XDP_PASS } else { XDP_DROP };
        assert_eq!(run(far.checker()?, frame)?.0, action, "frame {number}, to be dropped");
    }
    assert_eq!(far.checked()?, expected);
    assert_eq!(far.checked_vni(sample::VNI)?, VniCount { packets: 10, bytes: 2 * (8 + 11 + 12 + 1500 + 31) });
    Ok(())
}

#[test]
fn the_generator_alternates_its_templates_and_numbers_every_frame_rightly() -> Result<()> {
    let test = "the_generator_alternates_its_templates_and_numbers_every_frame_rightly";
    let Some(mut far) = far(test)? else { return Ok(()) };
    let templates = [0, 1].map(|leg| sample::frame(leg, &sample::geneve(sample::VNI, &[0; 40])));
    far.configure(&config(1))?;
    far.set_template(0, &templates[0])?;
    far.set_template(1, &templates[1])?;
    // A page that is reused holds what the last program wrote: here, wrong bytes in every header.
    let mut recycled = templates[0].clone();
    recycled[..58].fill(0xee);
    for number in 0..300u64 {
        let (action, made) = run(far.generator()?, &recycled)?;
        assert_eq!(action, XDP_REDIRECT);
        let mut expected = templates[usize::from(number % 2 == 1)].clone();
        expected[SEQUENCE_OFFSET..58].copy_from_slice(&number.to_be_bytes());
        fill_checksums(&mut expected);
        assert_eq!(made, expected, "frame {number}");
        assert!(udp_checksum_is_right(&made));
    }
    assert_eq!(far.generated()?, 300);
    assert_eq!(run(far.generator()?, &recycled[..57])?.0, XDP_ABORTED, "no room for the number");
    Ok(())
}
