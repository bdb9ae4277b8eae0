//! A name server for one name, whose addresses and time to live the test chooses (RFC 1035).

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Its only name.
pub(crate) const NAME: &str = "s3.lab.test";

/// A running server; dropping it stops it.
pub(crate) struct NameServer {
    address: Ipv4Addr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    record: Mutex<Record>,
    questions: AtomicUsize,
    stop: AtomicBool,
}

#[derive(Clone)]
struct Record {
    addresses: Vec<Ipv4Addr>,
    /// In seconds.
    time_to_live: u32,
}

/// Length of a message's header in bytes, and the record types that it serves.
const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];

impl NameServer {
    /// Serves on port 53 of a loopback address, which needs root.
    pub(crate) fn start(
        address: Ipv4Addr,
        addresses: &[Ipv4Addr],
        time_to_live: u32,
    ) -> NameServer {
        let socket = UdpSocket::bind((address, 53)).expect("port 53, which needs root");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
        let record = Record { addresses: addresses.to_vec(), time_to_live };
        let (record, questions) = (Mutex::new(record), AtomicUsize::new(0));
        let shared = Arc::new(Shared { record, questions, stop: AtomicBool::new(false) });
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut message = [0; 512];
            while !seen.stop.load(Ordering::SeqCst) {
                // On a timeout without a query the flag is checked again.
                let Ok((length, asker)) = socket.recv_from(&mut message) else { continue };
                if let Some(response) = respond(&message[..length], &seen) {
                    socket.send_to(&response, asker).expect("the loopback device");
                }
            }
        });
        NameServer { address, shared, thread: Some(thread) }
    }

    /// Changes the name's addresses.
    pub(crate) fn set(&self, addresses: &[Ipv4Addr], time_to_live: u32) {
        let record = Record { addresses: addresses.to_vec(), time_to_live };
        *self.shared.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
    }

    /// The text of a `resolv.conf` that names it.
    pub(crate) fn resolv_conf(&self) -> String {
        format!("nameserver {}\n", self.address)
    }

    /// Number of queries for the name's IPv4 addresses.
    pub(crate) fn questions(&self) -> usize {
        self.shared.questions.load(Ordering::SeqCst)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn respond(question: &[u8], shared: &Shared) -> Option<Vec<u8>> {
    let asked = question.get(HEADER..)?;
    // The name ends with an empty label; type and class follow.
    let name_length = asked.iter().position(|&byte| byte == 0)? + 1;
    let (name, type_and_class) = (&asked[..name_length], asked.get(name_length..name_length + 4)?);
    let is_known = name.eq_ignore_ascii_case(&labels(NAME));
    let mut addresses = Vec::new();
    let mut time_to_live = 0;
    if is_known && type_and_class[..2] == TYPE_A {
        shared.questions.fetch_add(1, Ordering::SeqCst);
        let record = shared.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (addresses, time_to_live) = (record.addresses, record.time_to_live);
    }
    let mut message = question[..2].to_vec();
    // An authoritative response: NOERROR or NXDOMAIN.
    message.extend([0x85, if is_known { 0x80 } else { 0x83 }]);
    message.extend([0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    message.extend_from_slice(name);
    message.extend_from_slice(type_and_class);
    for address in addresses {
        // The name, as a pointer to the question.
        message.extend([0xc0, HEADER as u8]);
        message.extend_from_slice(type_and_class);
        message.extend(time_to_live.to_be_bytes());
        message.extend([0, 4]);
        message.extend(address.octets());
    }
    Some(message)
}

/// A name in wire format: each label after its length, then an empty one.
fn labels(name: &str) -> Vec<u8> {
    let mut labels = Vec::new();
    for label in name.split('.') {
        labels.push(label.len() as u8);
        labels.extend_from_slice(label.as_bytes());
    }
    labels.push(0);
    labels
}
