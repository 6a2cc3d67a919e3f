//! The speaker's shell: sockets, listener, FIB, control socket.
