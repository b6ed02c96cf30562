//! The program on its interface: attaches it, and watches that it stays.
//!
//! A `bpf_link` ends with its interface, and nothing tells its owner. So the kernel is asked about the
//! interface once a second ([`Attachment::watch`]). If the program is no longer there, it is attached again
//! as soon as an interface of that name is; until then userspace carries all sessions, and the status says
//! so.

use std::io;

use aya::{Ebpf, programs::links::FdLink};
use nix::errno::Errno;
use rtnetlink::packet_route::link::LinkMessage;

use super::{
    Mode,
    error::StartError,
    gro::Offloads,
    load,
    place::{self, Misplaced, Seen},
};
use crate::host::netlink::Netlink;

/// Whether frames reach the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// The program is attached, and the interface is up.
    Up,
    /// The program is attached, but the interface is switched off.
    Down,
    /// The program is attached, but the interface has no carrier.
    NoCarrier,
    /// The program is not attached; why not.
    Lost(String),
}

/// The program's attachment, for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether frames reach the program.
    pub state: LinkState,
    /// Since when, CLOCK_MONOTONIC nanoseconds.
    pub since_ns: u64,
    /// Index of the interface that the program is, or was last, attached to.
    pub ifindex: u32,
    /// How often the program was found no longer attached.
    pub losses: u64,
}

/// The questions that tell whether an interface is a place for the program.
pub(super) struct Place {
    netlink: Netlink,
    offloads: Offloads,
}

impl Place {
    /// Opens the sockets, in the calling thread's network namespace.
    pub(super) fn new(iface: &str, mode: Mode) -> Result<Self, StartError> {
        let failed = |cause: io::Error| unknown(iface, mode, &cause);
        Ok(Self { netlink: Netlink::open().map_err(failed)?, offloads: Offloads::new().map_err(failed)? })
    }

    /// The index of an interface where the program would forward.
    ///
    /// # Errors
    /// There is no such interface, or the program would never forward there, or not rightly.
    pub(super) fn judge(&mut self, iface: &str, mode: Mode) -> Result<u32, StartError> {
        let ifindex = load::ifindex(iface)?;
        let link = self.netlink.link(ifindex).map_err(|cause| unknown(iface, mode, &cause))?;
        self.judge_link(&link, iface, mode)?;
        Ok(ifindex)
    }

    fn judge_link(&mut self, link: &LinkMessage, iface: &str, mode: Mode) -> Result<(), StartError> {
        let iface = iface.to_owned();
        match place::misplaced(link, mode) {
            Some(Misplaced::Member { of, master }) => {
                let master =
                    self.netlink.link(master).ok().and_then(|link| Some(place::name(&link)?.to_owned()));
                let master = master.unwrap_or_else(|| format!("the {of}"));
                return Err(StartError::Member { iface, of, master });
            }
            Some(Misplaced::NativeBond) => return Err(StartError::NativeBond { iface }),
            None => {}
        }
        // An interface that does not say whether it merges cannot.
        if mode == Mode::Generic && self.offloads.merges(&iface).unwrap_or(false) {
            return Err(StartError::Merges { iface });
        }
        Ok(())
    }
}

fn unknown(iface: &str, mode: Mode, cause: &io::Error) -> StartError {
    StartError::Attach { iface: iface.to_owned(), mode, cause: cause.to_string() }
}

/// The program and its link. Dropping it detaches the program.
pub(super) struct Attachment {
    // The link is dropped before the program.
    link: Option<FdLink>,
    ebpf: Ebpf,
    place: Place,
    iface: String,
    mode: Mode,
    program_id: u32,
    status: LinkStatus,
    /// The program is not attached because there is no interface of that name.
    is_missing: bool,
    tx_dropped: Option<u64>,
}

impl Attachment {
    /// Attaches the loaded program of `ebpf`.
    pub(super) fn attach(
        mut ebpf: Ebpf,
        mut place: Place,
        iface: &str,
        mode: Mode,
        now_ns: u64,
    ) -> Result<Self, StartError> {
        let ifindex = place.judge(iface, mode)?;
        let (link, program_id) = load::attach(&mut ebpf, iface, ifindex, mode)?;
        let status = LinkStatus { state: LinkState::Up, since_ns: now_ns, ifindex, losses: 0 };
        let (link, iface) = (Some(link), iface.to_owned());
        Ok(Self { link, ebpf, place, iface, mode, program_id, status, is_missing: false, tx_dropped: None })
    }

