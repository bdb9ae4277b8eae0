//! From what was written to what is used: one line per key, with what it must look like and its
//! default. The defaults of connections and of the metadata map belong to those who use them.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::cache::metadata;
use crate::config::environment::Environment;
use crate::config::problem::{Fault, Place, quoted};
use crate::config::profiles::Profiles;
use crate::config::reader::Reader;
use crate::config::values::{self, count, duration, timeout};
use crate::config::{Config, listen, mounts, proxy, rules, web};
use crate::s3::retry;
use crate::server::live::{ClientLimits, Live};
use crate::server::settings::Settings;
use crate::sys::event_loop;
use crate::sys::socket::ListenAddress;
use crate::transport::trust;
use crate::{relay, upstream};

/// Reads every setting. The result counts only if the reader has no problems at the end.
pub(super) fn resolve(
    reader: &mut Reader,
    environment: &Environment,
    profiles: &Profiles,
    home: &Place,
) -> Config {
    let written = proxy::read(reader, environment);
    let proxies = Arc::clone(&written.proxies);
    let mounts = mounts::read(reader, profiles, &proxies, home);
    written.report(&mounts, &mut reader.problems);
    let settings = Settings {
        listen: listen(reader),
        workers: reader.value_or("workers", values::workers, None),
        driver: reader.value_or("driver", values::driver, event_loop::Choice::Auto),
        upstream: upstream(reader),
        proxies,
        trust: trust::Settings { certificates: certificates(reader) },
        relay: relay(reader),
        metadata: metadata(reader),
        log_level: reader.value_or("log_level", values::log_level, log::LevelFilter::Info),
        log_file: log_file(reader),
    };
    let live = Live {
        mounts,
        rewrite_rules: rules::read(reader),
        cors: web::cors(reader),
        clients: clients(reader),
        retries: retries(reader),
        genomic_suffixes: web::genomic_suffixes(reader),
        access_log: reader.value_or("access_log", values::boolean, true),
    };
    Config { settings, live }
}

fn listen(reader: &mut Reader) -> Vec<ListenAddress> {
    let spot = reader.spot("listen");
    let problems = reader.problems.len();
    let (Some(spot), Some(addresses)) = (spot, reader.list("listen", listen::address)) else {
        return vec![listen::DEFAULT];
    };
    let any_port = |address: &ListenAddress| match address {
        ListenAddress::Tcp(address) => address.port() == 0,
        ListenAddress::Unix(_) => false,
    };
    for (index, address) in addresses.iter().enumerate() {
        if !any_port(address) && addresses[..index].contains(address) {
            let what = format!("names {address} twice");
            reader.report(&spot, Fault::new(what, "keep one of the two"));
        }
    }
    if addresses.is_empty() && reader.problems.len() == problems {
        reader.report(&spot, Fault::new("is empty", "name an address, such as 127.0.0.1:5000"));
    }
    addresses
}

/// Largest `ca_file`, in bytes. The authorities of the whole web take a quarter of a MiB.
const CA_FILE_BYTES: usize = 16 << 20;

/// The certificates in `ca_file`.
fn certificates(reader: &mut Reader) -> Vec<CertificateDer<'static>> {
    const REMEDY: &str = "name a PEM file with the certificates of your authority";
    let (spot, path) = (reader.spot("ca_file"), reader.value("ca_file", values::path));
    let (Some(spot), Some(path)) = (spot, path) else { return Vec::new() };
    let shown = quoted(&path.to_string_lossy());
    let read = match (reader.files.read)(&path, CA_FILE_BYTES) {
        Ok(bytes) if bytes.len() > CA_FILE_BYTES => {
            Err(format!("{shown} has more than {} MiB", CA_FILE_BYTES >> 20))
        }
        Ok(bytes) => trust::certificates(&bytes).map_err(|what| format!("{shown} {what}")),
        Err(error) => Err(format!("{shown} cannot be read: {error}")),
    };
    read.unwrap_or_else(|what| {
        reader.report(&spot, Fault::new(what, REMEDY));
        Vec::new()
    })
}

fn log_file(reader: &mut Reader) -> Option<PathBuf> {
    let (spot, path) = (reader.spot("log_file"), reader.value("log_file", values::path));
    let (spot, path) = (spot?, path?);
    if let Err(error) = (reader.files.try_append)(&path) {
        let what = format!("{} cannot be written to: {error}", quoted(&path.to_string_lossy()));
        reader.report(&spot, Fault::new(what, "name a file in a directory that exists"));
    }
    Some(path)
}

