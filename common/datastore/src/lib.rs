//! One store trait, two real stores: etcd v3 and an embedded file.
