//! The addresses of S3's name, which a name server of the test changes.
//!
//! The proxy gets its own `/etc/resolv.conf`, and the name server listens on port 53. Both need
//! root, so these tests are ignored by default; `tests/run` includes them.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::name_server::{NAME, NameServer};
use crate::support::object::synthetic_bytes;
use crate::support::proxy::{Config, Driver, Process, Proxy};
use crate::support::raw_http::{Client, get, request_head};
use crate::support::scripted_upstream::{ScriptedUpstream, ok};

both_drivers!(
    #[ignore = "needs root"]
    a_name_in_use_is_looked_up_every_few_seconds_whatever_its_record_says,
    addresses_that_fail_are_passed_over_and_the_name_is_looked_up_again,
    idle_connections_do_not_outlive_the_address_of_the_name,
    a_running_body_stays_on_its_address_when_the_name_moves,
    a_name_with_changing_parts_of_its_addresses_costs_no_connections,
);

const TARGET: &str = "/files/reads.bam";
const HOUR: u32 = 3600;

/// Time between two lookups of a name that is in use.
const PERIOD: Duration = Duration::from_secs(5);

/// A network of the loopback device for each test, since they run at the same time.
fn network(story: u8, driver: Driver) -> impl Fn(u8) -> Ipv4Addr {
    let network = 2 * story + u8::from(driver == Driver::Epoll);
    move |host| Ipv4Addr::new(127, 53, network, host)
}

/// The proxy over [`NAME`], with a new connection for each request.
fn proxy(driver: Driver, port: u16, name_server: &NameServer) -> Proxy {
    let config = config(driver, port).set("upstream_max_idle_connections", "0");
    start(&config, name_server)
}

fn config(driver: Driver, port: u16) -> Config {
    Config::new(driver, &format!("http://{NAME}:{port}"))
}

fn start(config: &Config, name_server: &NameServer) -> Proxy {
    let mut process = Process::with_config(&config.yaml());
    process.write("resolv.conf", name_server.resolv_conf());
    Proxy::start(process.with_resolv_conf("resolv.conf"))
}

fn a_name_in_use_is_looked_up_every_few_seconds_whatever_its_record_says(driver: Driver) {
    let at = network(1, driver);
    let old = ScriptedUpstream::always_at((at(1), 0), ok("old"));
    let new = ScriptedUpstream::always_at((at(2), old.port()), ok("new"));
    let name_server = NameServer::start(at(53), &[at(1)], HOUR);
    let proxy = proxy(driver, old.port(), &name_server);
    get(&proxy, TARGET).assert(200, "old");
    name_server.set(&[at(2)], HOUR);
    let moved = Instant::now();
    eventually("the new address is found", || get(&proxy, TARGET).body == b"new");
    assert!(moved.elapsed() < 2 * PERIOD, "{:?}", moved.elapsed());
    // More requests do not cause more lookups.
    let (asked, connections) = (name_server.questions(), old.connections());
    let found = Instant::now();
    while found.elapsed() < PERIOD / 2 {
        get(&proxy, TARGET).assert(200, "new");
    }
    assert_eq!((name_server.questions(), old.connections()), (asked, connections));
    assert!(new.connections() >= 2);
}

fn addresses_that_fail_are_passed_over_and_the_name_is_looked_up_again(driver: Driver) {
    let at = network(2, driver);
    let first = ScriptedUpstream::always_at((at(2), 0), ok("first"));
    let port = first.port();
    // Nothing listens at the other two.
    let name_server = NameServer::start(at(53), &[at(1), at(2), at(3)], HOUR);
    let proxy = proxy(driver, port, &name_server);
    for _ in 0..10 {
        get(&proxy, TARGET).assert(200, "first");
    }
    assert_eq!(first.connections(), 10);
    // While nothing uses it, the name is looked up once a minute.
    std::thread::sleep(2 * PERIOD);
    drop(first);
    let _second = ScriptedUpstream::always_at((at(4), port), ok("second"));
    name_server.set(&[at(4)], HOUR);
    let moved = Instant::now();
    eventually("the name is looked up since no address could be connected to", || {
        get(&proxy, TARGET).body == b"second"
    });
    assert!(moved.elapsed() < PERIOD, "{:?}", moved.elapsed());
}

