//! The state of one TLS connection, as its client or its server. It has no socket: encrypted bytes
//! are put in and taken out.
//!
//! rustls does the cryptography. It decrypts a record in place and hands its content out in memory
//! of its own; from there it is copied once, into the buffer that it is sent on from. Between two
//! responses nothing is held but the state itself.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConfig, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};

use crate::transport::tls::TlsError;

/// A TLS session.
pub(super) struct Session {
    role: Role,
    /// Received, not decrypted yet: less than a record, or more than the reader had room for.
    pub(super) incoming: Vec<u8>,
    /// Decrypted, not taken yet.
    pub(super) plain: Vec<u8>,
    /// Encrypted, not sent yet.
    pub(super) outgoing: Vec<u8>,
    pub(super) state: State,
}

/// Client or server; they differ in the handshake alone.
enum Role {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// The progress of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Handshake,
    Open,
    /// The peer has sent `close_notify`.
    Closed,
}

/// Receives decrypted bytes: up to `room` into `buf`, the rest into `plain`.
struct Plaintext<'a> {
    buf: &'a mut Vec<u8>,
    room: usize,
    plain: &'a mut Vec<u8>,
}

impl Session {
    /// The client's end of a connection to a server that must authenticate as `name`.
    pub(super) fn client(
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Session, TlsError> {
        let session = UnbufferedClientConnection::new(Arc::clone(config), name)?;
        Ok(Session::new(Role::Client(session)))
    }

    /// The server's end.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "no listener has TLS yet; tests run both ends")
    )]
    pub(super) fn server(config: &Arc<ServerConfig>) -> Result<Session, TlsError> {
        let session = UnbufferedServerConnection::new(Arc::clone(config))?;
        Ok(Session::new(Role::Server(session)))
    }

    fn new(role: Role) -> Session {
        Session {
            role,
            incoming: Vec::new(),
            plain: Vec::new(),
            outgoing: Vec::new(),
            state: State::Handshake,
        }
    }

    /// Decrypts received records into `buf`, up to `room` bytes, and encodes handshake messages to
    /// send. Returns the number of bytes added to `buf`; an error adds none.
    pub(super) fn process(&mut self, buf: &mut Vec<u8>, room: usize) -> Result<usize, TlsError> {
        let Session { role, incoming, plain, outgoing, state } = self;
        let start = buf.len();
        let taken = room.min(plain.len());
        buf.extend(plain.drain(..taken));
        let mut plaintext = Plaintext { buf, room: room - taken, plain };
        let mut consumed = 0;
        let mut waits = false;
        while !waits && (*state != State::Open || plaintext.room > 0) {
            let records = &mut incoming[consumed..];
            let (discard, processed) = match role {
                Role::Client(session) => {
                    step(session.process_tls_records(records), &mut plaintext, outgoing, state)
                }
                Role::Server(session) => {
                    step(session.process_tls_records(records), &mut plaintext, outgoing, state)
                }
            };
            consumed += discard;
            match processed {
                Ok(is_waiting) => waits = is_waiting,
                Err(error) => {
                    // The caller has not dealt with them, and must not take them for the body.
                    buf.truncate(start);
                    incoming.drain(..consumed.min(incoming.len()));
                    self.encode_alert();
                    return Err(error);
                }
            }
        }
        let left = plaintext.room;
        incoming.drain(..consumed);
        Ok(room - left)
    }

    /// After an error: encodes the alert for the peer, if there is one.
    fn encode_alert(&mut self) {
        let outgoing = &mut self.outgoing;
        // The alert is a courtesy: without it the peer sees a closed connection.
        let _ = match &mut self.role {
            Role::Client(session) => encode_pending(session.process_tls_records(&mut []), outgoing),
            Role::Server(session) => encode_pending(session.process_tls_records(&mut []), outgoing),
        };
    }

    /// Encrypts `bytes`, to be sent.
    pub(super) fn encrypt(&mut self, bytes: &[u8]) -> io::Result<()> {
        // The state machine writes only after it has processed all received records; the plaintext
        // is kept.
        let mut plain = std::mem::take(&mut self.plain);
        let processed = self.process(&mut plain, usize::MAX);
        self.plain = plain;
        processed?;
        self.write(Write::Data(bytes))
    }

    /// Encodes `close_notify`: no more bytes will be sent.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.write(Write::CloseNotify)
    }

    fn write(&mut self, what: Write<'_>) -> io::Result<()> {
        let outgoing = &mut self.outgoing;
        match &mut self.role {
            Role::Client(session) => what.encode(session.process_tls_records(&mut []), outgoing),
            Role::Server(session) => what.encode(session.process_tls_records(&mut []), outgoing),
        }
    }
}

/// Takes one step of the state machine. Returns the bytes of `incoming` that it has consumed, and
/// whether it needs more before the next step.
fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: &mut Plaintext<'_>,
    outgoing: &mut Vec<u8>,
    state: &mut State,
) -> (usize, Result<bool, TlsError>) {
    let UnbufferedStatus { mut discard, state: event, .. } = status;
    let processed = match event {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plaintext.take(record.payload);
                }
                Some(Err(error)) => break Err(error.into()),
                None => break Ok(false),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode_handshake(outgoing, &mut data).map(|()| false)
        }
        // The caller sends it before it waits for anything.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(false)
        }
        Ok(ConnectionState::WriteTraffic(_)) => {
            *state = State::Open;
            Ok(true)
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
            *state = State::Closed;
            Ok(true)
        }
        Ok(_) => Ok(true),
        Err(error) => Err(error.into()),
    };
    (discard, processed)
}

