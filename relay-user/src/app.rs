//! Builds the daemon from its command line, runs it, and stops it.

mod derp;
mod memory;
mod mesh;
mod reload;
mod stop;
mod udp;

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use rand_core::OsRng;
use relay_common::key::{DiscoPrivate, NodePrivate};
use time::OffsetDateTime;
use tokio::task::JoinSet;

use self::stop::Stop;
use crate::admin::{self, Parts};
use crate::cli::Serve;
use crate::files::Limit;
use crate::observe::counters::Counters;
use crate::relay::Relay;
use crate::route::Router;
use crate::route::peer::Ending;
use crate::route::sessions::Limits;
use crate::workers::Workers;
use crate::{clock, keyfile, threads, upkeep};

/// Time between two looks at the certificate's dates.
const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// Root's key file, as derper's.
const ROOT_KEY_FILE: &str = "/var/lib/derper/derper.key";

/// Runs the daemon until a signal stops it.
///
/// # Errors
/// The daemon could not start. The message names the flag, file or key, and the remedy.
pub fn run(serve: Serve) -> anyhow::Result<()> {
    // The event loop of the main thread, for work other than relaying.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the main thread's event loop")?;
    // Dropped after everything that uses the workers, and outside any task.
    let mut workers = Workers::default();
    let ended = runtime.block_on(start(serve, &mut workers));
    // A look-up of another relay's name may hang for many seconds; the stop does not wait for it.
    runtime.shutdown_background();
    ended
}

async fn start(serve: Serve, workers: &mut Workers) -> anyhow::Result<()> {
    let started_ns = clock::monotonic_ns();
    Limit::raise().context("cannot read the limit of open files (ulimit -n)")?;
    // The order of the start: first all checks that change nothing, then the sockets, which end with the
    // process. Files are written and clients let in only when no setting can cause an error any more; what
    // can still fail is the machine: its disk, memory or threads.
    let plan = derp::judge(&serve)?;
    let denied = udp::judge(&serve)?;
    let region = mesh::judge(&serve)?;
    let key = ServerKey::judge(&serve)?;
    let count = serve.workers.map_or_else(default_workers, usize::from);
    // Before anything is opened that a sudden end would leave behind.
    let stop = Stop::listen()?;
    let pairs = udp::bind(&serve, count)?;
    let bound = derp::bind(&serve, &plan)?;
    let mut fast = udp::fast_path(&serve, pairs.as_deref())?;
    let admin_socket = admin_socket(&serve)?;
    let key = key.or_make()?;

    let disco = DiscoPrivate::generate(&mut OsRng);
    let limits = Limits {
        max_sessions: serve.relay_max_sessions,
        bind_lifetime_ns: nanoseconds(serve.relay_bind_lifetime),
        steady_lifetime_ns: nanoseconds(serve.relay_steady_lifetime),
        server: disco.public(),
    };
    let kernel = fast.as_mut().ok().map(|fast| Box::new(fast.session_map()) as _);
    let ways = fast.as_mut().ok().map(crate::fastpath::FastPath::next_hop_map);
    let router = Router::new(limits, kernel);
    let queue_bytes = serve.queue_memory.map_or_else(memory::queue_default, |size| size.as_u64());
    let mut relay = Relay::new(router, Counters::default(), key, serve.tcp_write_timeout, queue_bytes);
    relay.mesh.key.clone_from(&region.key);
    let relay = Arc::new(relay);
    let fast = fast.map(Arc::new);
    let pool = workers.start(count, serve.busy_pause).with_context(|| {
        format!(
            "cannot start the workers (--workers); is the limit of open files (ulimit -n) high enough, and {}",
            threads::REMEDY
        )
    })?;
    let mut tasks = JoinSet::new();

    let derp::Served { service, certificate } = derp::secure(plan, serve.tls_records, &bound, &relay)?;
    let udp = match pairs {
        Some(pairs) => {
            let (endpoints, discovery) = udp::discovery(&pairs, &serve);
            let fast = fast.as_ref().ok().cloned().zip(ways);
            let secret = udp::Secret { disco, denied: Arc::clone(&denied) };
            let plan = udp::Plan { secret, endpoints, limits, fast, mark: serve.relay_server_mark };
            let started = udp::start(plan, &discovery, &relay, &mut tasks)?;
            udp::serve(pairs, &started.service, discovery, &pool, &mut tasks)?;
            Some(started)
        }
        None => None,
    };
    // The search for next hops goes on until the end of this function.
    let (about, _hops) = udp.map_or((None, None), |udp| (Some(udp.about), udp.hops));
    derp::start(bound, service, &relay, &pool, &mut tasks);
    let mesh = mesh::start(region, &relay, &pool, &mut tasks);
    tasks.spawn(upkeep::connections(Arc::clone(&relay)));
    tasks.spawn(upkeep::spread(Arc::clone(&relay), Arc::clone(&pool)));
    tasks.spawn(upkeep::queue_memory(Arc::clone(&relay)));
    tasks.spawn(reload::on_hangup(Arc::clone(&stop.hangups), Arc::clone(&relay), denied));
    if let Some(certificate) = &certificate {
        tasks.spawn(watch_certificate(Arc::clone(certificate)));
    }
    let daemon = Arc::new(Parts {
        relay: Arc::clone(&relay),
        udp: about,
        fast,
        certificate,
        mesh,
        pool: Arc::clone(&pool),
        started_ns,
    });
    let _admin = match admin_socket {
        Some((path, listener, file)) => {
            let (thread, ended) = admin::thread::start(listener, daemon)?;
            tasks.spawn(ended);
            tracing::info!(path = %path.display(), "admin socket");
            Some((thread, file))
        }
        None => None,
    };
    tracing::info!(workers = pool.count(), key = %relay.public, "ready");

    let why = tokio::select! {
        why = stop.wait() => why,
        // All these tasks run for ever; if one ended, the daemon would work only in part.
        ended = tasks.join_next() => match ended {
            Some(Err(error)) => bail!("a part of the daemon has failed ({error}); please report it with the log"),
            _ => bail!("a part of the daemon has ended; the log says which, please report it"),
        },
    };
    tracing::info!(why, "stopping");
    relay.router.for_each_peer(|peer| peer.end(Ending::Shutdown));
    tasks.shutdown().await;
    Ok(())
}

