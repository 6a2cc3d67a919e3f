use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn canonical_texts() {
    for (text, canonical) in [
        ("", "all()"),
        (" \t ", "all()"),
        ("all( )", "all()"),
        ("global()", "global()"),
        ("! (has( b)||! has(a ))", "!(has(b) || !has(a))"),
        ("a=='b'", "a == \"b\""),
        ("a == 'say \"hi\"'", "a == 'say \"hi\"'"),
        ("a == \"it's\"", "a == \"it's\""),
        ("a in {'z','a','z',}", "a in {\"a\", \"z\"}"),
        ("a in{}", "a in {}"),
        ("a notin {'b'}", "a not in {\"b\"}"),
        ("a not  in {'b'}", "a not in {\"b\"}"),
        ("a startswith 'b'", "a starts with \"b\""),
        ("a ends\twith'b'", "a ends with \"b\""),
        ("a contains\"b\"", "a contains \"b\""),
        ("!!has(a)", "has(a)"),
        ("!!!has(a)", "!has(a)"),
        ("!(!has(a))", "has(a)"),
        ("a == 'b' || c == 'd' && e != 'f'", "(a == \"b\" || (c == \"d\" && e != \"f\"))"),
        ("(has(a) && has(b)) && has(c)", "((has(a) && has(b)) && has(c))"),
        ("((has(a)))", "has(a)"),
        ("all == 'x' && has != 'y' && in in {'in'}", "(all == \"x\" && has != \"y\" && in in {\"in\"})"),
        ("projectcalico.org/namespace == 'x'", "projectcalico.org/namespace == \"x\""),
        ("a == ''", "a == \"\""),
    ] {
        let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selector.to_string(), canonical, "{text}");
        assert_eq!(Selector::parse(canonical).as_ref(), Ok(&selector), "{text}");
    }
}

#[test]
fn what_is_no_selector_says_where() {
    for (text, at) in [
        ("a", 1),
        ("has (a)", 4),
        ("has()", 4),
        ("all(a)", 4),
        ("a = 'b'", 2),
        ("a == b", 5),
        ("a == 'b", 5),
        ("a == 'b' & has(c)", 9),
        ("a == 'b' has(c)", 9),
        ("a == 'b' ||", 11),
        ("(has(a)", 7),
        ("has(a))", 6),
        ("!", 1),
        ("!= 'a'", 0),
        ("a in 'b'", 5),
        ("a in {,}", 6),
        ("a in {'b' 'c'}", 10),
        ("a containsx 'b'", 2),
        ("a inn {'b'}", 2),
        ("\n", 0),
        ("ä == 'b'", 0),
        ("a == 'b'\n", 8),
    ] {
        let error = Selector::parse(text).expect_err(text);
        assert_eq!(error.at, at, "{text}: {error}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |n: usize| format!("{}has(a){}", "(has(b) && ".repeat(n), ")".repeat(n));
    let deepest = Selector::parse(&nested(MAX_DEPTH)).unwrap();
    assert_eq!(Selector::parse(&deepest.to_string()), Ok(deepest));
    assert!(Selector::parse(&nested(MAX_DEPTH + 1)).is_err());
    assert!(Selector::parse(&"(".repeat(200_000)).is_err());
    assert_eq!(Selector::parse(&format!("{}has(a)", "!".repeat(200_000))), Ok(Selector::Has("a".into())));
    assert!(Selector::parse(&" ".repeat(MAX_LENGTH + 1)).is_err());
    assert!(Selector::parse(&format!("has({})", "a".repeat(512))).is_ok());
    assert!(Selector::parse(&format!("has({})", "a".repeat(513))).is_err());
}

#[test]
fn absence_of_a_label() {
    let none = labels(&[]);
    let some = labels(&[("a", "bcd")]);
    for (text, absent, present) in [
        ("has(a)", false, true),
        ("a == 'bcd'", false, true),
        ("a != 'bcd'", true, false),
        ("a in {'bcd', 'x'}", false, true),
        ("a not in {'bcd', 'x'}", true, false),
        ("a in {}", false, false),
        ("a not in {}", true, true),
        ("a contains 'c'", false, true),
        ("a contains ''", false, true),
        ("a starts with 'bc'", false, true),
        ("a ends with 'cd'", false, true),
        ("a ends with 'bc'", false, false),
        ("!has(a)", true, false),
        ("all()", true, true),
        ("has(a) || has(b)", false, true),
        ("has(a) && has(b)", false, false),
        ("!has(b) && (a == 'x' || a == 'bcd')", false, true),
    ] {
        let selector = Selector::parse(text).unwrap();
        assert_eq!((selector.matches(&none), selector.matches(&some)), (absent, present), "{text}");
    }
}

#[test]
fn uids_are_those_of_calico() {
    let uid = |text: &str| Selector::parse(text).unwrap().uid();
    assert_eq!(uid(""), "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug");
    assert_eq!(uid("role=='frontend'"), "s:lJVGDaqTNzSq4oOWKtH8pYj3zM-u5a8vGYAr8Q");
}

#[test]
fn labels_get_a_prefix() {
    let selector = Selector::parse("env == 'prod' && !(has(x) || all())").unwrap();
    assert_eq!(selector.labels(), BTreeSet::from(["env", "x"]));
    let renamed = selector.with_label_prefix("pcns.").map_leaves(&|leaf| match leaf {
        Selector::All => Selector::Has("projectcalico.org/namespace".to_owned()),
        leaf => leaf,
    });
    assert_eq!(
        renamed.to_string(),
        "(pcns.env == \"prod\" && !(has(pcns.x) || has(projectcalico.org/namespace)))"
    );
}