impl Plaintext<'_> {
    fn take(&mut self, payload: &[u8]) {
        let fits = self.room.min(payload.len());
        self.buf.extend_from_slice(&payload[..fits]);
        self.plain.extend_from_slice(&payload[fits..]);
        self.room -= fits;
    }
}

/// What is written to an open session.
enum Write<'a> {
    Data(&'a [u8]),
    CloseNotify,
}

impl Write<'_> {
    fn encode<Data>(
        &self,
        status: UnbufferedStatus<'_, '_, Data>,
        outgoing: &mut Vec<u8>,
    ) -> io::Result<()> {
        let ConnectionState::WriteTraffic(mut traffic) = status.state.map_err(TlsError::from)?
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(append(outgoing, |out| self.encode_into(&mut traffic, out))?)
    }

    fn encode_into<Data>(
        &self,
        traffic: &mut WriteTraffic<'_, Data>,
        out: &mut [u8],
    ) -> Result<usize, NotEncoded> {
        let encoded = match self {
            Write::Data(bytes) => traffic.encrypt(bytes, out),
            Write::CloseNotify => traffic.queue_close_notify(out),
        };
        encoded.map_err(|error| match error {
            EncryptError::InsufficientSize(size) => NotEncoded::NoRoom(size),
            error @ EncryptError::EncryptExhausted => NotEncoded::Failed(error.to_string()),
        })
    }
}

fn encode_pending<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Vec<u8>,
) -> Result<(), TlsError> {
    match status.state? {
        ConnectionState::EncodeTlsData(mut data) => encode_handshake(outgoing, &mut data),
        _ => Ok(()),
    }
}

fn encode_handshake<Data>(
    outgoing: &mut Vec<u8>,
    data: &mut EncodeTlsData<'_, Data>,
) -> Result<(), TlsError> {
    append(outgoing, |out| {
        data.encode(out).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => NotEncoded::NoRoom(size),
            error @ EncodeError::AlreadyEncoded => NotEncoded::Failed(error.to_string()),
        })
    })
}

/// rustls wrote nothing.
enum NotEncoded {
    NoRoom(InsufficientSizeError),
    Failed(String),
}

/// Has `write` append to `out`, with as much room as it asks for.
fn append(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, NotEncoded>,
) -> Result<(), TlsError> {
    let general = |reason: &str| TlsError::from(rustls::Error::General(reason.to_owned()));
    let start = out.len();
    let mut room = 0;
    loop {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(NotEncoded::NoRoom(size)) if size.required_size > room => room = size.required_size,
            Err(NotEncoded::NoRoom(_)) => {
                return Err(general("TLS does not report the space it needs"));
            }
            Err(NotEncoded::Failed(reason)) => return Err(general(&reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    /// Both ends of a connection.
    fn sessions() -> (Session, Session) {
        let pair = rcgen::generate_simple_self_signed(["s3.example".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = pair.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(pair.signing_key.serialize_der().into());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("s3.example").unwrap();
        let client = Session::client(&Arc::new(client), name).unwrap();
        (client, Session::server(&Arc::new(server)).unwrap())
    }

    /// Passes one end's outgoing bytes to the other, and returns the bytes that it decrypts.
    fn carry(from: &mut Session, to: &mut Session) -> Vec<u8> {
        to.incoming.append(&mut from.outgoing);
        let mut text = Vec::new();
        to.process(&mut text, usize::MAX).unwrap();
        text
    }

    #[test]
    fn both_roles_shake_hands_talk_and_close() {
        let (mut client, mut server) = sessions();
        client.process(&mut Vec::new(), 0).unwrap();
        for _ in 0..3 {
            carry(&mut client, &mut server);
            carry(&mut server, &mut client);
        }
        assert_eq!((client.state, server.state), (State::Open, State::Open));
        client.encrypt(b"GET /").unwrap();
        assert_eq!(carry(&mut client, &mut server), b"GET /");
        let body = vec![b'x'; 100_000];
        server.encrypt(&body).unwrap();
        assert_eq!(carry(&mut server, &mut client), body);
        server.close().unwrap();
        carry(&mut server, &mut client);
        assert_eq!(client.state, State::Closed);
    }

    #[test]
    fn bytes_in_front_of_an_invalid_record_are_not_handed_out_with_the_error() {
        let (mut client, mut server) = sessions();
        client.process(&mut Vec::new(), 0).unwrap();
        for _ in 0..3 {
            carry(&mut client, &mut server);
            carry(&mut server, &mut client);
        }
        server.encrypt(b"3\r\nabc\r\n").unwrap();
        client.incoming.append(&mut server.outgoing);
        client.incoming.extend(b"\x17\x03\x03\x00\x11not of this session");
        let mut text = b"before".to_vec();
        assert!(client.process(&mut text, usize::MAX).is_err());
        assert_eq!(text, b"before");
    }

    #[test]
    fn bytes_beyond_the_readers_room_are_kept() {
        let (mut client, mut server) = sessions();
        client.process(&mut Vec::new(), 0).unwrap();
        for _ in 0..3 {
            carry(&mut client, &mut server);
            carry(&mut server, &mut client);
        }
        server.encrypt(b"abcdef").unwrap();
        client.incoming.append(&mut server.outgoing);
        let mut text = Vec::new();
        assert_eq!(client.process(&mut text, 2).unwrap(), 2);
        assert_eq!(client.process(&mut text, 3).unwrap(), 3);
        assert_eq!(client.process(&mut text, 9).unwrap(), 1);
        assert_eq!(text, b"abcdef");
    }
}
