//! The first hundred lines of every main: log, health, metrics, shutdown.
