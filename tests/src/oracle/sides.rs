//! The two record layers behind one interface. Each has a client whose keys are known.

use std::ops::ControlFlow;
use std::sync::Arc;

use relay_user::transport::tls::cipher::{APPLICATION_DATA, Cipher, HEADER, OVERHEAD};
use relay_user::transport::tls::handshake::{Handshake, InRustls, sealed_len};
use relay_user::transport::tls::records::{Opened, RecordFault, Records};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::kernel::KernelConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig, version};

use super::script::Record;
use crate::client::tls::anyone;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// More bytes than any handshake message here has.
const MESSAGE_ROOM: usize = 4096;
/// Maximum turns of a handshake.
const MAX_TURNS: usize = 64;

/// TLS configurations with and without extraction of secrets; a connection needs the extracted secrets to
/// switch to our record layer.
pub(super) struct Configs {
    ours: Arc<ServerConfig>,
    theirs: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Configs {
    pub(super) fn new() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["relay.test".to_owned()]).expect("certificate");
        let key = signing_key.serialize_der().try_into().expect("key");
        let provider = Arc::new(default_provider());
        let mut theirs = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("identity");
        theirs.send_tls13_tickets = 0;
        let mut ours = theirs.clone();
        ours.enable_secret_extraction = true;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(anyone())
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        Self { ours: Arc::new(ours), theirs: Arc::new(theirs), client: Arc::new(client) }
    }
}

/// The state of a connection after a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The connection continues.
    Alive,
    /// The client has closed the connection.
    Closed,
    /// The connection has failed, with this alert to the client.
    Ended(Option<u8>),
}

/// The effect of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) plaintext: Vec<u8>,
    pub(super) state: State,
}

/// Our record layer.
pub(super) struct Ours(Records);

/// rustls, as `--tls-records rustls` runs it.
pub(super) struct Theirs(ServerHandshake);

/// A server while rustls handles it.
type ServerHandshake = Handshake<UnbufferedServerConnection>;

/// A server, and the keys of its client.
pub(super) struct Side<L> {
    layer: L,
    tx: Cipher,
    rx: Cipher,
    secrets: KernelConnection<ClientConnectionData>,
    /// Bytes that the server has received and not used.
    data: Vec<u8>,
}

