//! The command line: derper's flags with their names, defaults and meaning, and relayd's own.

pub mod address;
pub mod derper;
pub mod duration;
pub mod keepalive;
pub mod mesh_with;
mod missing;
pub mod parse;
pub mod spelling;
pub mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use relay_common::fastpath::DEFAULT_MAX_SESSIONS;

/// A relay for peers that cannot reach each other: DERP over TLS, UDP sessions through XDP, STUN.
#[derive(Clone, Debug, Parser)]
#[command(name = "relayd", version = VERSION, args_override_self = true)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// `relayd --version`: release, commit, and whether the fast path is in it.
pub const VERSION: &str = if cfg!(have_bpf) {
    concat!(env!("CARGO_PKG_VERSION"), ", commit ", env!("RELAYD_COMMIT"), ", with the XDP program")
} else {
    concat!(
        env!("CARGO_PKG_VERSION"),
        ", commit ",
        env!("RELAYD_COMMIT"),
        ", without the XDP program (`cargo xtask build` embeds it)"
    )
};

/// Questions to a running daemon.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// What the daemon is, and what it has counted.
    Status {
        /// Counters at zero, too.
        #[arg(long)]
        all: bool,
        /// Whom to ask.
        #[command(flatten)]
        admin: Admin,
    },
    /// The connected DERP clients.
    Clients {
        /// Only these: a key or its first digits, an address (IP or IP:PORT), or an app name
        filter: Option<String>,
        /// Clients to list at most; 0: all. Default: 20, with --json all
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Whom to ask.
        #[command(flatten)]
        admin: Admin,
    },
    /// The UDP sessions, with what userspace and XDP carried.
    Sessions {
        /// Only these: a VNI, a disco key or its first digits, or an address (IP or IP:PORT)
        filter: Option<String>,
        /// Sessions to list at most; 0: all. Default: 10, with --json all
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Whom to ask.
        #[command(flatten)]
        admin: Admin,
    },
    /// The links to the other relays of the region.
    Mesh {
        /// Whom to ask.
        #[command(flatten)]
        admin: Admin,
    },
    /// Where a key is, what admits it, on which rung its packets travel, and why not on a better one.
    Why {
        /// A node key or disco key, or its first digits
        key: String,
        /// Whom to ask.
        #[command(flatten)]
        admin: Admin,
    },
    /// Turn the XDP program's forwarding off, or on again; sessions go on through userspace meanwhile.
    Xdp {
        /// Which.
        #[arg(value_enum)]
        state: Switch,
        /// The daemon's admin socket.
        #[arg(long, value_name = "PATH")]
        admin_socket: Option<PathBuf>,
    },
    /// The pinned BPF maps by field name; the daemon need not run.
    Inspect {
        /// Only these sessions: a VNI or an address (IP or IP:PORT)
        filter: Option<String>,
        /// Sessions to list at most of each directory; 0: all
        #[arg(long, value_name = "N", default_value_t = 10)]
        limit: usize,
        /// Every field of each session, one a line
        #[arg(long)]
        verbose: bool,
        /// Pin directory; default: all below the BPF file system's `relayd`.
        #[arg(long, value_name = "DIR")]
        bpf_dir: Option<PathBuf>,
    },
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Forward.
    On,
    /// Pass everything.
    Off,
}

/// Where the daemon listens for questions.
#[derive(Args, Clone, Debug)]
pub struct Admin {
    /// The daemon's admin socket.
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// Print the daemon's JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// derper's certificate modes; one is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CertMode {
    /// Files in `-certdir`.
    Manual,
    /// Not built yet.
    Letsencrypt,
    /// Not built yet.
    Gcp,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum XdpMode {
    /// In the interface's driver.
    Native,
    /// In the kernel's receive path; works with every driver.
    Generic,
}

/// Who opens and seals the records of a TLS 1.3 connection after its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsRecords {
    /// relayd, in place.
    Own,
    /// rustls, to the end.
    Rustls,
}

