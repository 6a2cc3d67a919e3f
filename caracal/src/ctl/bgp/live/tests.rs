//! Answers of a running speaker, recorded, and what people read of them.

use std::path::Path;

use serde_json::Value;

use super::text::Screen;
use super::{View, explain, neighbor, peers, routes, summary};

fn recorded(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ctl/bgp/live/testdata").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn rows(name: &str) -> Vec<Value> {
    match serde_json::from_str(&recorded(&format!("{name}.json"))).unwrap() {
        Value::Array(rows) => rows,
        one => vec![one],
    }
}

fn shown(view: &View, name: &str, wide: bool, width: Option<usize>) -> String {
    (view.render)(&rows(name), &Screen { wide, width }).unwrap()
}

#[test]
fn recorded_answers_read_as_they_did() {
    for (view, name, wide, width, text) in [
        (&peers::VIEW, "peers", false, None, "peers"),
        (&peers::VIEW, "peers", false, Some(80), "peers-80"),
        (&peers::VIEW, "peers", true, None, "peers-wide"),
        (&summary::VIEW, "summary", false, Some(80), "summary-80"),
        (&neighbor::VIEW, "neighbor", false, Some(80), "neighbor-80"),
        (&neighbor::VIEW, "established", false, None, "established"),
        (&explain::VIEW, "explain", false, None, "explain"),
        (&routes::PATHS, "routes", false, Some(80), "routes-80"),
        (&routes::PATHS, "routes", true, None, "routes-wide"),
        (&routes::WITHHELD, "withheld", false, None, "withheld"),
    ] {
        assert_eq!(shown(view, name, wide, width), recorded(&format!("{text}.txt")), "{text}");
    }
}

#[test]
fn nothing_is_wider_than_the_terminal() {
    for width in [80, 120, 160] {
        for (view, name) in [
            (&peers::VIEW, "peers"),
            (&summary::VIEW, "summary"),
            (&neighbor::VIEW, "neighbor"),
            (&neighbor::VIEW, "established"),
            (&explain::VIEW, "explain"),
            (&routes::PATHS, "routes"),
            (&routes::WITHHELD, "withheld"),
        ] {
            for line in shown(view, name, false, Some(width)).lines() {
                assert!(line.chars().count() <= width, "{name} at {width}: {line}");
            }
        }
    }
}

#[test]
fn nothing_to_show_is_said() {
    let screen = Screen { wide: false, width: None };
    for (view, said) in [
        (&peers::VIEW, "This speaker has no peers.\n"),
        (&routes::PATHS, "No routes.\n"),
        (&routes::ADVERTISED, "The peer is told nothing.\n"),
        (&routes::WITHHELD, "The peer is told everything.\n"),
    ] {
        assert_eq!((view.render)(&[], &screen).unwrap(), said);
    }
}

#[test]
fn routes_are_sorted_and_shown_once() {
    let mut lines: Vec<Value> = rows("routes").into_iter().map(|r| serde_json::json!({"route": r})).collect();
    lines.reverse();
    lines.push(lines[0].clone());
    assert_eq!((routes::PATHS.arrange)(lines).unwrap(), rows("routes"));
}

#[test]
fn an_answer_of_another_version_says_so() {
    let mut row = rows("peers").remove(0);
    row["state"] = "Sleeping".into();
    let err = (peers::VIEW.render)(&[row], &Screen { wide: false, width: None }).unwrap_err();
    assert!(err.contains("of different versions"), "{err}");
}