fn clients(reader: &mut Reader) -> ClientLimits {
    let default = ClientLimits::default();
    let mut within = |key, default| reader.value_or(key, timeout, default);
    let head_timeout = within("head_timeout", default.head_timeout);
    let keep_alive_timeout = within("keep_alive_timeout", default.keep_alive_timeout);
    let stall_timeout = within("client_stall_timeout", default.stall_timeout);
    let pause_timeout = within("client_pause_timeout", default.pause_timeout);
    ClientLimits {
        max_connections: reader.value_or(
            "max_client_connections",
            count::<1, 1_000_000>,
            default.max_connections,
        ),
        head_timeout,
        keep_alive_timeout,
        stall_timeout,
        pause_timeout,
        drain_timeout: reader.value_or("drain_timeout", duration, default.drain_timeout),
    }
}

fn upstream(reader: &mut Reader) -> upstream::Settings {
    let default = upstream::Settings::default();
    let max_connections =
        reader.value_or("upstream_max_connections", count::<1, 65_535>, default.max_connections);
    let max_idle_connections = reader.value_or(
        "upstream_max_idle_connections",
        count::<0, 65_535>,
        default.max_idle_connections,
    );
    let max_waiting =
        reader.value_or("upstream_max_waiting", count::<0, 1_000_000>, default.max_waiting);
    let read_ahead = reader.value("read_ahead", values::size::<16_384, { 64 << 20 }>);
    let mut within = |key, default| reader.value_or(key, timeout, default);
    upstream::Settings {
        max_connections,
        max_waiting,
        wait_timeout: within("upstream_wait_timeout", default.wait_timeout),
        read_ahead: read_ahead.map_or(default.read_ahead, |size| size as usize),
        // No more can be idle than are open.
        max_idle_connections: max_idle_connections.min(max_connections),
        idle_timeout: within("upstream_idle_timeout", default.idle_timeout),
        connect_timeout: within("connect_timeout", default.connect_timeout),
        tls_timeout: within("tls_timeout", default.tls_timeout),
        first_byte_timeout: within("first_byte_timeout", default.first_byte_timeout),
        stall_timeout: within("stall_timeout", default.stall_timeout),
    }
}

fn retries(reader: &mut Reader) -> retry::Settings {
    let default = retry::Settings::default();
    let mut number = |key, default: u32| {
        // The bound of the reader fits.
        reader.value(key, count::<0, 1_000_000>).map_or(default, |number| number as u32)
    };
    let (retries, budget) =
        (number("retries", default.retries), number("retry_budget", default.budget));
    retry::Settings {
        retries,
        timeout: reader.value_or("retry_timeout", duration, default.timeout),
        budget,
    }
}

fn relay(reader: &mut Reader) -> relay::Settings {
    const MIB: u64 = 1 << 20;
    let default = relay::Settings::default();
    relay::Settings {
        splice: reader.value_or("splice", values::splice, default.splice),
        splice_threshold: reader.value_or(
            "splice_threshold",
            values::size::<1, { 1024 * 1024 * MIB }>,
            default.splice_threshold,
        ),
        pipe_size: reader
            .value("pipe_size", values::size::<4096, { 64 * MIB }>)
            .map_or(default.pipe_size, |size| size as usize),
        max_pipes: reader.value_or("max_pipes", count::<1, 65_535>, default.max_pipes),
    }
}

fn metadata(reader: &mut Reader) -> metadata::Settings {
    let default = metadata::Settings::default();
    let ttl = reader.value_or("metadata_ttl", duration, default.ttl);
    let negative = reader.spot("metadata_negative_ttl");
    let negative_ttl = match reader.value("metadata_negative_ttl", duration) {
        Some(negative_ttl) => negative_ttl,
        None => default.negative_ttl.min(ttl),
    };
    if let Some(spot) = negative
        && negative_ttl > ttl
    {
        let fault = Fault::new("is longer than metadata_ttl", "write the same or less");
        reader.report(&spot, fault);
    }
    metadata::Settings {
        ttl,
        negative_ttl,
        max_entries: reader.value_or(
            "metadata_entries",
            count::<1, 100_000_000>,
            default.max_entries,
        ),
    }
}
