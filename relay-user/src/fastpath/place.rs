//! Interfaces on which the program would run and never forward: those whose packets the host handles as
//! another interface's. This module uses no socket: it reads the kernel's answers.
//!
//! The program forwards a packet only by the interface on which it came in. The kernel's routes name a bridge
//! or a bond, never its members; and a program on a bond runs on the members, and sees their numbers.

use rtnetlink::packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};

use super::Mode;

/// Why an interface is the wrong one, and what to use in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Misplaced {
    /// A bridge, a bond or the like takes all packets of the interface.
    Member {
        /// What takes them: a word for people.
        of: &'static str,
        /// Index of the interface that takes them.
        master: u32,
    },
    /// A bond, in native mode.
    NativeBond,
}

/// What is wrong with a place; `None`: nothing.
pub(super) fn misplaced(link: &LinkMessage, mode: Mode) -> Option<Misplaced> {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let (mut of, mut bond) = (None, false);
    for info in infos.flatten() {
        match info {
            LinkInfo::PortKind(InfoPortKind::Bridge) => of = Some("bridge"),
            LinkInfo::PortKind(InfoPortKind::Bond) => of = Some("bond"),
            LinkInfo::PortKind(InfoPortKind::Team) => of = Some("team"),
            LinkInfo::PortKind(InfoPortKind::Other(kind)) if kind == "openvswitch" => of = Some("switch"),
            LinkInfo::Kind(InfoKind::Bond) => bond = true,
            _ => {}
        }
    }
    let master = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    });
    match (of, master) {
        (Some(of), Some(master)) => Some(Misplaced::Member { of, master }),
        _ if bond && mode == Mode::Native => Some(Misplaced::NativeBond),
        _ => None,
    }
}

/// What a link shows of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The program is attached, and packets can come.
    Running,
    /// The program is attached, but the interface is switched off.
    Down,
    /// The program is attached, but nothing is at the other end of the interface.
    NoCarrier,
    /// The program is not attached.
    Detached,
}

/// Reads a link for the program with the kernel's id `program`.
pub(super) fn seen(link: &LinkMessage, program: u32) -> Seen {
    let ids = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    });
    let attached = ids.flatten().any(|xdp| {
        matches!(xdp, LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id)
            | LinkXdp::HwProgId(id) if *id == program)
    });
    match attached {
        false => Seen::Detached,
        true if !link.header.flags.contains(LinkFlags::Up) => Seen::Down,
        true if !link.header.flags.contains(LinkFlags::LowerUp) => Seen::NoCarrier,
        true => Seen::Running,
    }
}

/// The name in a link.
pub(super) fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The MTU in a link, in bytes.
pub(super) fn mtu(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// The frames in a link that it could not send.
pub(super) fn tx_dropped(link: &LinkMessage) -> Option<u64> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(stats.tx_dropped),
        _ => None,
    })
}

/// The XDP program of a link: its id and how it is attached.
pub(super) fn attached_xdp(link: &LinkMessage) -> Option<(u32, &'static str)> {
    let xdp = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    })?;
    let id = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id)
        }
        _ => None,
    })?;
    let mode = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some("native"),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
        LinkXdp::Attached(XdpAttached::Hardware) => Some("hardware"),
        LinkXdp::Attached(XdpAttached::Multiple) => Some("several modes"),
        _ => None,
    });
    Some((id, mode.unwrap_or("unknown mode")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        link.attributes = attributes;
        link
    }

    fn member(kind: InfoPortKind) -> LinkMessage {
        link(vec![
            LinkAttribute::IfName("eth0".into()),
            LinkAttribute::Controller(7),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::PortKind(kind)]),
        ])
    }

    #[test]
    fn members_of_bridges_and_bonds_are_misplaced_in_either_mode() {
        for (kind, of) in [
            (InfoPortKind::Bridge, "bridge"),
            (InfoPortKind::Bond, "bond"),
            (InfoPortKind::Team, "team"),
            (InfoPortKind::Other("openvswitch".into()), "switch"),
        ] {
            for mode in [Mode::Native, Mode::Generic] {
                let found = misplaced(&member(kind.clone()), mode);
                assert_eq!(found, Some(Misplaced::Member { of, master: 7 }));
            }
        }
    }

    #[test]
    fn a_member_of_a_vrf_and_an_interface_of_its_own_are_not() {
        assert_eq!(misplaced(&member(InfoPortKind::Vrf), Mode::Native), None);
        let alone = link(vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)])]);
        assert_eq!(misplaced(&alone, Mode::Native), None);
        assert_eq!(misplaced(&link(Vec::new()), Mode::Native), None);
        let bridge = link(vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)])]);
        assert_eq!(misplaced(&bridge, Mode::Generic), None);
    }

    #[test]
    fn a_bond_is_misplaced_in_native_mode_only() {
        let bond = link(vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bond)])]);
        assert_eq!(misplaced(&bond, Mode::Native), Some(Misplaced::NativeBond));
        assert_eq!(misplaced(&bond, Mode::Generic), None);
    }

    #[test]
    fn a_link_shows_whether_the_program_runs() {
        let xdp = |id| LinkAttribute::Xdp(vec![LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(id)]);
        assert_eq!(seen(&link(vec![xdp(9)]), 9), Seen::Running);
        assert_eq!(seen(&link(vec![xdp(8)]), 9), Seen::Detached, "another program");
        assert_eq!(seen(&link(Vec::new()), 9), Seen::Detached);
        let both = LinkAttribute::Xdp(vec![LinkXdp::DrvProgId(8), LinkXdp::SkbProgId(9)]);
        assert_eq!(seen(&link(vec![both]), 9), Seen::Running);
        let with = |flags| {
            let mut link = link(vec![xdp(9)]);
            link.header.flags = flags;
            seen(&link, 9)
        };
        assert_eq!(with(LinkFlags::Up), Seen::NoCarrier);
        assert_eq!(with(LinkFlags::empty()), Seen::Down);
    }

    #[test]
    fn name_and_mtu_are_read() {
        let link = link(vec![LinkAttribute::IfName("eth0".into()), LinkAttribute::Mtu(9000)]);
        assert_eq!((name(&link), mtu(&link)), (Some("eth0"), Some(9000)));
    }

    #[test]
    fn the_attached_program_is_read_from_a_link() {
        let mut link = LinkMessage::default();
        assert_eq!(attached_xdp(&link), None);
        link.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Attached(XdpAttached::None)]));
        assert_eq!(attached_xdp(&link), None);
        let xdp =
            vec![LinkXdp::Attached(XdpAttached::SocketBuffer), LinkXdp::ProgId(7), LinkXdp::SkbProgId(7)];
        link.attributes = vec![LinkAttribute::Mtu(1500), LinkAttribute::Xdp(xdp)];
        assert_eq!(attached_xdp(&link), Some((7, "generic")));
    }
}
