//! The attacker: it sees every datagram, and sends what it saw again from the address where it saw it,
//! whoever has that address now.

use std::collections::VecDeque;

use crate::packet::Random;

/// Handshakes, and other datagrams, that it remembers.
const MEMORY: usize = 4096;

/// A datagram and where it was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The leg whose client sent it.
    pub(super) leg: usize,
    /// The port that it came from.
    pub(super) port: usize,
    /// The datagram.
    pub(super) datagram: Vec<u8>,
}

/// What the attacker has seen.
#[derive(Debug, Default)]
pub(super) struct Attacker {
    handshakes: VecDeque<[Seen; 2]>,
    data: VecDeque<(u64, Seen)>,
}

impl Attacker {
    /// A Bind and the Answer that followed.
    pub(super) fn saw_handshake(&mut self, leg: usize, port: usize, bind: Vec<u8>, answer: Vec<u8>) {
        let seen = |datagram| Seen { leg, port, datagram };
        remember(&mut self.handshakes, [seen(bind), seen(answer)]);
    }

    /// A data packet of a session.
    pub(super) fn saw_data(&mut self, serial: u64, leg: usize, port: usize, datagram: Vec<u8>) {
        remember(&mut self.data, (serial, Seen { leg, port, datagram }));
    }

    /// What it sends now: a whole handshake, one message of it, or data. Data of the sessions `silent` it
    /// leaves alone, because its replay would be a sign of life from an address that still is theirs.
    pub(super) fn choose(&self, random: &mut Random, silent: &[u64]) -> Vec<Seen> {
        let kind = random.below(4);
        if kind == 3 {
            let data = pick(&self.data, random).filter(|(serial, _)| !silent.contains(serial));
            return data.map(|(_, seen)| seen.clone()).into_iter().collect();
        }
        let Some([bind, answer]) = pick(&self.handshakes, random) else { return Vec::new() };
        match kind {
            0 => vec![bind.clone()],
            1 => vec![answer.clone()],
            _ => vec![bind.clone(), answer.clone()],
        }
    }
}

fn remember<T>(memory: &mut VecDeque<T>, seen: T) {
    if memory.len() == MEMORY {
        memory.pop_front();
    }
    memory.push_back(seen);
}

/// Any of them; the latest more often, because a challenge is good for some minutes only.
fn pick<'a, T>(memory: &'a VecDeque<T>, random: &mut Random) -> Option<&'a T> {
    if memory.is_empty() {
        return None;
    }
    let most = if random.below(2) == 0 { memory.len() } else { memory.len().min(64) };
    memory.get(memory.len() - 1 - random.below(most))
}
