//! Builds the admin socket's answers from the running daemon.

use std::sync::atomic::Ordering;

use relay_common::derp::message::PeerPresentFlags;
use relay_common::fastpath::{ReasonCount, SessionStats};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::view::{
    ActiveXdp, AdvertisedView, CertificateView, ClientView, ControlView, DeniedView, Derp, HeldView, LegView,
    PacketCount, SessionView, Status, StunServerView, UdpView, Xdp,
};
use super::{Parts, UdpParts};
use crate::clock;
use crate::fastpath::LinkState;
use crate::log;
use crate::observe::held::{Control, Held};
use crate::route::peer::Peer;
use crate::route::sessions::Session;
use crate::udp::endpoints::Advertised;

const SECOND_NS: u64 = 1_000_000_000;

impl Status {
    pub(super) fn of(daemon: &Parts, now_ns: u64) -> Self {
        let relay = &daemon.relay;
        let (sessions, installed) = relay.router.session_counts();
        let control = ControlView::of(&relay.control);
        let udp = daemon.udp.as_ref().map(|udp| UdpView { control, ..UdpView::of(udp, sessions, now_ns) });
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now_ns.saturating_sub(daemon.started_ns) / SECOND_NS,
            derp: Derp {
                key: relay.public,
                clients: relay.router.client_count(),
                remote_clients: relay.router.remote_count(),
                links: relay.router.link_count(),
                queued_bytes: relay.budget.held(),
                queue_memory_bytes: relay.budget.most(),
                workers: daemon.pool.count(),
                workers_in_use: daemon.pool.active(),
            },
            certificate: daemon.certificate.as_deref().map(CertificateView::of),
            udp,
            xdp: Xdp::of(daemon, installed),
            log_lines_dropped: log::dropped_lines(),
            counters: relay.counters.all().map(|(label, n)| (label.to_owned(), n)).collect(),
        }
    }
}

impl ControlView {
    fn of(control: &Control) -> Self {
        let view = |held: &Held| {
            let (holds, long_holds) = held.counts();
            HeldView { last_ns: held.pass_ns(), longest_hold_ns: held.longest_ns(), holds, long_holds }
        };
        Self { sweep: view(&control.sweep), audit: view(&control.audit), next_hops: view(&control.next_hops) }
    }
}

impl UdpView {
    fn of(udp: &UdpParts, sessions: usize, now_ns: u64) -> Self {
        let advertised = udp.endpoints.advertised();
        let view = |one: &Advertised| AdvertisedView { addr: one.addr, from: one.source.to_string() };
        let asked = udp.endpoints.questions();
        // The clock of the questions is the same one, in milliseconds.
        let ago = |at_ms: u64| (now_ns / 1_000_000).saturating_sub(at_ms) / 1000;
        // A server without an address of one family is not shown for it, but one that has none at all is.
        let is_found =
            |server: &str| asked.iter().any(|other| *other.server == *server && other.to.is_some());
        let shown = asked.iter().filter(|one| one.to.is_some() || (one.v4 && !is_found(&one.server)));
        let servers = shown.map(|question| StunServerView {
            server: question.server.to_string(),
            addr: question.to,
            seen: question.seen.map(|(addr, _)| addr),
            seconds_ago: question.seen.map(|(_, at_ms)| ago(at_ms)),
            silent: question.silent,
        });
        let denied = udp.relay.denied();
        let denied = denied.file().map(|file| DeniedView {
            file: file.display().to_string(),
            networks: denied.len(),
            refused: denied.refused().map(|why| why.to_string()),
        });
        Self {
            key: udp.relay.public(),
            port: udp.endpoints.port,
            sessions,
            max_sessions: udp.limits.max_sessions,
            advertised: advertised.iter().map(view).collect(),
            stun_servers: servers.collect(),
            denied,
            control: ControlView::default(),
        }
    }
}

impl CertificateView {
    fn of(served: &super::ServedCertificate) -> Self {
        let (facts, now) = (&served.facts, OffsetDateTime::now_utc());
        // Every date that X.509 can hold has an RFC 3339 form.
        let date = |date: OffsetDateTime| date.format(&Rfc3339).unwrap_or_default();
        Self {
            file: facts.files.crt.display().to_string(),
            key_file: facts.files.key.display().to_string(),
            names: facts.names.clone(),
            not_before: date(facts.not_before),
            not_after: date(facts.not_after),
            days_left: facts.days_left(now),
            state: facts.state(now).to_string(),
            pin: facts.pin.clone(),
            derp_map_node: served.node.clone(),
        }
    }
}

