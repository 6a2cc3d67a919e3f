//! One binary, five roles.

pub mod ctl;
pub mod node;
