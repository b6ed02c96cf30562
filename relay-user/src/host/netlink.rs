//! Asks the kernel about links, addresses, routes and neighbours.
//!
//! The kernel answers inside the system calls, so no waiting, task or queue is needed: if the answer is not
//! there, there is an error. The socket belongs to the network namespace of the thread that opened it.

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkExtentMask, LinkMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// Messages read while searching for an answer: late answers to earlier requests are skipped.
const PATIENCE: usize = 16;

/// Reads of one dump: a table of a million routes takes about 4,000.
const DUMP_READS: usize = 65_536;

/// How often a list that changed while it was read is read again.
const TRIES: usize = 3;

/// The length of a message's header, and the alignment of messages, in bytes.
const HEADER_BYTES: usize = 16;
const ALIGN: usize = 4;

/// A socket for requests.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for one object.
    pub(crate) fn get(&mut self, question: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        match self.ask(question, NLM_F_REQUEST)? {
            Some(answer) => Ok(answer),
            None => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "an acknowledgement in place of an answer"))
            }
        }
    }

    /// Changes an object and reads the acknowledgement.
    pub(crate) fn set(&mut self, change: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(change, NLM_F_REQUEST | NLM_F_ACK | flags).map(|_| ())
    }

    /// Asks for all objects of a kind, and folds them with `visit`, from what `start` gives. A list that
    /// changed while it was read is read again, from the start. An object that cannot be parsed is left out:
    /// a kernel newer than this program may say more than it knows.
    ///
    /// # Errors
    /// The system's error; the list changes faster than it can be read.
    pub(crate) fn dump<T>(
        &mut self,
        question: RouteNetlinkMessage,
        start: impl Fn() -> T,
        mut visit: impl FnMut(&mut T, RouteNetlinkMessage),
    ) -> io::Result<T> {
        for _ in 0..TRIES {
            let mut result = start();
            self.send(question.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            if self.read_dump(|object| visit(&mut result, object))? {
                return Ok(result);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the kernel's list changes faster than it can be read",
        ))
    }

    /// Reads a list to its end. Returns whether it stayed the same meanwhile.
    fn read_dump(&mut self, mut visit: impl FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
        let mut whole = true;
        for _ in 0..DUMP_READS {
            let (bytes, _) = self.socket.recv_from_full()?;
            for message in messages(&bytes) {
                let answer = match parse(message?) {
                    Ok(answer) => answer,
                    Err(error) => {
                        tracing::debug!(%error, "a netlink message that cannot be parsed");
                        continue;
                    }
                };
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => visit(inner),
                    NetlinkPayload::Done(_) => return Ok(whole),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "an answer without end"))
    }

    /// The link with this index.
    pub(crate) fn link(&mut self, ifindex: u32) -> io::Result<LinkMessage> {
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

/// The question for all links, without their counters.
pub(crate) fn all_links() -> RouteNetlinkMessage {
    let mut links = LinkMessage::default();
    links.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(links)
}

/// The messages that a datagram from the kernel consists of, each at least as long as a header. An error is
/// the last one.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<&[u8]>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        if length < HEADER_BYTES || length > bytes.len() {
            bytes = &[];
            return Some(Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink message of no length")));
        }
        let message = &bytes[..length];
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(Ok(message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_at_once_about_a_link_that_is_there_and_one_that_is_not() {
        let mut netlink = Netlink::open().expect("a netlink socket needs no rights");
        assert_eq!(netlink.link(1).expect("the loopback interface").header.index, 1);
        let error = netlink.link(0x7fff_0000).expect_err("no interface has this index");
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ENODEV as i32));
    }

    #[test]
    fn a_list_is_folded_to_its_end() {
        let mut netlink = Netlink::open().expect("a netlink socket needs no rights");
        let links = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let count = netlink.dump(links, || 0, |count, _| *count += 1).expect("a list");
        let lists = std::fs::read_dir("/sys/class/net").expect("links").count();
        assert_eq!(count, lists, "every link once");
        assert_eq!(netlink.link(1).expect("and the socket is as before").header.index, 1);
    }

    #[test]
    fn a_datagram_is_cut_at_its_messages() {
        let message = |length: u32, all: usize| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.resize(all, 7);
            bytes
        };
        let two = [message(18, 20), message(16, 16)].concat();
        let lengths =
            |bytes: &[u8]| messages(bytes).map(|one| one.map_or(0, <[u8]>::len)).collect::<Vec<_>>();
        assert_eq!(lengths(&two), [18, 16]);
        assert_eq!(lengths(&message(18, 18)), [18], "the last one needs no padding");
        for (length, all) in [(0, 16), (15, 16), (17, 16), (u32::MAX, 32)] {
            assert_eq!(lengths(&message(length, all)), [0], "{length} of {all}: an error, and the end");
        }
        assert_eq!(lengths(&[1, 2, 3]), [0; 0]);
    }
}