impl Xdp {
    /// `installed`: sessions that the kernel should be forwarding.
    pub(super) fn of(daemon: &Parts, installed: usize) -> Self {
        let fast = match &daemon.fast {
            Ok(fast) => fast,
            Err(reason) => return Self::Unavailable { unavailable: reason.clone() },
        };
        let health = daemon.relay.router.kernel_health();
        let count = |ReasonCount { packets, bytes }| PacketCount { packets, bytes };
        let reasons =
            fast.reasons().inspect_err(|error| tracing::warn!(%error, "cannot read the XDP counters"));
        let reasons = reasons.unwrap_or_default().into_iter();
        let status = fast.link_status();
        let (attached, link) = match status.state {
            LinkState::Up => (true, "up".to_owned()),
            LinkState::Down => (true, "down".to_owned()),
            LinkState::NoCarrier => (true, "no carrier".to_owned()),
            LinkState::Lost(reason) => (false, reason),
        };
        Self::Active(Box::new(ActiveXdp {
            interface: fast.iface().to_owned(),
            mode: fast.mode().to_string(),
            enabled: fast.is_enabled(),
            attached,
            link,
            link_seconds: clock::monotonic_ns().saturating_sub(status.since_ns) / 1_000_000_000,
            losses: status.losses,
            hint: fast.hint(),
            program_id: fast.program_id(),
            maps: fast.maps_dir().map(|dir| dir.display().to_string()),
            installed: installed as u64,
            drift: health.drift,
            failures: health.failures,
            audits: health.audits,
            reasons: reasons.map(|(reason, n)| (reason.label().to_owned(), count(n))).collect(),
        }))
    }
}

impl ClientView {
    pub(super) fn of(peer: &Peer, now_ms: u64) -> Self {
        let queued = peer.mailbox.depth();
        let connected_ms = peer.timers.connected_ms.load(Ordering::Relaxed);
        Self {
            key: peer.key,
            remote: peer.remote,
            active: peer.is_active(),
            mesh_peer: peer.about.flags.contains(PeerPresentFlags::MESH_PEER),
            preferred: peer.timers.preferred.load(Ordering::Relaxed),
            protocol: peer.about.protocol.to_owned(),
            app_name: peer.about.app_name.to_string(),
            connected_seconds: now_ms.saturating_sub(connected_ms) / 1000,
            packets_in: peer.counters.packets_in.load(Ordering::Relaxed),
            bytes_in: peer.counters.bytes_in.load(Ordering::Relaxed),
            packets_out: peer.counters.packets_out.load(Ordering::Relaxed),
            bytes_out: peer.counters.bytes_out.load(Ordering::Relaxed),
            queued_frames: queued.frames,
            queued_bytes: queued.bytes,
        }
    }
}

impl SessionView {
    pub(super) fn of(session: &Session, kernel: Option<&SessionStats>, now_ns: u64) -> Self {
        let route = &session.route;
        let last_seen_ns = route.last_seen_ns(kernel);
        let leg = |index: usize| {
            let (path, counters) = (route.legs[index], &route.side[index]);
            let seen = last_seen_ns[index].max(session.last_seen_ns(index));
            let ago = (seen > 0).then(|| now_ns.saturating_sub(seen) as f64 / SECOND_NS as f64);
            LegView {
                client: route.clients[index],
                remote: path.map(|path| path.remote),
                local: path.map(|path| path.local),
                packets: counters.packets.load(Ordering::Relaxed),
                bytes: counters.bytes.load(Ordering::Relaxed),
                xdp_packets: kernel.map_or(0, |stats| stats.legs[index].packets),
                xdp_bytes: kernel.map_or(0, |stats| stats.legs[index].bytes),
                last_seen_seconds_ago: ago,
            }
        };
        Self {
            vni: session.vni(),
            generation: route.generation().into(),
            bound: route.is_bound(),
            installed: session.is_installed(),
            age_seconds: now_ns.saturating_sub(session.allocated_ns) / SECOND_NS,
            legs: [leg(0), leg(1)],
        }
    }
}
