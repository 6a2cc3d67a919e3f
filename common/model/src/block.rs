//! Allocation blocks: which address of a block belongs to whom.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::ValueError;
use crate::ipam::Owner;
use crate::json::{Other, nullable, record};
use crate::net;

/// One block, as it is stored under [`crate::Key::Block`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// The block's prefix, the same as in its key.
    pub cidr: IpNet,
    /// `host:<name>`, `virtual:<name>`, or none; ask [`Block::owner`].
    #[serde(default)]
    pub affinity: Option<String>,
    /// When the owner claimed it, RFC 3339; a block without one is reclaimed by others as soon as it is empty.
    #[serde(default, rename = "affinity_claim_time", skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<String>,
    /// Per ordinal an index into `attributes`, or none while it is free.
    #[serde(default, deserialize_with = "nullable")]
    pub allocations: Vec<Option<u32>>,
    /// Free ordinals, a queue: taken at the head, given back at the tail.
    #[serde(default, deserialize_with = "nullable")]
    pub unallocated: Vec<u32>,
    /// Owners of addresses; JSON null in a block that never had one. Read them with [`Block::attributes`].
    #[serde(default)]
    pub attributes: Option<Vec<AllocationAttribute>>,
    /// Grows by one with every write.
    #[serde(default, deserialize_with = "nullable")]
    pub sequence_number: u64,
    /// Sequence number at which each allocated ordinal was taken.
    #[serde(default, deserialize_with = "nullable")]
    pub sequence_number_for_allocation: BTreeMap<u32, u64>,
    /// Always false in etcd.
    #[serde(default, deserialize_with = "nullable")]
    pub deleted: bool,
    /// Owner in a field that old releases wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_affinity: Option<String>,
    /// Fields this model has no name for.
    #[serde(flatten)]
    pub other: Other,
}

record! {
    /// Who has an address. With only `released_at` it is cooling down before it may be given again.
    pub struct AllocationAttribute {
        /// Handle that the address is released by.
        #[serde(rename = "handle_id")]
        pub handle_id: Option<String>,
        /// `node`, `namespace`, `pod`, `type`, `timestamp` and others.
        pub secondary: BTreeMap<String, String>,
        /// Owner to be, while a virtual machine moves.
        pub alternate_owner_attrs: BTreeMap<String, String>,
        /// When it was released, RFC 3339.
        pub released_at: Option<String>,
    }
}

/// How full a block is, in addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utilisation {
    /// All of them.
    pub capacity: usize,
    /// Allocated, cooling ones included.
    pub in_use: usize,
    /// Released and not yet given again.
    pub cooling: usize,
}

impl Utilisation {
    /// Addresses that are free.
    pub fn free(self) -> usize {
        self.capacity.saturating_sub(self.in_use)
    }
}

impl Block {
    /// A block nobody uses yet, as Calico writes it. None when `cidr` is too large to be a block (above 65536 addresses).
    pub fn new(
        cidr: IpNet,
        owner: Option<&Owner>,
        claim_time: Option<String>,
        sequence_number: u64,
    ) -> Option<Block> {
        let size = net::size_of(cidr).filter(|size| *size <= 65_536)?;
        Some(Block {
            cidr: cidr.trunc(),
            affinity: owner.map(ToString::to_string),
            affinity_claim_time: claim_time,
            allocations: (0..size).map(|_| None).collect(),
            unallocated: (0..size).collect(),
            attributes: None,
            sequence_number,
            sequence_number_for_allocation: BTreeMap::new(),
            deleted: false,
            host_affinity: None,
            other: Other::new(),
        })
    }

