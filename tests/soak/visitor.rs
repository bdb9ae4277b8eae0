//! One client that sends one request after the other and at random reads on, reads slowly, pauses
//! or disconnects. It checks every byte of every response.

use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;

use crate::exchange::{Bucket, Exchange};
use crate::ledger::Ledger;
use crate::support::proxy::Proxy;
use crate::support::raw_http::{Client, Response};

pub(crate) struct Visitor<'a> {
    proxy: &'a Proxy,
    bucket: &'a Bucket,
    ledger: &'a Ledger,
    rng: Rng,
    /// The connection of the last request, if it was kept.
    kept: Option<Client>,
}

/// How the body of a response is read.
#[derive(Clone, Copy)]
enum Pace {
    Steady,
    /// The first MiB in small pieces with pauses.
    Slow,
    /// With a pause after this many bytes.
    Pausing {
        after: u64,
        time: Duration,
    },
    /// Up to this many bytes; the connection is then closed, or reset.
    Leaving {
        after: u64,
        reset: bool,
    },
}

/// How a body ended.
#[derive(PartialEq, Eq)]
enum Ending {
    Complete,
    /// By the proxy, too early.
    CutShort,
    /// By the client, which aborted it.
    Aborted,
}

/// Bytes per read.
const PIECE_BYTES: u64 = 64 * 1024;

/// Bytes per read of a slow reader, and its pause after each.
const SLOW_PIECE_BYTES: u64 = 16 * 1024;
const SLOW_REST: Duration = Duration::from_millis(4);

/// More than all buffers between S3 and the client hold, so that a pause stops S3's sending.
const PAUSED_BYTES: u64 = 24 << 20;

/// Receive buffer of slow clients; the kernel would otherwise buffer MiB for them.
const SMALL_RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

