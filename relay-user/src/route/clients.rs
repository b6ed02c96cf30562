//! Decides which connection receives the packets for a node key.
//!
//! Several connections may log in with one key (a restarted client, a cloned machine). All of them stay open
//! and are read. Packets for the key go to the active one: the newest, until another of them sends a frame.
//! This is upstream's production policy, "last writer is active".

use std::collections::HashMap;

use relay_common::key::NodePublic;

use super::vocabulary::{Change, ConnId, Refusal};

/// The connections of every key, the most recently active one last.
#[derive(Debug, Default)]
pub(super) struct Clients {
    keys: HashMap<ConnId, NodePublic>,
    conns_by_key: HashMap<NodePublic, Vec<ConnId>>,
}

impl Clients {
    /// Handles a login: a connection proved `key` and is now the active one.
    pub(super) fn login(
        &mut self,
        conn: ConnId,
        key: NodePublic,
        out: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        if self.keys.contains_key(&conn) {
            return Err(Refusal::ConnInUse);
        }
        self.keys.insert(conn, key);
        let conns = self.conns_by_key.entry(key).or_default();
        conns.push(conn);
        if let [.., previous, _] = conns.as_slice() {
            // The first duplicate flags the existing connection too: from now on its frames are events.
            if conns.len() == 2 {
                out.push(Change::Shared { conn: *previous, shared: true });
            }
            out.push(Change::Shared { conn, shared: true });
        }
        out.push(Change::Route { key, conn });
        Ok(())
    }

    /// Handles a frame of a connection that shares its key.
    pub(super) fn frame(&mut self, conn: ConnId, out: &mut Vec<Change>) -> Result<(), Refusal> {
        let key = *self.keys.get(&conn).ok_or(Refusal::UnknownConn)?;
        let conns = self.conns_by_key.get_mut(&key).ok_or(Refusal::UnknownConn)?;
        if conns.last() != Some(&conn) {
            conns.retain(|other| *other != conn);
            conns.push(conn);
            out.push(Change::Route { key, conn });
        }
        Ok(())
    }

    /// Handles the end of a connection.
    pub(super) fn leave(&mut self, conn: ConnId, out: &mut Vec<Change>) -> Result<(), Refusal> {
        let key = self.keys.remove(&conn).ok_or(Refusal::UnknownConn)?;
        let Some(conns) = self.conns_by_key.get_mut(&key) else { return Err(Refusal::UnknownConn) };
        let was_active = conns.last() == Some(&conn);
        conns.retain(|other| *other != conn);
        match conns.as_slice() {
            [] => {
                self.conns_by_key.remove(&key);
                out.push(Change::Unroute { key });
            }
            [rest @ .., survivor] => {
                if rest.is_empty() {
                    out.push(Change::Shared { conn: *survivor, shared: false });
                }
                if was_active {
                    out.push(Change::Route { key, conn: *survivor });
                }
            }
        }
        Ok(())
    }
}