    pub(super) fn program_id(&self) -> u32 {
        self.program_id
    }

    /// Frames that the interface could not send, as of the last [`Self::watch`]; `None`: it does not say.
    pub(super) fn tx_dropped(&self) -> Option<u64> {
        self.tx_dropped
    }

    pub(super) fn status(&self) -> &LinkStatus {
        &self.status
    }

    /// Asks the kernel whether the program is still attached, and attaches it again if it can. Each change is
    /// one line in the log. Returns how often the program was newly found lost: 0 or 1.
    pub(super) fn watch(&mut self, now_ns: u64) -> u64 {
        let lost = match self.look() {
            Look::Attached(state) => {
                self.now(state, now_ns);
                return 0;
            }
            Look::Unknown => return 0,
            Look::Lost(why) => why,
        };
        let newly = u64::from(self.link.take().is_some());
        self.status.losses += newly;
        let iface = &self.iface;
        let again = match lost {
            Some(reason) => Err(reason),
            None => self.place.judge(iface, self.mode).and_then(|ifindex| {
                Ok((load::attach(&mut self.ebpf, iface, ifindex, self.mode)?.0, ifindex))
            }),
        };
        match again {
            Ok((link, ifindex)) => {
                tracing::warn!(
                    iface,
                    ifindex,
                    "the XDP program was no longer attached; it is attached again"
                );
                (self.link, self.is_missing) = (Some(link), false);
                self.status = LinkStatus { state: LinkState::Up, since_ns: now_ns, ifindex, ..self.status };
            }
            Err(reason) => {
                let is_missing = matches!(reason, StartError::NoInterface { .. });
                let state = LinkState::Lost(reason.to_string());
                if std::mem::replace(&mut self.is_missing, is_missing) && is_missing {
                    // The words change with other interfaces, which they list.
                    self.status.state = state;
                } else {
                    self.now(state, now_ns);
                }
            }
        }
        newly
    }

    /// What the kernel says. Without a link of ours there is nothing to ask.
    fn look(&mut self) -> Look {
        if self.link.is_none() {
            return Look::Lost(None);
        }
        let link = match self.place.netlink.link(self.status.ifindex) {
            Ok(link) => link,
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => return Look::Lost(None),
            Err(error) => {
                tracing::debug!(%error, "cannot ask about the interface of the XDP program");
                return Look::Unknown;
            }
        };
        self.tx_dropped = place::tx_dropped(&link);
        let state = match place::seen(&link, self.program_id) {
            Seen::Detached => return Look::Lost(None),
            Seen::Running => LinkState::Up,
            Seen::Down => LinkState::Down,
            Seen::NoCarrier => LinkState::NoCarrier,
        };
        // It may have become a member of a bridge, or begun to merge packets, since it was attached; and it
        // may have another name now.
        let name = place::name(&link).unwrap_or(&self.iface).to_owned();
        match self.place.judge_link(&link, &name, self.mode) {
            Ok(()) => Look::Attached(state),
            Err(reason) => Look::Lost(Some(reason)),
        }
    }

    fn now(&mut self, state: LinkState, now_ns: u64) {
        if state == self.status.state {
            return;
        }
        let iface = &self.iface;
        match &state {
            LinkState::Up => tracing::info!(iface, "the interface of the XDP program is up"),
            LinkState::Down => tracing::warn!(iface, "the interface of the XDP program was switched off"),
            LinkState::NoCarrier => tracing::warn!(iface, "the interface of the XDP program has no carrier"),
            LinkState::Lost(reason) => {
                tracing::warn!(
                    iface,
                    reason,
                    "the XDP program is not attached; userspace carries all sessions"
                );
            }
        }
        self.status = LinkStatus { state, since_ns: now_ns, ..self.status };
    }
}

/// What a look at the interface found.
enum Look {
    /// The program is attached.
    Attached(LinkState),
    /// It is not, or must not stay for the given reason.
    Lost(Option<StartError>),
    /// The kernel could not be asked.
    Unknown,
}