/// The admin socket. If the operator named no path and the default path cannot be used (a service without
/// `RuntimeDirectory=`, a read-only `/run`), the relay runs without it: services written for derper have no
/// such directory.
fn admin_socket(serve: &Serve) -> anyhow::Result<Option<(PathBuf, UnixListener, admin::socket::SocketFile)>> {
    let bind = |path: PathBuf| {
        let (listener, file) = admin::socket::bind(&path)?;
        Ok((path, listener, file))
    };
    let failed = match serve.admin_socket.clone() {
        Some(path) => return bind(path).map(Some),
        None => match admin::socket::default_path().and_then(bind) {
            Ok(bound) => return Ok(Some(bound)),
            Err(taken) if taken.is::<admin::socket::Taken>() => return Err(taken),
            Err(error) => error,
        },
    };
    tracing::warn!(
        "no admin socket, so no status and no UDP sessions: {failed:#} (in a systemd unit, RuntimeDirectory=relayd \
         makes a place)"
    );
    Ok(None)
}

/// The server's key, or the path where a new key must be written.
enum ServerKey {
    Found(NodePrivate),
    ToMake(PathBuf),
}

impl ServerKey {
    /// Looks for the key; writes nothing.
    fn judge(serve: &Serve) -> anyhow::Result<Self> {
        // Go's flags do not distinguish an empty value from an absent one.
        let path = match serve.config.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => path.clone(),
            None if serve.dev => return Ok(Self::Found(NodePrivate::generate(&mut OsRng))),
            None if nix::unistd::geteuid().is_root() => ROOT_KEY_FILE.into(),
            None => bail!("name a key file with -c; only root has a default, {ROOT_KEY_FILE}"),
        };
        Ok(keyfile::load(&path)?.map_or(Self::ToMake(path), Self::Found))
    }

    fn or_make(self) -> anyhow::Result<NodePrivate> {
        match self {
            Self::Found(key) => Ok(key),
            Self::ToMake(path) => {
                let key = keyfile::make(&path)?;
                tracing::info!(file = %path.display(), "made a key");
                Ok(key)
            }
        }
    }
}

/// Reports the certificate's validity once a day: it may expire long after the start.
async fn watch_certificate(certificate: Arc<admin::ServedCertificate>) {
    let mut days = tokio::time::interval(DAY);
    // The first tick comes at once, and the start has just reported.
    days.tick().await;
    loop {
        days.tick().await;
        certificate.facts.report(OffsetDateTime::now_utc());
    }
}

/// A lifetime, which the command line keeps below a day, in nanoseconds.
fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// At most one worker for every two cores: the kernel's half of the work for a packet needs the others. Only
/// as many are used as the load needs ([`crate::workers::spread`]).
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}