impl<'a> Visitor<'a> {
    /// A client whose random choices depend on `seed`.
    pub(crate) fn new(
        proxy: &'a Proxy,
        bucket: &'a Bucket,
        ledger: &'a Ledger,
        seed: u64,
    ) -> Visitor<'a> {
        Visitor { proxy, bucket, ledger, rng: Rng::with_seed(seed), kept: None }
    }

    /// Does one thing, chosen at random.
    pub(crate) fn turn(&mut self) {
        let (bucket, rng) = (self.bucket, &mut self.rng);
        match rng.u32(..100) {
            0..45 => {
                let exchange = bucket.any_exchange(rng);
                self.request(exchange, Pace::Steady);
            }
            45..60 => {
                let exchange = bucket.head_exchange(rng);
                self.request(exchange, Pace::Steady);
            }
            60..68 => self.pipeline(),
            68..84 => {
                let exchange = bucket.open_ended_exchange(rng);
                let after = (22.0 * rng.f64()).exp2() as u64;
                let reset = rng.bool();
                self.request(exchange, Pace::Leaving { after, reset });
            }
            84..89 => self.leave_before_the_head(),
            89..95 => {
                self.kept = Some(self.with_a_small_socket());
                let exchange = bucket.long_exchange(3 << 20, &mut self.rng);
                self.request(exchange, Pace::Slow);
            }
            95..97 => {
                self.kept = Some(self.with_a_small_socket());
                let exchange = bucket.long_exchange(PAUSED_BYTES, &mut self.rng);
                let after = self.rng.u64(..PAUSED_BYTES / 8);
                let time = Duration::from_millis(self.rng.u64(300..1500));
                self.request(exchange, Pace::Pausing { after, time });
            }
            _ => {
                let exchange = bucket.long_exchange(8 << 20, rng);
                self.request(exchange, Pace::Steady);
            }
        }
    }

    pub(crate) fn read_a_slice(&mut self) {
        let exchange = self.bucket.slice_exchange(&mut self.rng);
        self.request(exchange, Pace::Steady);
    }

    /// One exchange of each kind with each object.
    pub(crate) fn request_everything(&mut self) {
        for exchange in self.bucket.all_exchanges(&mut self.rng) {
            self.request(exchange, Pace::Steady);
        }
    }

    fn request(&mut self, exchange: Exchange<'_>, pace: Pace) {
        let closes = self.rng.u32(..5) == 0;
        let exchange = if closes { exchange.field("Connection", "close") } else { exchange };
        let mut connection = self.kept.take().unwrap_or_else(|| Client::connect(self.proxy));
        self.ledger.open().sent += 1;
        connection.send(exchange.head());
        let response = self.head(&mut connection, &exchange);
        assert_eq!(response.announces_close(), closes, "{response:?}");
        match self.rest(&mut connection, &exchange, response, pace) {
            Ending::Complete if closes => connection.assert_closed(),
            Ending::Complete => self.kept = Some(connection),
            Ending::CutShort | Ending::Aborted => {}
        }
    }

    /// Several HEADs at once, whose responses must come in order.
    fn pipeline(&mut self) {
        let mut connection = self.kept.take().unwrap_or_else(|| Client::connect(self.proxy));
        let (bucket, rng) = (self.bucket, &mut self.rng);
        let exchanges: Vec<_> = (0..rng.u32(2..16)).map(|_| bucket.head_exchange(rng)).collect();
        self.ledger.open().sent += exchanges.len() as u64;
        connection.send(exchanges.iter().map(Exchange::head).collect::<String>());
        for exchange in &exchanges {
            let response = self.head(&mut connection, exchange);
            self.rest(&mut connection, exchange, response, Pace::Steady);
        }
        self.kept = Some(connection);
    }

    /// Like a viewer whose user scrolls on.
    fn leave_before_the_head(&mut self) {
        let mut connection = Client::connect(self.proxy);
        let exchange = self.bucket.any_exchange(&mut self.rng);
        let mut counts = self.ledger.open();
        counts.sent += 1;
        counts.given_up += 1;
        drop(counts);
        connection.send(exchange.head());
        std::thread::sleep(Duration::from_micros(self.rng.u64(..3000)));
        if self.rng.bool() {
            reset(connection);
        }
    }

    fn with_a_small_socket(&self) -> Client {
        let client = Client::connect(self.proxy);
        let socket = SockRef::from(client.socket());
        socket.set_recv_buffer_size(SMALL_RECEIVE_BUFFER_BYTES).expect("an open socket");
        client
    }

    fn head(&self, connection: &mut Client, exchange: &Exchange<'_>) -> Response {
        let response = connection.head();
        *self.ledger.open().heads.entry(response.status).or_default() += 1;
        match response.status {
            // Too many of them fail the test at its end.
            502..=504 => {}
            _ => exchange.check_head(&response),
        }
        response
    }

    /// Reads the rest of a response after its head.
    fn rest(
        &mut self,
        connection: &mut Client,
        exchange: &Exchange<'_>,
        mut response: Response,
        pace: Pace,
    ) -> Ending {
        let is_error = response.status >= 400;
        match exchange.method() {
            "GET" if is_error => {
                response.body = connection.exactly(response.content_length() as usize);
                response.assert_error(response.status);
                Ending::Complete
            }
            "GET" if exchange.wants_bytes() => self.body(connection, exchange, pace),
            "HEAD" if is_error => {
                assert_eq!(response.field("content-length"), None, "{response:?}");
                Ending::Complete
            }
            _ => Ending::Complete,
        }
    }

    fn body(&mut self, connection: &mut Client, exchange: &Exchange<'_>, pace: Pace) -> Ending {
        let (mut at, mut end) = (exchange.body.start, exchange.body.end);
        let mut piece = PIECE_BYTES;
        let mut pause = None;
        let mut ending = Ending::Complete;
        match pace {
            Pace::Steady => {}
            Pace::Slow => piece = SLOW_PIECE_BYTES,
            Pace::Pausing { after, time } => pause = Some((at + after, time)),
            Pace::Leaving { after, .. } if at + after < end => {
                (end, ending) = (at + after, Ending::Aborted);
            }
            Pace::Leaving { .. } => {}
        }
        while at < end && ending != Ending::CutShort {
            let bytes = connection.some(piece.min(end - at) as usize);
            exchange.check_bytes(at, &bytes);
            at += bytes.len() as u64;
            if bytes.is_empty() {
                // The connection has ended: a body that is cut short must not look complete.
                ending = Ending::CutShort;
            }
            if let Some((_, time)) = pause.take_if(|(place, _)| *place <= at) {
                std::thread::sleep(time);
            }
            if piece == SLOW_PIECE_BYTES && at - exchange.body.start < 1 << 20 {
                std::thread::sleep(SLOW_REST);
            }
        }
        let mut counts = self.ledger.open();
        counts.bytes += at - exchange.body.start;
        counts.short += u64::from(ending == Ending::CutShort);
        counts.given_up += u64::from(ending == Ending::Aborted);
        drop(counts);
        if ending == Ending::Aborted && matches!(pace, Pace::Leaving { reset: true, .. }) {
            reset_on_close(connection);
        }
        ending
    }
}

/// Makes closing a connection reset it.
fn reset_on_close(connection: &Client) {
    let socket = SockRef::from(connection.socket());
    socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
}

fn reset(connection: Client) {
    reset_on_close(&connection);
}