/// Flags of the daemon.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// Development: plain TCP on :3340 unless -a is given, a fresh key each time unless -c is
    #[arg(long, value_name = "BOOL", default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true", require_equals = true, value_parser = value::boolean)]
    pub dev: bool,
    /// Address of the DERP listener; TLS with -certmode manual or on port 443, else plain TCP
    #[arg(long = "a", value_name = "ADDR", default_value = ":443")]
    pub addr: String,
    /// Port of the plain HTTP companion of a TLS listener, on the same address; -1: none
    #[arg(long, value_name = "PORT", default_value = "80", value_parser = value::port_or_none)]
    pub http_port: value::OptionalPort,
    /// Serve STUN
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true", require_equals = true, value_parser = value::boolean)]
    pub stun: bool,
    /// UDP port of STUN, on the same address
    #[arg(long, value_name = "PORT", default_value_t = 3478, value_parser = value::port)]
    pub stun_port: u16,
    /// Key file; made where there is none. Root's default: /var/lib/derper/derper.key
    #[arg(long = "c", value_name = "FILE", value_parser = path())]
    pub config: Option<PathBuf>,
    /// Where certificates come from; `manual` is what this version can do
    #[arg(long, value_enum, default_value_t = CertMode::Letsencrypt)]
    pub certmode: CertMode,
    /// Directory of HOSTNAME.crt and HOSTNAME.key
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub certdir: Option<PathBuf>,
    /// Host name of the certificate; an IP address gets a self-signed one where there is none
    #[arg(long, value_name = "NAME", default_value = "derp.tailscale.com")]
    pub hostname: String,
    /// TCP keepalive idle time; 0s: 15s, less: off, more than 32767s: the system's default
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = keepalive::parse)]
    pub tcp_keepalive_time: keepalive::Keepalive,
    /// TCP_USER_TIMEOUT: how long sent data may stay unacknowledged; 0s: the system's default
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration::user_timeout)]
    pub tcp_user_timeout: Duration,
    /// A client that takes nothing for this long is cut; 0s: never
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    pub tcp_write_timeout: Duration,

    /// File with the key of the region's mesh: 64 hex digits. With -dev, TAILSCALE_DERPER_MESH_KEY does as
    /// well
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub mesh_psk_file: Option<PathBuf>,
    /// The region's relays, with commas between them: HOST, HOST:PORT, or HOST/ADDRESS to dial another
    /// address than the certificate's name. A name with several addresses stands for several relays; this
    /// relay itself may be among them
    #[arg(long, value_name = "HOSTS", default_value = "", value_parser = mesh_with::value)]
    pub mesh_with: mesh_with::MeshWith,
    /// HOST=sha256-raw:HEX: accept this certificate of a host of -mesh-with, and no other; several with
    /// commas between them
    #[arg(long, value_name = "PIN", value_delimiter = ',')]
    pub mesh_pin: Vec<String>,

    /// UDP port of the peer relay; absent: no UDP relay, 0: any port
    #[arg(long, value_name = "PORT", value_parser = value::port)]
    pub relay_server_port: Option<u16>,
    /// Addresses to advertise for the UDP relay, in this order, instead of the host's own
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',', value_parser = value::endpoint)]
    pub relay_server_static_endpoints: Vec<SocketAddr>,
    /// Mark of the UDP relay's packets (SO_MARK), decimal or hexadecimal; 0: none. Beside a tailscaled on the
    /// same host: 0x80000, so that its routes and firewall rules let them pass. Needs CAP_NET_ADMIN
    #[arg(long, value_name = "MARK", default_value = "0", value_parser = value::mark, requires = "relay_server_port")]
    pub relay_server_mark: u32,
    /// Let the kernel put the UDP relay's packets together and cut them up (UDP_GRO, UDP_SEGMENT) where it
    /// can
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true", require_equals = true, value_parser = value::boolean)]
    pub udp_offload: bool,
    /// Addresses to advertise instead of those found; without a port: the relay's. Several with commas
    /// between them
    #[arg(long, value_name = "IP[:PORT]", value_delimiter = ',', value_parser = value::advertise,
        requires = "relay_server_port", conflicts_with = "relay_server_stun")]
    pub advertise: Vec<value::Advertise>,
    /// STUN servers that are asked, from the relay's own port, at which address they see it; that address is
    /// advertised too. Several with commas between them, or the flag several times
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = value::stun_server,
        requires = "relay_server_port")]
    pub relay_server_stun: Vec<String>,
    /// File with networks whose clients may not bind UDP sessions, one ADDRESS or ADDRESS/BITS a line; read
    /// again on SIGHUP
    #[arg(long, value_name = "PATH", requires = "relay_server_port")]
    pub relay_deny_file: Option<PathBuf>,
    /// Sessions at most; sizes the table and the BPF maps
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_SESSIONS,
        value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub relay_max_sessions: u32,
    /// How long both clients of a new session have to bind, 1s to 10m; the clients are told
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::bind_lifetime)]
    pub relay_bind_lifetime: Duration,
    /// How long a bound session lives after a client of it fell silent, 1s to 24h; the clients are told
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::steady_lifetime)]
    pub relay_steady_lifetime: Duration,
    /// Forward bound UDP sessions in this interface's driver
    #[arg(long, value_name = "IFACE", requires = "relay_server_port")]
    pub xdp: Option<String>,
    /// How the XDP program is attached: native, or generic where the driver cannot
    #[arg(long, value_enum, value_name = "MODE", default_value_t = XdpMode::Native, requires = "xdp")]
    pub xdp_mode: XdpMode,
    /// Forward packets that came in by another interface than the one that leads to their sender
    /// (asymmetric routes); else userspace gets them, and the kernel's rp_filter decides
    #[arg(long, value_name = "BOOL", default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true", require_equals = true, value_parser = value::boolean, requires = "xdp")]
    pub xdp_any_ingress: bool,
    /// Where the BPF maps are pinned; default: relayd/vSCHEMA/UDP-PORT in the BPF file system
    #[arg(long, value_name = "DIR", requires = "xdp")]
    pub bpf_dir: Option<PathBuf>,
    /// Connections that have not logged in, at most; 0: no limit; default: a quarter of the open files
    #[arg(long, value_name = "N")]
    pub max_pending_logins: Option<usize>,
    /// The same from one IPv4 address or one IPv6 /64; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_pending_per_ip: usize,
    /// Worker threads at most; only as many are used as the load needs. Default: half the cores, at least one
    #[arg(long, value_name = "N", value_parser = value::workers)]
    pub workers: Option<u16>,
    /// How long a busy worker waits for more packets before it sleeps, 1ms at most; saves CPU; 0s: not at all
    #[arg(long, value_name = "DURATION", default_value = "50us", value_parser = duration::pause)]
    pub busy_pause: Duration,
    /// Who opens and seals TLS 1.3 records after the handshake; rustls costs more CPU
    #[arg(long, value_enum, value_name = "LAYER", default_value_t = TlsRecords::Own)]
    pub tls_records: TlsRecords,
    /// What may wait for all slow clients together, such as 512MiB; default: an eighth of the memory. Beyond
    /// it, the client that has taken nothing for longest is cut
    #[arg(long, value_name = "SIZE", value_parser = value::queue_memory)]
    pub queue_memory: Option<ByteSize>,
    /// Unix socket for allocations and questions; default: /run/relayd/admin.sock, or the user's runtime
    /// directory
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
}

