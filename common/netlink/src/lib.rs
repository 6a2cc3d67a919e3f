//! The kernel, synchronous and batched: links, addresses, routes, neighbours, monitor, namespaces.
