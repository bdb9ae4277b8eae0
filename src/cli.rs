//! src stub
