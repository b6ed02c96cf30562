//! Stop-gap until the merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHopValue { pub ifindex: u32, pub mtu: u32, pub egress_mac: [u8; 6], pub next_hop_mac: [u8; 6] }
#[derive(Debug)]
pub struct NextHopMap;
impl NextHopMap { pub fn write(&mut self, _n: u32, _v: Option<NextHopValue>) {} }
