//! A load generator for the workloads that wrk cannot produce: HEAD, checked lengths, aborted
//! downloads, slow readers and idle connections. One thread, one epoll; prints one line of JSON.
//!
//! ```text
//! bench-load ADDRESS REQUESTS --connections N --seconds S [--abort-after BYTES | --slow RATE | --idle]
//! ```
//!
//! REQUESTS is a file with a request per line, `METHOD PATH RANGE LENGTH` (`-` for no range), where
//! LENGTH is the `Content-Length` that must come back. Each connection takes the next line in turn.
//! A response with another status or length, or that ends early, counts as wrong.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::event::{Timespec, epoll};
use socket2::{Domain, Socket, Type};

/// Largest response head that is understood.
const HEAD_BYTES: usize = 16 * 1024;
/// How often slow readers read.
const SLOW_TICK: Duration = Duration::from_millis(100);
/// A response that takes longer counts as wrong.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections opened between two looks at the responses, so that no accept queue overflows.
const OPEN_AT_ONCE: usize = 64;

/// Generates load and prints the counts as JSON.
#[derive(Parser)]
struct Options {
    address: SocketAddr,
    requests: PathBuf,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Close the connection after this many body bytes and open another
    #[arg(long)]
    abort_after: Option<u64>,
    /// Read this many bytes per second on each connection
    #[arg(long)]
    slow: Option<u64>,
    /// One request on each connection, then nothing
    #[arg(long)]
    idle: bool,
    /// Receive buffer of each socket; the kernel's choice if not given
    #[arg(long)]
    receive_buffer: Option<usize>,
}

/// A request of the list, ready to send.
struct Prepared {
    bytes: Vec<u8>,
    is_head: bool,
    status: u16,
    length: u64,
}

enum State {
    /// Waiting for the end of a response's head.
    Head,
    /// So many bytes of the body are to come.
    Body(u64),
    /// No more requests are sent.
    Done,
}

struct Connection {
    stream: TcpStream,
    state: State,
    head: Vec<u8>,
    request: usize,
    started: Instant,
    /// Body bytes of the current response.
    received: u64,
}

#[derive(Default)]
struct Tally {
    requests: u64,
    body_bytes: u64,
    latencies_us: Vec<u32>,
    wrong: BTreeMap<String, u64>,
}

struct Load {
    options: Options,
    requests: Vec<Prepared>,
    cursor: Cursor,
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    tally: Tally,
    /// Measuring ends then.
    deadline: Instant,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let requests = read_requests(&options)?;
    let deadline = Instant::now() + Duration::from_secs_f64(options.seconds);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut load = Load {
        requests,
        cursor: Cursor(0),
        epoll,
        connections: Vec::new(),
        buffer: vec![0; 256 * 1024],
        tally: Tally::default(),
        deadline,
        options,
    };
    let started = Instant::now();
    match load.options.slow {
        Some(rate) => load.read_slowly(rate)?,
        None => load.read_eagerly()?,
    }
    println!("{}", load.summary(started.elapsed()));
    Ok(())
}

fn read_requests(options: &Options) -> Result<Vec<Prepared>, Box<dyn Error>> {
    let mut requests = Vec::new();
    for line in std::fs::read_to_string(&options.requests)?.lines() {
        let [method, path, range, length] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("not METHOD PATH RANGE LENGTH: {line}").into());
        };
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", options.address);
        if range != "-" {
            bytes += &format!("Range: bytes={range}\r\n");
        }
        bytes += "\r\n";
        requests.push(Prepared {
            bytes: bytes.into_bytes(),
            is_head: method == "HEAD",
            status: if range == "-" { 200 } else { 206 },
            length: length.parse()?,
        });
    }
    if requests.is_empty() { Err("no requests".into()) } else { Ok(requests) }
}

