//! The operating system behind safe functions; the only floor with `unsafe`.

pub mod driver;
pub mod socket;
