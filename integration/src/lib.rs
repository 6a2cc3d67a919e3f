//! The lab: network namespaces as typed topologies; system tests, benches, demo.
