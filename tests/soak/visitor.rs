//! One client that sends one request after the other and at random reads on, reads slowly, pauses or
//! disconnects. It checks every byte that it receives.

use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;

use crate::ledger::Ledger;
use crate::question::{Bucket, Question};
use crate::support::proxy::Proxy;
use crate::support::raw_http::{Client, Response};

/// The client.
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
    /// Little by little, for the first MiB.
    Slow,
    /// With a pause after this many bytes.
    Pausing {
        after: u64,
        time: Duration,
    },
    /// No further than that; the connection is then closed, or reset.
    Leaving {
        after: u64,
        reset: bool,
    },
}

/// What the proxy is left with.
#[derive(PartialEq, Eq)]
enum Left {
    /// A response that was read to its end.
    Complete,
    /// A body that it cut short.
    CutShort,
    /// A body that the client did not want any more.
    GivenUp,
}

/// Bytes read at once.
const PIECE_BYTES: u64 = 64 * 1024;

/// The same of a slow reader, and its rest after each.
const SLOW_PIECE_BYTES: u64 = 16 * 1024;
const SLOW_REST: Duration = Duration::from_millis(4);

/// More than all memory on the way takes, so that a pause stops S3's sending.
const PAUSED_BYTES: u64 = 24 << 20;

/// Received by the kernel ahead of a client that is slow; it would otherwise take MiB.
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

    /// Does one thing.
    pub(crate) fn turn(&mut self) {
        let (bucket, rng) = (self.bucket, &mut self.rng);
        match rng.u32(..100) {
            0..45 => {
                let question = bucket.any_question(rng);
                self.ask(question, Pace::Steady);
            }
            45..60 => {
                let question = bucket.head_question(rng);
                self.ask(question, Pace::Steady);
            }
            60..68 => self.pipeline(),
            68..84 => {
                let question = bucket.open_ended_question(rng);
                let after = (22.0 * rng.f64()).exp2() as u64;
                let reset = rng.bool();
                self.ask(question, Pace::Leaving { after, reset });
            }
            84..89 => self.leave_before_the_head(),
            89..95 => {
                self.kept = Some(self.with_a_small_socket());
                let question = bucket.long_question(3 << 20, &mut self.rng);
                self.ask(question, Pace::Slow);
            }
            95..97 => {
                self.kept = Some(self.with_a_small_socket());
                let question = bucket.long_question(PAUSED_BYTES, &mut self.rng);
                let after = self.rng.u64(..PAUSED_BYTES / 8);
                let time = Duration::from_millis(self.rng.u64(300..1500));
                self.ask(question, Pace::Pausing { after, time });
            }
            _ => {
                let question = bucket.long_question(8 << 20, rng);
                self.ask(question, Pace::Steady);
            }
        }
    }

    /// Reads a part of an object.
    pub(crate) fn read_a_slice(&mut self) {
        let question = self.bucket.slice_question(&mut self.rng);
        self.ask(question, Pace::Steady);
    }

    /// Asks one question of each kind about each object.
    pub(crate) fn ask_everything(&mut self) {
        for question in self.bucket.all_questions(&mut self.rng) {
            self.ask(question, Pace::Steady);
        }
    }

    fn ask(&mut self, question: Question<'_>, pace: Pace) {
        let closes = self.rng.u32(..5) == 0;
        let question = if closes { question.field("Connection", "close") } else { question };
        let mut connection = self.kept.take().unwrap_or_else(|| Client::connect(self.proxy));
        self.ledger.open().sent += 1;
        connection.send(question.head());
        let response = self.head(&mut connection, &question);
        assert_eq!(response.announces_close(), closes, "{response:?}");
        match self.rest(&mut connection, &question, response, pace) {
            Left::Complete if closes => connection.assert_closed(),
            Left::Complete => self.kept = Some(connection),
            Left::CutShort | Left::GivenUp => {}
        }
    }

    /// Several HEADs at once, which are answered in order.
    fn pipeline(&mut self) {
        let mut connection = self.kept.take().unwrap_or_else(|| Client::connect(self.proxy));
        let (bucket, rng) = (self.bucket, &mut self.rng);
        let questions: Vec<_> = (0..rng.u32(2..16)).map(|_| bucket.head_question(rng)).collect();
        self.ledger.open().sent += questions.len() as u64;
        connection.send(questions.iter().map(Question::head).collect::<String>());
        for question in &questions {
            let response = self.head(&mut connection, question);
            self.rest(&mut connection, question, response, Pace::Steady);
        }
        self.kept = Some(connection);
    }

    /// As a viewer does whose user scrolls on.
    fn leave_before_the_head(&mut self) {
        let mut connection = Client::connect(self.proxy);
        let question = self.bucket.any_question(&mut self.rng);
        let mut counts = self.ledger.open();
        counts.sent += 1;
        counts.given_up += 1;
        drop(counts);
        connection.send(question.head());
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

    fn head(&self, connection: &mut Client, question: &Question<'_>) -> Response {
        let response = connection.head();
        *self.ledger.open().heads.entry(response.status).or_default() += 1;
        match response.status {
            // Whether there were too many is decided at the end.
            502..=504 => {}
            _ => question.check_head(&response),
        }
        response
    }

    /// Reads what comes behind a head.
    fn rest(
        &mut self,
        connection: &mut Client,
        question: &Question<'_>,
        mut response: Response,
        pace: Pace,
    ) -> Left {
        let is_error = response.status >= 400;
        match question.method() {
            "GET" if is_error => {
                response.body = connection.exactly(response.content_length() as usize);
                response.assert_error(response.status);
                Left::Complete
            }
            "GET" if question.wants_bytes() => self.body(connection, question, pace),
            "HEAD" if is_error => {
                assert_eq!(response.field("content-length"), None, "{response:?}");
                Left::Complete
            }
            _ => Left::Complete,
        }
    }

    fn body(&mut self, connection: &mut Client, question: &Question<'_>, pace: Pace) -> Left {
        let (mut at, mut end) = (question.body.start, question.body.end);
        let mut piece = PIECE_BYTES;
        let mut pause = None;
        let mut left = Left::Complete;
        match pace {
            Pace::Steady => {}
            Pace::Slow => piece = SLOW_PIECE_BYTES,
            Pace::Pausing { after, time } => pause = Some((at + after, time)),
            Pace::Leaving { after, .. } if at + after < end => {
                (end, left) = (at + after, Left::GivenUp);
            }
            Pace::Leaving { .. } => {}
        }
        while at < end && left != Left::CutShort {
            let bytes = connection.some(piece.min(end - at) as usize);
            question.check_bytes(at, &bytes);
            at += bytes.len() as u64;
            if bytes.is_empty() {
                // No more came before the end of the connection, as it must be.
                left = Left::CutShort;
            }
            if let Some((_, time)) = pause.take_if(|(place, _)| *place <= at) {
                std::thread::sleep(time);
            }
            if piece == SLOW_PIECE_BYTES && at - question.body.start < 1 << 20 {
                std::thread::sleep(SLOW_REST);
            }
        }
        let mut counts = self.ledger.open();
        counts.bytes += at - question.body.start;
        counts.short += u64::from(left == Left::CutShort);
        counts.given_up += u64::from(left == Left::GivenUp);
        drop(counts);
        if left == Left::GivenUp && matches!(pace, Pace::Leaving { reset: true, .. }) {
            reset_on_close(connection);
        }
        left
    }
}

/// Has a connection end with a reset in place of an orderly end.
fn reset_on_close(connection: &Client) {
    let socket = SockRef::from(connection.socket());
    socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
}

fn reset(connection: Client) {
    reset_on_close(&connection);
}
