//! One binary, five roles.
