//! Our MRT records, as bgpkit-parser reads them.
#![allow(clippy::unwrap_used, reason = "a test that cannot read has failed")]

use std::io::Cursor;
use std::net::{IpAddr, Ipv4Addr};

use bgpkit_parser::models::{
    AttributeValue, Bgp4MpEnum, BgpMessage, MrtMessage, TableDumpV2Message, TableDumpV2Type,
};
use bgpkit_parser::parse_mrt_record;
use bird_packet::mrt::{self, Entry, Peer, Session};
use bird_packet::{AttrBuilder, Prefix, encode_keepalive};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn attributes() -> Vec<u8> {
    let mut builder = AttrBuilder::new();
    builder
        .as_path(&[65001, 4_200_000_000])
        .med(Some(7))
        .local_pref(Some(120))
        .add_community(65001 << 16 | 9);
    let mut bytes = Vec::new();
    builder.write(&mut bytes).unwrap();
    bytes
}

fn entry<'a>(peer: u16, path_id: u32, attributes: &'a [u8], next_hop: &str) -> Entry<'a> {
    Entry { peer, since: 1_700_000_000, path_id, attributes, next_hop: ip(next_hop), link_local: None }
}

fn next_hop_of(values: &bgpkit_parser::models::Attributes) -> Vec<IpAddr> {
    values
        .clone()
        .into_attributes_iter()
        .filter_map(|a| match a.value {
            AttributeValue::NextHop(hop) => Some(hop),
            AttributeValue::MpReachNlri(nlri) => nlri.next_hop.map(|n| n.addr()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_dump_is_read_back() {
    let attributes = attributes();
    let peers = [
        Peer { router_id: Ipv4Addr::new(10, 0, 0, 1), address: ip("10.0.0.1"), asn: 65001 },
        Peer { router_id: Ipv4Addr::new(10, 0, 0, 2), address: ip("2001:db8::2"), asn: 4_200_000_000 },
    ];
    let mut bytes = Vec::new();
    assert_eq!(mrt::peer_index_table(&mut bytes, 5, Ipv4Addr::new(192, 0, 2, 1), "node-a", &peers), 2);
    let cases = [
        (
            "10.1.0.0/16",
            false,
            vec![entry(0, 0, &attributes, "10.0.0.1"), entry(1, 0, &attributes, "2001:db8::2")],
        ),
        ("0.0.0.0/0", false, vec![entry(0, 0, &attributes, "10.0.0.1")]),
        (
            "10.2.0.0/23",
            true,
            vec![entry(0, 7, &attributes, "10.0.0.1"), entry(0, 8, &attributes, "10.0.0.9")],
        ),
        ("2001:db8:1::/48", false, vec![entry(1, 0, &attributes, "2001:db8::2")]),
        ("2001:db8:2::/47", true, vec![entry(1, 3, &attributes, "2001:db8::2")]),
    ];
    for (sequence, (prefix, add_path, entries)) in (0u32..).zip(&cases) {
        mrt::rib(&mut bytes, 6, sequence, prefix.parse::<Prefix>().unwrap(), *add_path, entries);
    }
    let mut input = Cursor::new(bytes);
    let first = parse_mrt_record(&mut input).unwrap();
    let MrtMessage::TableDumpV2Message(TableDumpV2Message::PeerIndexTable(index)) = first.message else {
        panic!("no index")
    };
    assert_eq!((index.collector_bgp_id, index.view_name.as_str()), (Ipv4Addr::new(192, 0, 2, 1), "node-a"));
    for (number, peer) in (0u16..).zip(&peers) {
        let read = index.get_peer_by_id(&number).unwrap();
        assert_eq!(
            (read.peer_bgp_id, read.peer_ip, read.peer_asn.to_u32()),
            (peer.router_id, peer.address, peer.asn)
        );
    }
    for (sequence, (prefix, add_path, entries)) in (0u32..).zip(&cases) {
        let record = parse_mrt_record(&mut input).unwrap();
        let MrtMessage::TableDumpV2Message(TableDumpV2Message::RibAfi(rib)) = record.message else {
            panic!("no RIB record")
        };
        assert_eq!((rib.sequence_number, rib.prefix.prefix.to_string()), (sequence, (*prefix).to_owned()));
        let with_ids = matches!(
            rib.rib_type,
            TableDumpV2Type::RibIpv4UnicastAddPath | TableDumpV2Type::RibIpv6UnicastAddPath
        );
        assert_eq!(with_ids, *add_path, "{prefix}");
        assert_eq!(rib.rib_entries.len(), entries.len());
        for (read, wrote) in rib.rib_entries.iter().zip(entries) {
            assert_eq!((read.peer_index, read.originated_time), (wrote.peer, wrote.since));
            assert_eq!(read.path_id, add_path.then_some(wrote.path_id), "{prefix}");
            assert_eq!(next_hop_of(&read.attributes), [wrote.next_hop], "{prefix}");
            let path = read.attributes.as_path().unwrap();
            assert_eq!(path.to_u32_vec_opt(false).unwrap(), [65001, 4_200_000_000]);
            assert_eq!(read.attributes.local_preference(), Some(120));
            assert_eq!(read.attributes.iter_communities().count(), 1);
        }
    }
    assert!(parse_mrt_record(&mut input).is_err(), "nothing is left");
}

#[test]
fn messages_of_sessions_are_read_back() {
    let mut keepalive = Vec::new();
    encode_keepalive(&mut keepalive);
    for (peer, local) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        for (as4, add_path, sent) in [
            (false, false, false),
            (true, false, false),
            (true, false, true),
            (true, true, false),
            (true, true, true),
        ] {
            let session =
                Session { peer_as: 65001, local_as: 65002, peer: ip(peer), local: ip(local), as4, add_path };
            let mut bytes = Vec::new();
            mrt::message(&mut bytes, 1_700_000_000, 250_000, &session, sent, &keepalive);
            let record = parse_mrt_record(&mut Cursor::new(&bytes)).unwrap();
            assert_eq!(record.common_header.timestamp, 1_700_000_000);
            assert_eq!(record.common_header.microsecond_timestamp, Some(250_000));
            let MrtMessage::Bgp4Mp(Bgp4MpEnum::Message(read)) = record.message else { panic!("no message") };
            assert_eq!((read.peer_ip, read.local_ip), (ip(peer), ip(local)));
            assert_eq!((read.peer_asn.to_u32(), read.local_asn.to_u32()), (65001, 65002));
            assert!(matches!(read.bgp_message, BgpMessage::KeepAlive), "{:?}", read.bgp_message);
        }
    }
}

#[test]
fn what_does_not_fit_does_no_harm() {
    let many = vec![Peer { router_id: Ipv4Addr::LOCALHOST, address: ip("10.0.0.1"), asn: 1 }; 70_000];
    let mut bytes = Vec::new();
    assert_eq!(mrt::peer_index_table(&mut bytes, 0, Ipv4Addr::LOCALHOST, &"x".repeat(300), &many), u16::MAX);
    let record = parse_mrt_record(&mut Cursor::new(&bytes)).unwrap();
    assert!(matches!(record.message, MrtMessage::TableDumpV2Message(TableDumpV2Message::PeerIndexTable(_))));
    // Attributes beyond 65,535 octets: the entry is there, without them.
    let mut builder = AttrBuilder::new();
    for n in 0..16_000 {
        builder.add_community(n);
    }
    let mut attributes = Vec::new();
    builder.write(&mut attributes).unwrap();
    let mut builder = AttrBuilder::new();
    builder.as_path(&[1; 500]);
    builder.write(&mut attributes).unwrap();
    let mut bytes = Vec::new();
    let entries = [entry(0, 0, &attributes, "10.0.0.1")];
    mrt::rib(&mut bytes, 0, 0, "10.0.0.0/8".parse().unwrap(), false, &entries);
    assert!(bytes.len() < 100, "{}", bytes.len());
    assert!(parse_mrt_record(&mut Cursor::new(&bytes)).is_ok());
}
