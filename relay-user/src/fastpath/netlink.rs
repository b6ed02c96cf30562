//! Sends one request to the kernel's routing and reads one answer.
//!
//! The kernel answers these requests inside the send call, so no waiting, task or queue is needed: if the
//! answer is not there, there is an error. The socket belongs to the network namespace of the thread that
//! opened it.

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// Messages read while searching for an answer: late answers to earlier requests are skipped.
const PATIENCE: usize = 16;

/// Reads of one dump: a table of a million routes takes about 4,000.
const DUMP_READS: usize = 65_536;

/// A socket for requests.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for one object.
    pub(super) fn get(&mut self, question: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        match self.ask(question, NLM_F_REQUEST)? {
            Some(answer) => Ok(answer),
            None => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "an acknowledgement in place of an answer"))
            }
        }
    }

    /// Changes an object and reads the acknowledgement.
    pub(super) fn set(&mut self, change: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(change, NLM_F_REQUEST | NLM_F_ACK | flags).map(|_| ())
    }

    /// Asks for all objects of a kind, and shows each to `visit`.
    pub(super) fn dump(
        &mut self,
        question: RouteNetlinkMessage,
        mut visit: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.send(question, NLM_F_REQUEST | NLM_F_DUMP)?;
        for _ in 0..DUMP_READS {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let answer = parse(rest)?;
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(4)..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => visit(inner),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "an answer without end"))
    }

    /// The link with this index.
    pub(super) fn link(&mut self, ifindex: u32) -> io::Result<LinkMessage> {
        let mut question = LinkMessage::default();
        question.header.index = ifindex;
        match self.get(RouteNetlinkMessage::GetLink(question))? {
            RouteNetlinkMessage::NewLink(link) => Ok(link),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is no link")),
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut message = NetlinkMessage::from(message);
        self.sequence = self.sequence.wrapping_add(1);
        message.header.sequence_number = self.sequence;
        message.header.flags = flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        self.send(message, flags)?;
        for _ in 0..PATIENCE {
            let (bytes, _) = self.socket.recv_from_full()?;
            let answer = parse(&bytes)?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::InnerMessage(inner) => Ok(Some(inner)),
                NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                _ => Ok(None),
            };
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

fn parse(bytes: &[u8]) -> io::Result<NetlinkMessage<RouteNetlinkMessage>> {
    NetlinkMessage::deserialize(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
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

    #[test]
    fn the_kernel_answers_at_once_about_a_link_that_is_there_and_one_that_is_not() {
        let mut netlink = Netlink::open().expect("a netlink socket needs no rights");
        assert_eq!(netlink.link(1).expect("the loopback interface").header.index, 1);
        let error = netlink.link(0x7fff_0000).expect_err("no interface has this index");
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ENODEV as i32));
    }
}