impl<L> Side<L> {
    fn new(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
        layer: impl FnOnce(ServerHandshake) -> L,
    ) -> Self {
        let mut server = Handshake::new(Arc::clone(server)).expect("server");
        let name = ServerName::try_from("relay.test").expect("name");
        let mut client = UnbufferedClientConnection::new(Arc::clone(client), name).expect("client");
        let (mut said, mut heard) = (Vec::new(), Vec::new());
        for _ in 0..MAX_TURNS {
            let UnbufferedStatus { discard, state, .. } = client.process_tls_records(&mut heard);
            let mut done = false;
            match state.expect("valid") {
                ConnectionState::EncodeTlsData(mut message) => {
                    let at = said.len();
                    said.resize(at + MESSAGE_ROOM, 0);
                    let len = message.encode(&mut said[at..]).expect("room");
                    said.truncate(at + len);
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::WriteTraffic(_) if said.is_empty() => done = true,
                _ => {
                    let mut sink = |_: &[u8]| ControlFlow::Continue(());
                    let opened = server.open(&mut said, &mut heard, &mut sink).expect("valid");
                    said.drain(..opened.used);
                }
            }
            heard.drain(..discard);
            if done {
                break;
            }
        }
        let (keys, secrets) = client.dangerous_into_kernel_connection().expect("connected");
        let (tx, rx) = (Cipher::new(keys.tx).expect("known"), Cipher::new(keys.rx).expect("known"));
        Self { layer: layer(server), tx, rx, secrets, data: Vec::new() }
    }

    /// The server receives a record.
    pub(super) fn hear(&mut self, record: &Record) {
        let (inner, damage) = match record {
            Record::Sealed(inner) => (inner, None),
            Record::Damaged { inner, at, bits } => (inner, Some((*at, *bits))),
            Record::Raw(bytes) => return self.data.extend_from_slice(bytes),
        };
        let (&last, before) = inner.split_last().expect("a type");
        let start = self.data.len();
        self.data.resize(start + before.len() + OVERHEAD, 0);
        self.tx.seal(last, before, &mut self.data[start..]).expect("room");
        if let Some((at, bits)) = damage {
            let len = self.data.len() - start;
            self.data[start + at % len] ^= bits;
        }
    }

    /// The header of the record that is opened next, if it has arrived.
    pub(super) fn front(&self) -> Option<[u8; HEADER]> {
        self.data.first_chunk().copied()
    }

    /// Updates the client's sending key after it has sent a key update.
    pub(super) fn update_keys(&mut self) {
        self.tx = Cipher::new(self.secrets.update_tx_secret().expect("TLS 1.3")).expect("known");
    }

    /// Opens what the server sent, with the client's keys: data, and an alert if there is one.
    fn read(&mut self, mut records: &mut [u8]) -> (Vec<u8>, Option<u8>) {
        let (mut data, mut alert) = (Vec::new(), None);
        while let Some(record) = self.rx.open(records).expect("the server's own records open") {
            match (record.kind, record.plaintext) {
                (APPLICATION_DATA, plaintext) => data.extend_from_slice(plaintext),
                (ALERT, &[_, description]) => alert = Some(description),
                (HANDSHAKE, &[24, 0, 0, 1, 0]) => {
                    self.rx = Cipher::new(self.secrets.update_rx_secret().expect("TLS 1.3")).expect("known");
                }
                other => panic!("the server sent {other:?}"),
            }
            let len = record.len;
            records = &mut records[len..];
        }
        assert!(records.is_empty(), "the server sends whole records");
        (data, alert)
    }
}

impl Side<Ours> {
    pub(super) fn ours(configs: &Configs) -> Self {
        Self::new(&configs.ours, &configs.client, |server| {
            Ours(Box::new(server).hand_over().expect("handed over"))
        })
    }

    pub(super) fn open(&mut self) -> Outcome {
        let mut plaintext = Vec::new();
        let result = self.layer.0.open(&mut self.data, &mut |bytes| {
            plaintext.extend_from_slice(bytes);
            ControlFlow::Continue(())
        });
        let state = match result {
            Ok(Opened { used, closed }) => {
                self.data.drain(..used);
                if closed { State::Closed } else { State::Alive }
            }
            Err(fault) => State::Ended(self.alert(fault)),
        };
        Outcome { plaintext, state }
    }

    fn alert(&mut self, fault: RecordFault) -> Option<u8> {
        let mut out = [0; 64];
        let len = self.layer.0.seal_alert(Some(fault), &mut out).expect("room");
        self.read(&mut out[..len]).1
    }

    pub(super) fn say(&mut self, text: &[u8]) -> Vec<u8> {
        let mut out = vec![0; Records::sealed_len(text.len())];
        let len = self.layer.0.seal(text, &mut out).expect("room");
        self.read(&mut out[..len]).0
    }
}

impl Side<Theirs> {
    pub(super) fn theirs(configs: &Configs) -> Self {
        Self::new(&configs.theirs, &configs.client, Theirs)
    }

    pub(super) fn open(&mut self) -> Outcome {
        let (mut plaintext, mut replies) = (Vec::new(), Vec::new());
        let result = self.layer.0.open(&mut self.data, &mut replies, &mut |bytes| {
            plaintext.extend_from_slice(bytes);
            ControlFlow::Continue(())
        });
        let alert = self.read(&mut replies).1;
        let state = match result {
            Ok(Opened { used, closed }) => {
                self.data.drain(..used);
                if closed { State::Closed } else { State::Alive }
            }
            Err(_) => State::Ended(alert),
        };
        Outcome { plaintext, state }
    }

    pub(super) fn say(&mut self, text: &[u8]) -> Vec<u8> {
        let (mut out, mut replies) = (vec![0; sealed_len(text.len())], Vec::new());
        let len = self.layer.0.seal(&mut self.data, text, &mut out, &mut replies).expect("sealed");
        replies.extend_from_slice(&out[..len]);
        self.read(&mut replies).0
    }
}
