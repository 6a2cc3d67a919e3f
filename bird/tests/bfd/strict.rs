//! Sessions that wait for BFD: nothing is learned before it is up, and people see what is waited for.

use super::*;

/// Changes the file of one of ours, which then reads it again.
fn rewrite(line: &Line, name: &str, from: &str, to: &str) {
    let path = line.lab.file(name);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
}

/// Both neighbours of the left one say that they wait.
#[track_caller]
fn waits(line: &Line) {
    for which in 0..2 {
        let result = eventually(SOON, || {
            if !line.lab.file("left.sock").exists() {
                return Err("no socket".to_owned());
            }
            let seen = line.neighbor(which);
            let seen = &seen["neighbor"];
            let cause = &seen["cause"];
            if seen["state"] == "OpenSent"
                && cause["kind"] == "bfd"
                && cause["text"].as_str().is_some_and(|text| text.starts_with("waits for BFD"))
            {
                Ok(())
            } else {
                Err(format!("{} {cause}", seen["state"]))
            }
        });
        result.unwrap_or_else(|err| panic!("{err}\n{}", line.lab.logs(80)));
    }
}

const LAX: &str = "multihop: false }";
const STRICT: &str = "multihop: false, strict: true }";

#[test]
fn two_of_ours_wait_until_bfd_works_and_again_after_each_cut() {
    let line = Line::new("bf14", Shape::Link);
    drop((line.ours(true, ""), line.ours(false, "")));
    rewrite(&line, "left.yaml", LAX, STRICT);
    rewrite(&line, "right.yaml", "bfd: { minTx: 100ms, minRx: 100ms, multihop: false }", "bfd: false");
    let file = |name: &str| line.lab.file(name).to_str().unwrap().to_owned();
    let router = router();
    let left = line.start("left", &line.left, &[router.to_str().unwrap(), &file("left.yaml")]);
    let mut right = line.start("right", &line.right, &[router.to_str().unwrap(), &file("right.yaml")]);
    waits(&line);
    assert_eq!(line.bfd_in_list(), [Some(false); 2]);
    line.routes(false, SOON);
    assert!(!left.log().contains("session established"), "{}", left.log());

    rewrite(&line, "right.yaml", "bfd: false", &format!("bfd: {{ minTx: 100ms, minRx: 100ms, {STRICT}"));
    right.signal(nix::sys::signal::Signal::SIGHUP);
    let took = line.routes(true, SOON);
    eprintln!("routes {took:?} after BFD was switched on at the other end");
    line.says(&left, "BFD is up", 2);
    assert_eq!(line.bfd_in_list(), [Some(true); 2]);
    for round in 1..=2 {
        std::thread::sleep(Duration::from_millis(1_500));
        let cut = line.cut();
        line.routes(false, SOON);
        assert!(cut.elapsed() < AT_ONCE, "{:?}\n{}", cut.elapsed(), line.lab.logs(80));
        line.mend();
        let took = line.routes(true, SOON);
        eprintln!("round {round}: back after {took:?}");
    }
    // In the log, each session of the left one comes after its BFD.
    let log = left.log();
    let (mut ready, mut sessions) = (0, 0);
    for said in log.lines() {
        ready += usize::from(said.contains("BFD is up"));
        sessions += usize::from(said.contains("session established"));
        assert!(sessions <= ready, "{log}");
    }
    assert!(sessions >= 6, "{log}");
}

/// BIRD does not know the capability: it is kept waiting all the same, and told nothing.
#[test]
fn bird_is_kept_waiting_until_its_bfd_is_on() {
    if !have("/usr/sbin/bird") {
        return;
    }
    let line = Line::new("bf15", Shape::Link);
    drop(line.ours(true, ""));
    rewrite(&line, "left.yaml", LAX, STRICT);
    let file = line.lab.file("left.yaml").to_str().unwrap().to_owned();
    let left = line.start("left", &line.left, &[router().to_str().unwrap(), &file]);
    let _bird = line.bird("");
    waits(&line);
    std::thread::sleep(Duration::from_secs(3));
    line.routes(false, Duration::from_millis(100));
    let seen = line.neighbor(0);
    let offered = seen["neighbor"]["capabilitiesOffered"].as_array().unwrap();
    let strict = offered.iter().find(|c| c["code"] == 74).unwrap();
    assert!(strict["ours"].is_string() && strict["theirs"].is_null() && strict["used"] == false, "{strict}");
    let socket = line.lab.file("bird.ctl");
    let birdc = format!("birdc -s {}", socket.display());
    let shown = line.right.sh(&format!("{birdc} show protocols")).unwrap();
    assert!(shown.contains("OpenConfirm") && !shown.contains("Established"), "{shown}");

    let conf = line.lab.file("bird.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, text.replace("direct; hold time", "direct; bfd on; hold time")).unwrap();
    line.right.sh(&format!("{birdc} configure")).unwrap();
    line.routes(true, SOON);
    let log = left.log();
    let at = |what: &str| log.find(what).unwrap();
    assert!(at("BFD is up") < at("session established"), "{log}");
}
