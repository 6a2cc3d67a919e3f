//! Datastore facts to what this node's dataplane should be.
