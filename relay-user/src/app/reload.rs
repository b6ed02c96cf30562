//! What SIGHUP asks for: files that are read again.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::access::deny::DenyList;
use crate::observe::counters::Counter;
use crate::relay::Relay;

/// Reads the list of denied networks again at each hangup, and ends the sessions of those that are on it now.
pub(super) async fn on_hangup(hangups: Arc<Notify>, relay: Arc<Relay>, denied: Arc<DenyList>) {
    loop {
        hangups.notified().await;
        if denied.file().is_none() {
            tracing::info!("SIGHUP: there is no file to read again (--relay-deny-file)");
            continue;
        }
        let (relay, denied) = (Arc::clone(&relay), Arc::clone(&denied));
        // A long file and a million sessions take a while.
        let done = tokio::task::spawn_blocking(move || reload(&relay, &denied)).await;
        if let Err(error) = done {
            tracing::error!(%error, "SIGHUP: reading the denied networks has failed; please report it");
        }
    }
}

fn reload(relay: &Relay, denied: &DenyList) {
    let before = denied.len();
    if let Err(error) = denied.reload() {
        tracing::error!(networks = before, "SIGHUP: {error}; the old list stays");
        return;
    }
    let ended = relay
        .router
        .end_sessions(|session| session.legs.iter().flatten().any(|path| denied.denies(path.remote.ip())));
    relay.counters.add(Counter::UdpEndedDenied, ended as u64);
    tracing::info!(before, networks = denied.len(), ended, "SIGHUP: denied networks read again");
}