    /// Who owns the block.
    pub fn owner(&self) -> Option<Owner> {
        match self.affinity.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => Owner::parse(text),
            None => self.host_affinity.clone().filter(|host| !host.is_empty()).map(Owner::Host),
        }
    }

    /// The host that owns the block.
    pub fn host(&self) -> Option<&str> {
        match self.affinity.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => text.strip_prefix("host:").filter(|host| !host.is_empty()),
            None => self.host_affinity.as_deref().filter(|host| !host.is_empty()),
        }
    }

    /// Owners of addresses.
    pub fn attributes(&self) -> &[AllocationAttribute] {
        self.attributes.as_deref().unwrap_or_default()
    }

    /// How full it is.
    pub fn utilisation(&self) -> Utilisation {
        let allocated = self.allocated();
        let (mut in_use, mut cooling) = (0, 0);
        for (_, attribute) in allocated {
            in_use += 1;
            cooling += usize::from(attribute.is_some_and(|a| a.released_at.is_some()));
        }
        Utilisation { capacity: self.allocations.len(), in_use, cooling }
    }

    /// Allocated ordinals with who has them.
    pub fn allocated(&self) -> impl Iterator<Item = (u32, Option<&AllocationAttribute>)> {
        (0..).zip(&self.allocations).filter_map(|(ordinal, index)| {
            let attribute = usize::try_from((*index)?).ok().and_then(|at| self.attributes().get(at));
            Some((ordinal, attribute))
        })
    }

    /// Allocated addresses with who has them.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, Option<&AllocationAttribute>)> {
        self.allocated().filter_map(|(ordinal, attribute)| Some((self.address(ordinal)?, attribute)))
    }

    /// Who has an ordinal; none while it is free.
    pub fn attribute_of(&self, ordinal: u32) -> Option<&AllocationAttribute> {
        let index = (*self.allocations.get(usize::try_from(ordinal).ok()?)?)?;
        self.attributes().get(usize::try_from(index).ok()?)
    }

    /// Address of an ordinal.
    pub fn address(&self, ordinal: u32) -> Option<IpAddr> {
        net::nth_address(self.cidr, ordinal)
    }

    /// Ordinal of an address.
    pub fn ordinal(&self, address: IpAddr) -> Option<u32> {
        net::ordinal_of(self.cidr, address)
    }

    /// Whether nobody has an address of it; the reservation that Windows nodes make does not count.
    pub fn is_empty(&self) -> bool {
        const RESERVED: &str = "windows-reserved-ipam-handle";
        self.allocated()
            .all(|(_, attribute)| attribute.and_then(|a| a.handle_id.as_deref()) == Some(RESERVED))
    }

    /// Whether the parts fit each other and the key.
    pub(crate) fn check(&self, key: &str, cidr: IpNet) -> Result<(), ValueError> {
        const FIX: &str = "release what uses the block, delete the key, and let the agents claim it again";
        let error = |field: &str, reason: String| Err(ValueError::new(key, field, reason, FIX));
        if self.cidr != cidr {
            return error("cidr", "not the prefix that the key names".to_owned());
        }
        let size = self.allocations.len();
        if net::size_of(cidr).and_then(|wanted| usize::try_from(wanted).ok()) != Some(size) {
            return error("allocations", format!("{size} entries do not fit a block of this prefix length"));
        }
        let within = |index: u32, length: usize| usize::try_from(index).is_ok_and(|index| index < length);
        if let Some(at) = self
            .allocations
            .iter()
            .position(|index| index.is_some_and(|i| !within(i, self.attributes().len())))
        {
            return error(&format!("allocations[{at}]"), "points to no entry of attributes".to_owned());
        }
        if let Some(at) = self.unallocated.iter().position(|ordinal| !within(*ordinal, size)) {
            return error(&format!("unallocated[{at}]"), "lies outside the block".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Value};

    const EXAMPLE: &str = r#"{"cidr":"10.244.1.0/29","affinity":"host:node-1","affinity_claim_time":"2026-01-02T03:04:05Z",
        "allocations":[0,null,null,null,null,null,null,1],"unallocated":[1,2,3,4,5,6],
        "attributes":[{"handle_id":"a","secondary":{"node":"node-1"}},{"releasedAt":"2026-01-02T03:04:06Z"}],
        "sequenceNumber":1767323045000000003,"sequenceNumberForAllocation":{"0":1767323045000000000,"7":1767323045000000002},
        "deleted":false}"#;

    fn parse(text: &str) -> Result<Block, ValueError> {
        let key = Key::parse("/calico/ipam/v2/assignment/ipv4/block/10.244.1.0-29").unwrap();
        match Value::parse(&key, text.as_bytes())? {
            Value::Block(block) => Ok(block),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn says_who_has_what() {
        let block = parse(EXAMPLE).unwrap();
        assert_eq!(block.host(), Some("node-1"));
        assert_eq!(block.utilisation(), Utilisation { capacity: 8, in_use: 2, cooling: 1 });
        assert_eq!(block.attribute_of(0).unwrap().handle_id.as_deref(), Some("a"));
        assert_eq!(block.attribute_of(1), None);
        let addresses: Vec<_> = block.addresses().map(|(address, _)| address.to_string()).collect();
        assert_eq!(addresses, ["10.244.1.0", "10.244.1.7"]);
        assert!(!block.is_empty());
    }

    #[test]
    fn damaged_blocks_say_where() {
        for (from, to, field) in [
            ("10.244.1.0/29", "10.244.2.0/29", "cidr"),
            ("[0,null,", "[0,", "allocations"),
            (",1],\"un", ",2],\"un", "allocations[7]"),
            ("[1,2,3", "[8,2,3", "unallocated[0]"),
            ("[1,2,3", "[-1,2,3", "unallocated[0]"),
            ("1767323045000000003", "\"x\"", "sequenceNumber"),
            ("\"node\":\"node-1\"", "\"node\":1", "attributes[0].secondary.node"),
        ] {
            let error = parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
            assert_eq!(error.field, field, "{error}");
        }
    }

    #[test]
    fn a_new_block_is_all_free() {
        let owner = Owner::Host("node-1".into());
        let block = Block::new("fd00::/122".parse().unwrap(), Some(&owner), None, 7).unwrap();
        assert_eq!((block.utilisation().free(), block.owner()), (64, Some(owner)));
        let json = serde_json::to_value(&block).unwrap();
        assert_eq!(
            (&json["attributes"], &json["affinity"]),
            (&serde_json::Value::Null, &"host:node-1".into())
        );
        assert!(Block::new("10.0.0.0/8".parse().unwrap(), None, None, 0).is_none());
    }
}
