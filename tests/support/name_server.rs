//! A name server for one name, whose addresses and time to live the test chooses (RFC 1035).

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The name that it knows.
pub(crate) const NAME: &str = "s3.lab.test";

/// The server; dropping it ends it.
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

/// Length of a message's header, in bytes, and the types of question that matter.
const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];

impl NameServer {
    /// Serves on port 53 of a loopback address, which only root may.
    pub(crate) fn start(
        address: Ipv4Addr,
        addresses: &[Ipv4Addr],
        time_to_live: u32,
    ) -> NameServer {
        let socket = UdpSocket::bind((address, 53)).expect("port 53, which only root may have");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
        let record = Record { addresses: addresses.to_vec(), time_to_live };
        let (record, questions) = (Mutex::new(record), AtomicUsize::new(0));
        let shared = Arc::new(Shared { record, questions, stop: AtomicBool::new(false) });
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut message = [0; 512];
            while !seen.stop.load(Ordering::SeqCst) {
                // Without a question in time the flag is looked at again.
                let Ok((length, asker)) = socket.recv_from(&mut message) else { continue };
                if let Some(answer) = answer(&message[..length], &seen) {
                    socket.send_to(&answer, asker).expect("the loopback device");
                }
            }
        });
        NameServer { address, shared, thread: Some(thread) }
    }

    /// Changes what the name stands for.
    pub(crate) fn set(&self, addresses: &[Ipv4Addr], time_to_live: u32) {
        let record = Record { addresses: addresses.to_vec(), time_to_live };
        *self.shared.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
    }

    /// What goes into `resolv.conf`.
    pub(crate) fn resolv_conf(&self) -> String {
        format!("nameserver {}\n", self.address)
    }

    /// How often the name's IPv4 addresses were asked for.
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

fn answer(question: &[u8], shared: &Shared) -> Option<Vec<u8>> {
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
    // An answer with authority: no error, or no such name.
    message.extend([0x85, if is_known { 0x80 } else { 0x83 }]);
    message.extend([0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    message.extend_from_slice(name);
    message.extend_from_slice(type_and_class);
    for address in addresses {
        // The name is the one at the beginning of the question.
        message.extend([0xc0, HEADER as u8]);
        message.extend_from_slice(type_and_class);
        message.extend(time_to_live.to_be_bytes());
        message.extend([0, 4]);
        message.extend(address.octets());
    }
    Some(message)
}

/// A name as it is sent: each label behind its length, and an empty one.
fn labels(name: &str) -> Vec<u8> {
    let mut labels = Vec::new();
    for label in name.split('.') {
        labels.push(label.len() as u8);
        labels.extend_from_slice(label.as_bytes());
    }
    labels.push(0);
    labels
}