impl Load {
    /// Connections that send a request, read all of the response (or abort), and repeat.
    fn read_eagerly(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(1024);
        while Instant::now() < self.deadline {
            let missing = self.options.connections - self.connections.len();
            for _ in 0..missing.min(OPEN_AT_ONCE) {
                let connection = self.open()?;
                self.connections.push(connection);
                self.register(self.connections.len() - 1)?;
            }
            let wait = if missing > 0 { 1 } else { 50 };
            let wait = Timespec { tv_sec: 0, tv_nsec: wait * 1_000_000 };
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait))?;
            for event in events.drain(..) {
                let event: epoll::Event = event;
                self.receive(event.data.u64() as usize)?;
            }
        }
        self.count_stuck();
        Ok(())
    }

    /// Connections that each take one body at a bounded rate.
    fn read_slowly(&mut self, rate: u64) -> io::Result<()> {
        let portion = (rate as f64 * SLOW_TICK.as_secs_f64()) as usize;
        while Instant::now() < self.deadline {
            let tick = Instant::now();
            let missing = self.options.connections - self.connections.len();
            for _ in 0..missing.min(OPEN_AT_ONCE) {
                let connection = self.open()?;
                self.connections.push(connection);
            }
            for index in 0..self.connections.len() {
                self.take(index, portion);
            }
            std::thread::sleep(SLOW_TICK.saturating_sub(tick.elapsed()));
        }
        for connection in &self.connections {
            if connection.received == 0 {
                self.tally.wrong("slow reader without a byte");
            }
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<Connection> {
        let socket = Socket::new(Domain::for_address(self.options.address), Type::STREAM, None)?;
        if let Some(bytes) = self.options.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let patience = PATIENCE.min(self.deadline.saturating_duration_since(Instant::now()));
        let patience = patience.max(Duration::from_millis(1));
        socket.connect_timeout(&self.options.address.into(), patience)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut connection = Connection {
            stream: socket.into(),
            state: State::Done,
            head: Vec::new(),
            request: 0,
            started: Instant::now(),
            received: 0,
        };
        self.cursor.ask(&mut connection, &self.requests);
        Ok(connection)
    }

    fn register(&self, index: usize) -> io::Result<()> {
        let data = epoll::EventData::new_u64(index as u64);
        Ok(epoll::add(&self.epoll, &self.connections[index].stream, data, epoll::EventFlags::IN)?)
    }

    /// Reads once from a connection that has something.
    fn receive(&mut self, index: usize) -> io::Result<()> {
        let limit = match (&self.connections[index].state, self.options.abort_after) {
            (State::Body(_), Some(abort)) => {
                let left = abort.saturating_sub(self.connections[index].received);
                usize::try_from(left).unwrap_or(usize::MAX).clamp(1, self.buffer.len())
            }
            (_, Some(_)) => 4096,
            _ => self.buffer.len(),
        };
        let again = match self.connections[index].stream.read(&mut self.buffer[..limit]) {
            Ok(0) => Err("closed early".to_owned()),
            Ok(count) => self.digest(index, count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => Err(error.kind().to_string()),
        };
        if let Err(what) = &again
            && !matches!(self.connections[index].state, State::Done)
        {
            self.tally.wrong(what);
        }
        if again != Ok(true) {
            self.connections[index] = self.open()?;
            self.register(index)?;
        }
        Ok(())
    }

    /// Takes `count` bytes of the buffer; whether the connection is to be kept.
    fn digest(&mut self, index: usize, count: usize) -> Result<bool, String> {
        let connection = &mut self.connections[index];
        let mut body = count as u64;
        if matches!(connection.state, State::Head) {
            connection.head.extend_from_slice(&self.buffer[..count]);
            let request = &self.requests[connection.request];
            let Some((end, length)) = check_head(&connection.head, request)? else {
                return Ok(true);
            };
            connection.state = State::Body(if request.is_head { 0 } else { length });
            body = (connection.head.len() - end) as u64;
        }
        let State::Body(left) = connection.state else { return Err("unasked bytes".to_owned()) };
        let left = left.checked_sub(body).ok_or("more bytes than Content-Length")?;
        connection.state = State::Body(left);
        connection.received += body;
        self.tally.body_bytes += body;
        let abort = self.options.abort_after.is_some_and(|abort| connection.received >= abort);
        if left > 0 && !abort {
            return Ok(true);
        }
        self.tally.requests += 1;
        self.tally.latencies_us.push(connection.started.elapsed().as_micros() as u32);
        connection.state = State::Done;
        if abort {
            return Ok(false);
        }
        if !self.options.idle {
            self.cursor.ask(connection, &self.requests);
        }
        Ok(true)
    }

    /// One portion for a slow reader.
    fn take(&mut self, index: usize, portion: usize) {
        if matches!(self.connections[index].state, State::Done) {
            return;
        }
        let limit = portion.min(self.buffer.len());
        let result = match self.connections[index].stream.read(&mut self.buffer[..limit]) {
            Ok(0) => Err("closed early".to_owned()),
            Ok(count) => self.digest(index, count).map(drop),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => Err(error.kind().to_string()),
        };
        if let Err(what) = result {
            self.tally.wrong(&what);
            self.connections[index].state = State::Done;
        }
    }

    /// Responses that are overdue.
    fn count_stuck(&mut self) {
        for connection in &self.connections {
            if !matches!(connection.state, State::Done) && connection.started.elapsed() > PATIENCE {
                self.tally.wrong("no response in time");
            }
        }
    }

    fn summary(&mut self, elapsed: Duration) -> String {
        let tally = &mut self.tally;
        tally.latencies_us.sort_unstable();
        let percentile = |p: f64| {
            let index = (tally.latencies_us.len() as f64 * p / 100.0) as usize;
            tally.latencies_us.get(index).or(tally.latencies_us.last()).copied().unwrap_or(0)
        };
        let wrong: Vec<_> =
            tally.wrong.iter().map(|(what, n)| format!("\"{what}\": {n}")).collect();
        format!(
            "{{\"requests\": {}, \"seconds\": {:.6}, \"bytes\": {}, \"connections\": {}, \
             \"p50_us\": {}, \"p99_us\": {}, \"p99.9_us\": {}, \"wrong\": {{{}}}}}",
            tally.requests,
            elapsed.as_secs_f64(),
            tally.body_bytes,
            self.connections.len(),
            percentile(50.0),
            percentile(99.0),
            percentile(99.9),
            wrong.join(", ")
        )
    }
}

/// The next line of the list.
struct Cursor(usize);

impl Cursor {
    fn ask(&mut self, connection: &mut Connection, requests: &[Prepared]) {
        connection.request = self.0;
        self.0 = (self.0 + 1) % requests.len();
        connection.started = Instant::now();
        connection.received = 0;
        connection.head.clear();
        connection.state = State::Head;
        // A request fits into an empty send buffer; if not, the connection is broken and its next
        // read tells.
        let _ = connection.stream.write(&requests[connection.request].bytes);
    }
}

impl Tally {
    fn wrong(&mut self, what: &str) {
        *self.wrong.entry(what.to_owned()).or_default() += 1;
    }
}

/// The end of a head and its `Content-Length`, once it is complete and as expected.
fn check_head(bytes: &[u8], request: &Prepared) -> Result<Option<(usize, u64)>, String> {
    let mut fields = [const { MaybeUninit::uninit() }; 64];
    let mut head = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut head, bytes, &mut fields)
        .map_err(|error| error.to_string())?;
    let httparse::Status::Complete(end) = parsed else {
        return if bytes.len() > HEAD_BYTES { Err("endless head".to_owned()) } else { Ok(None) };
    };
    let status = head.code.unwrap_or(0);
    if status != request.status {
        return Err(format!("status {status}"));
    }
    let length =
        head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| str::from_utf8(field.value).ok()?.trim().parse().ok());
    match length {
        Some(length) if length == request.length => Ok(Some((end, length))),
        Some(length) => Err(format!("length {length} instead of {}", request.length)),
        None => Err("no Content-Length".to_owned()),
    }
}
