//! The lab itself: wires carry packets, streams count, leftovers go.

use std::net::IpAddr;
use std::time::Duration;

use integration::lab::{Lab, Stream};

#[test]
fn a_stream_over_a_bridge_loses_nothing_and_a_cut_is_counted() -> anyhow::Result<()> {
    let mut lab = Lab::new("lab")?;
    let (lan, a, b) = (lab.host("lan")?, lab.host("a")?, lab.host("b")?);
    lan.bridge("br0")?;
    for (number, host) in [(1, &a), (2, &b)] {
        lan.wire(&format!("p{number}"), host, "eth0", Some("br0"))?;
        host.address("eth0", format!("10.9.0.{number}/24").parse()?)?;
    }
    let target: IpAddr = [10, 9, 0, 2].into();
    let stream = Stream::start(&a, &b, target, 7000, 1000)?;
    std::thread::sleep(Duration::from_millis(300));
    let report = stream.finish()?;
    assert!(report.sent > 50, "{report:?}");
    assert_eq!(report.lost, 0, "{report:?}");
    assert_eq!(report.source, Some([10, 9, 0, 1].into()));

    let stream = Stream::start(&a, &b, target, 7001, 1000)?;
    lan.sh("ip link set p2 down")?;
    std::thread::sleep(Duration::from_millis(200));
    let report = stream.finish()?;
    assert!(report.lost > 50, "a cut wire must show: {report:?}");

    let path = a.path();
    drop(lab);
    assert!(!path.exists());
    Ok(())
}
