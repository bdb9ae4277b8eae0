//! The operating system behind safe functions; the only layer with `unsafe`.
#![allow(unsafe_code, reason = "system calls and borrowed descriptors, each with its proof")]

pub(crate) mod background;
pub(crate) mod cpu;
pub(crate) mod deadlines;
pub(crate) mod event_loop;
pub(crate) mod memory;
pub(crate) mod pipe;
pub(crate) mod process;
pub(crate) mod socket;
mod sockopt;
pub(crate) mod stalls;
pub(crate) mod stream;
