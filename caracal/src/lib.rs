//! One binary, five roles.

pub mod ctl;
