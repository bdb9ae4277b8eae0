//! Large tables whose pages are allocated on first use.

use std::sync::atomic::AtomicU64;

const _: () = assert!(align_of::<AtomicU64>() == align_of::<u64>());

/// `count` zeros. The kernel provides each page when it is first written to; filling a
/// `Vec<AtomicU64>` would write to all of them at once.
pub(crate) fn zeros(count: usize) -> Box<[AtomicU64]> {
    let zeros = vec![0_u64; count].into_boxed_slice();
    // SAFETY: both types have the same size and bit validity (documentation of `AtomicU64`) and
    // the same alignment (asserted above), and the box has no other owner.
    unsafe { Box::from_raw(Box::into_raw(zeros) as *mut [AtomicU64]) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn zeros_are_zero_and_can_be_written() {
        let zeros = zeros(1000);
        assert!(zeros.len() == 1000 && zeros.iter().all(|zero| zero.load(Ordering::Relaxed) == 0));
        zeros[999].store(7, Ordering::Relaxed);
        assert_eq!(zeros[999].load(Ordering::Relaxed), 7);
    }
}
