//! The cores that this process may use.

use std::io;
use std::num::NonZero;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How many workers are worthwhile: the cores of the affinity mask, limited by the cgroup's CPU
/// quota (v1 or v2).
pub(crate) fn usable_cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The numbers of the cores in this process's affinity mask, ascending.
///
/// # Errors
/// As `sched_getaffinity(2)`.
pub(crate) fn affinity() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Pins the calling thread to one core, so that its sockets and buffers stay in that core's caches.
///
/// # Errors
/// As `sched_setaffinity(2)`.
pub(crate) fn pin_thread(core: usize) -> io::Result<()> {
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
