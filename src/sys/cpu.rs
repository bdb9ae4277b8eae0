//! Which cores this process may use.

use std::io;
use std::num::NonZero;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Cores worth a worker each: the affinity mask, cut to the cgroup's CPU quota (both versions).
pub fn usable_cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The numbers of the cores in this process's affinity mask, ascending.
///
/// # Errors
/// As `sched_getaffinity(2)`.
pub fn affinity() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Keeps the calling thread on one core, so that its sockets, buffers and interrupts stay warm.
///
/// # Errors
/// As `sched_setaffinity(2)`.
pub fn pin_thread(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_run_on_its_core_alone() {
        let last = *affinity().unwrap().last().unwrap();
        std::thread::spawn(move || {
            pin_thread(last).unwrap();
            assert_eq!(affinity().unwrap(), [last]);
            assert_eq!(usable_cores(), 1);
        })
        .join()
        .unwrap();
    }
}
