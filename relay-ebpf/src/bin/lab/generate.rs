//! The generator: makes numbered datagrams from one or two templates, as live frames of BPF_PROG_TEST_RUN.
//!
//! The kernel reuses the pages of frames that came back or were dropped, and a page still has what the last
//! program wrote. So every header byte is written each time. The body comes from the test and no program
//! changes it.

use relay_common::net::{
    Frame, Ipv4UdpHeaders,
    checksum::{Update, never_zero},
};
use relay_ebpf::{
    lab::{SEQUENCE_OFFSET, TEMPLATE_LEN},
    packet::{XdpFrame, redirect},
    values::words,
};

use crate::maps::{self, LAB_GENERATED, LAB_TEMPLATES};

/// Makes the next frame of the series; returns the action to leave the program with.
#[inline(always)]
pub(crate) fn generate(frame: &mut XdpFrame) -> Option<u32> {
    let bytes = frame.get_mut::<TEMPLATE_LEN>(0)?;
    let config = maps::config()?;
    let sequence = words::<_, 1, 1, 0>(&LAB_GENERATED, 0)?.add::<0>(1);
    *bytes = LAB_TEMPLATES.get(sequence as u32 & config.template_mask & 1)?.bytes;
    number(bytes, sequence)?;
    Some(redirect(config.egress))
}

/// Writes the sequence number and the matching UDP checksum.
///
/// One number in 65,536 would give a checksum that looks as if it was left to the device. The program under
/// test passes such a frame to the kernel. That number is sent with its top bit set instead.
#[inline(always)]
fn number(bytes: &mut [u8; TEMPLATE_LEN], sequence: u64) -> Option<()> {
    let headers = Ipv4UdpHeaders::view_mut(bytes.first_chunk_mut()?);
    let of_zero = Update::of(headers.udp.checksum);
    let pseudo_header = headers.ip.pseudo_header(headers.udp.length).fold();
    let mut numbered = sequence;
    let mut checksum = with_number(of_zero, numbered);
    if checksum == pseudo_header {
        numbered |= 1 << 63;
        checksum = with_number(of_zero, numbered);
    }
    headers.udp.checksum = checksum.to_be_bytes();
    *bytes.get_mut(SEQUENCE_OFFSET..)?.first_chunk_mut()? = numbered.to_be_bytes();
    Some(())
}

#[inline(always)]
fn with_number(of_zero: Update, number: u64) -> u16 {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    never_zero(of_zero.replace4([0; 4], [a, b, c, d]).replace4([0; 4], [e, f, g, h]).finish())
}
