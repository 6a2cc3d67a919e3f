//! What a node's speaker should be, derived from the datastore.