/// A parser for paths. A path may be empty, as in Go's flags; then the flag's default applies.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, String> {
        let parsed = parse::parse(args.iter().map(|arg| arg.to_string()));
        parsed.map(|parsed| parsed.cli).map_err(|said| said.text)
    }

    #[test]
    fn flags_are_taken_as_go_programs_take_them() {
        let cli =
            parse(&["-a=127.0.0.1:8443", "-http-port", "-2", "-stun=F", "--certmode", "manual", "-dev=1"]);
        let serve = cli.expect("parses").serve;
        assert_eq!((serve.addr.as_str(), serve.http_port.0, serve.stun), ("127.0.0.1:8443", None, false));
        assert!(serve.dev && serve.certmode == CertMode::Manual);
    }

    #[test]
    fn of_a_flag_that_is_given_twice_the_last_one_counts() {
        let twice =
            ["-dev", "-hostname", "a", "-stun=false", "-hostname=b", "-stun", "-dev=false", "-c=", "-c=x"];
        let serve = parse(&twice).expect("parses").serve;
        assert_eq!((serve.hostname.as_str(), serve.stun, serve.dev), ("b", true, false));
        assert_eq!(serve.config.as_deref(), Some("x".as_ref()));
    }

    #[test]
    fn derpers_defaults_are_ours() {
        let serve = parse(&[]).expect("parses").serve;
        assert_eq!(
            (serve.addr.as_str(), serve.http_port.0, serve.stun, serve.stun_port),
            (":443", Some(80), true, 3478)
        );
        assert!(!serve.dev);
        assert_eq!(serve.tcp_write_timeout, Duration::from_secs(2));
        assert_eq!(serve.tcp_keepalive_time, keepalive::Keepalive::After(Duration::from_secs(600)));
    }

    #[test]
    fn flags_that_are_not_built_are_refused_by_name() {
        for flag in ["-verify-clients", "-secrets-url=a", "--rate-config=x", "-home=blank"] {
            let error = parse(&[flag]).expect_err("refused");
            assert!(error.contains(flag.trim_start_matches('-').split('=').next().expect("name")), "{error}");
        }
    }

    #[test]
    fn messages_and_help_spell_flags_as_derper_does() {
        let wrong =
            [["-a"].as_slice(), &["-http-port=x"], &["-certdri", "x"], &["-certmode=x"], &["-h"], &["help"]];
        for args in wrong {
            let text = parse(args).expect_err("text");
            assert!(
                !text.contains("--a ") && !text.contains("--c ") && !text.contains("--certdir"),
                "{text}"
            );
        }
        let help = parse(&["help"]).expect_err("text");
        assert!(help.contains(" -a <ADDR>") && help.contains(" --xdp <IFACE>"), "{help}");
    }

    #[test]
    fn a_pause_that_would_stall_a_worker_is_refused_by_name() {
        let error = parse(&["--busy-pause", "2ms"]).expect_err("refused");
        assert!(error.contains("--busy-pause") && error.contains("1ms"), "{error}");
    }

    #[test]
    fn what_is_advertised_is_named_once_and_servers_as_often_as_there_are() {
        let relay = ["--relay-server-port", "1"];
        let of = |args: &[&str]| parse(&[&relay, args].concat());
        let serve = of(&["--advertise", "192.0.2.1,[2001:db8::1]:9", "--advertise=2001:db8::2"]);
        let advertise = serve.expect("parses").serve.advertise;
        let shown: Vec<_> = advertise.iter().map(|one| (one.ip.to_string(), one.port)).collect();
        let ips = ["192.0.2.1", "2001:db8::1", "2001:db8::2"].map(str::to_owned);
        assert_eq!(
            shown,
            [None, Some(9), None]
                .into_iter()
                .enumerate()
                .map(|(at, port)| (ips[at].clone(), port))
                .collect::<Vec<_>>()
        );
        let stun = ["--relay-server-stun", "a.example:3478,b.example:1", "--relay-server-stun=192.0.2.1:2"];
        let stun = of(&stun).expect("parses").serve.relay_server_stun;
        assert_eq!(stun, ["a.example:3478", "b.example:1", "192.0.2.1:2"]);
        let both = of(&["--advertise", "192.0.2.1", "--relay-server-stun", "a:1"]).expect_err("refused");
        assert!(both.contains("--advertise") && both.contains("--relay-server-stun"), "{both}");
        for flag in ["--advertise=192.0.2.1", "--relay-server-stun=a:1", "--relay-deny-file=/x"] {
            assert!(parse(&[flag]).expect_err("refused").contains("--relay-server-port"), "{flag}");
        }
    }

    #[test]
    fn lifetimes_of_sessions_are_upstreams_unless_they_are_given() {
        let serve = parse(&[]).expect("parses").serve;
        let seconds = [serve.relay_bind_lifetime, serve.relay_steady_lifetime].map(|time| time.as_secs());
        assert_eq!(seconds, [30, 300]);
        let error = parse(&["--relay-steady-lifetime", "25h"]).expect_err("refused");
        assert!(error.contains("--relay-steady-lifetime") && error.contains("24h"), "{error}");
    }

    #[test]
    fn the_udp_relays_offloads_and_mark_are_chosen_by_flag() {
        let serve = parse(&["--relay-server-port", "1"]).expect("parses").serve;
        assert_eq!((serve.udp_offload, serve.relay_server_mark), (true, 0));
        let args = ["--relay-server-port", "1", "--udp-offload=false", "--relay-server-mark", "0x80000"];
        let serve = parse(&args).expect("parses").serve;
        assert_eq!((serve.udp_offload, serve.relay_server_mark), (false, 0x80000));
    }

    #[test]
    fn flags_of_the_fast_path_need_what_they_refine() {
        assert!(parse(&["--xdp", "eth0"]).expect_err("refused").contains("--relay-server-port"));
        assert!(parse(&["--xdp-mode", "fast", "--xdp", "e", "--relay-server-port", "1"]).is_err());
        assert!(parse(&["--xdp", "e", "--relay-server-port", "1", "--bpf-dir", "/x"]).is_ok());
    }

    #[test]
    fn questions_take_the_admin_socket() {
        let cli = parse(&["sessions", "--admin-socket", "/x"]).expect("parses");
        let Some(Command::Sessions { filter, limit, admin }) = cli.command else { panic!("sessions") };
        assert_eq!((filter, limit, admin.json), (None, None, false));
        assert!(admin.admin_socket.is_some());
        let cli = parse(&["clients", "nodekey:0f", "-limit", "0", "--json"]).expect("parses");
        let Some(Command::Clients { filter, limit, admin }) = cli.command else { panic!("clients") };
        assert_eq!((filter.as_deref(), limit, admin.json), (Some("nodekey:0f"), Some(0), true));
    }
}