fn idle_connections_do_not_outlive_the_address_of_the_name(driver: Driver) {
    let at = network(3, driver);
    let old = ScriptedUpstream::always_at((at(1), 0), ok("old"));
    let new = ScriptedUpstream::always_at((at(2), old.port()), ok("new"));
    let name_server = NameServer::start(at(53), &[at(1)], 1);
    let proxy = start(&config(driver, old.port()).set("metadata_ttl", "0s"), &name_server);
    // Never idle for long, so that no timeout closes them.
    get(&proxy, TARGET).assert(200, "old");
    name_server.set(&[at(2)], 1);
    eventually("requests follow", || get(&proxy, TARGET).body == b"new");
    eventually("nothing is kept to where it was", || old.open_connections() == 0);
    name_server.set(&[at(1)], HOUR);
    eventually("and back", || get(&proxy, TARGET).body == b"old");
    assert_eq!((old.connections(), new.connections()), (2, 1));
    eventually("nothing is kept to where it was", || new.open_connections() == 0);
    assert_eq!(old.open_connections(), 1);
}

fn a_running_body_stays_on_its_address_when_the_name_moves(driver: Driver) {
    const SIZE: u64 = 64 << 20;
    let at = network(4, driver);
    let old = ScriptedUpstream::start_at((at(1), 0), |peer| {
        while peer.respond_with_part(SIZE, SIZE as usize) {}
    });
    let new = ScriptedUpstream::always_at((at(2), old.port()), ok("new"));
    let name_server = NameServer::start(at(53), &[at(1)], 1);
    let proxy = start(&config(driver, old.port()), &name_server);
    let mut client = Client::connect(&proxy);
    client.send(request_head("GET", TARGET, &[]));
    assert_eq!(client.head().content_length(), SIZE);
    name_server.set(&[at(2)], HOUR);
    // The client keeps reading: if it paused, its connection would be closed.
    let (mut body, part) = (Vec::new(), 8 * 1024);
    eventually("requests follow", || {
        body.extend(client.exactly(part));
        get(&proxy, "/files/other").body == b"new"
    });
    body.extend(client.exactly(SIZE as usize - body.len()));
    assert!(body == synthetic_bytes(0, SIZE as usize));
    client.assert_open();
    eventually("its connection is not kept", || old.open_connections() == 0);
    assert_eq!(new.connections(), 1);
}

fn a_name_with_changing_parts_of_its_addresses_costs_no_connections(driver: Driver) {
    let at = network(5, driver);
    let first = ScriptedUpstream::always_at((at(1), 0), ok("here"));
    let others: Vec<_> = (2..9)
        .map(|host| ScriptedUpstream::always_at((at(host), first.port()), ok("here")))
        .collect();
    let connections =
        || first.connections() + others.iter().map(ScriptedUpstream::connections).sum::<usize>();
    let name_server = NameServer::start(at(53), &[at(1), at(2)], 1);
    let proxy = start(&config(driver, first.port()), &name_server);
    let queries = || name_server.questions();
    let mut settled = 0;
    for lookup in 0..9 {
        let before = queries();
        // Pairs of eight addresses, never the same pair twice in a row.
        let pair = 2 * (lookup % 4) + 1;
        name_server.set(&[at(pair), at(pair + 1)], 1);
        eventually("the name is looked up", || {
            get(&proxy, TARGET).assert(200, "here");
            queries() > before
        });
        if lookup == 4 {
            settled = connections();
        }
    }
    assert!(settled <= 5, "{settled} connections");
    assert_eq!(connections(), settled, "new addresses caused new connections");
}
