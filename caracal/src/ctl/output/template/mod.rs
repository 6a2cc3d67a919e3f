//! Go templates over what was found, in the subset that people use with calicoctl.
//!
//! The data is the list of what was found; fields go by the names of Calico's Go structs (`.ObjectMeta.Name`,
//! `.Spec.IPNetworks`), which are the JSON names but for case. Fields that are not set have Go's zero value.
//! Supported: text, `{{-`/`-}}`, comments, pipelines, variables, `if`/`else if`/`else`, `range` with `else`, `break`, `continue`,
//! `with`, `define`/`template`/`block`, and the functions of [`functions`].

mod eval;
mod functions;
mod parse;
mod value;

use super::Found;

/// The text that a template makes of what was found.
pub(super) fn render(template: &str, found: &[Found], as_number: &str) -> Result<String, String> {
    let template = parse::parse(template)?;
    eval::run(&template, value::of_found(found), as_number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ctl::kinds::by_kind;

    fn found() -> Vec<Found> {
        let node = |name: &str, bgp: serde_json::Value| {
            json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": name, "labels": {"rack": "r1", "b": "2"}}, "spec": bgp, "status": {}})
        };
        let items = [
            node("n1", json!({"bgp": {"ipv4Address": "10.0.0.1/24", "asNumber": 65001}})),
            node("n2", json!({})),
        ];
        vec![Found { kind: by_kind("Node").unwrap(), value: json!({"kind": "NodeList", "items": items}) }]
    }

    #[track_caller]
    fn check(template: &str, want: &str) {
        assert_eq!(render(template, &found(), "64512").as_deref(), Ok(want), "{template}");
    }

    #[test]
    fn fields_and_ranges() {
        check("{{range .}}{{range .Items}}{{.ObjectMeta.Name}} {{.Name}};{{end}}{{end}}", "n1 n1;n2 n2;");
        check("{{range .}}{{range $i, $n := .Items}}{{$i}}={{$n.Name}} {{end}}{{end}}", "0=n1 1=n2 ");
        check("{{range .}}{{.Kind}}{{len .Items}}{{end}}", "NodeList2");
        check(
            "{{range .}}{{with index .Items 0}}{{range $k, $v := .Labels}}{{$k}}:{{$v}} {{end}}{{end}}{{end}}",
            "b:2 rack:r1 ",
        );
        check("{{range .}}{{range .Items}}{{.Spec.BGP.IPv4Address}}{{break}}{{end}}{{end}}", "10.0.0.1/24");
        check(
            "{{range .}}{{range .Items}}{{if eq .Name \"n1\"}}{{continue}}{{end}}{{.Name}}{{end}}{{end}}",
            "n2",
        );
        check("{{range .}}{{range (index .Items 1).Spec.OrchRefs}}x{{else}}none{{end}}{{end}}", "none");
    }

    #[test]
    fn what_is_not_set_has_gos_zero_value() {
        check(
            "{{range .}}{{range .Items}}[{{.Spec.BGP}}]{{break}}{{end}}{{end}}",
            "[{65001 10.0.0.1/24   }]",
        );
        check(
            "{{range .}}{{with index .Items 1}}[{{.Spec.BGP}}][{{.Spec.IPv4VXLANTunnelAddr}}][{{.Namespace}}]{{end}}{{end}}",
            "[<nil>][][]",
        );
        check("{{range .}}{{range .Items}}{{if .Spec.BGP}}yes{{else}}no{{end}} {{end}}{{end}}", "yes no ");
        check(
            "{{range .}}{{range .Items}}{{if and .Spec.BGP .Spec.BGP.ASNumber}}{{.Spec.BGP.ASNumber}}{{else}}({{config \"asnumber\"}}){{end}} {{end}}{{end}}",
            "65001 (64512) ",
        );
    }

    #[test]
    fn functions_pipes_and_literals() {
        check(
            "{{printf \"%s-%d-%v-%5d|%-4s|%q|%05.1f\" \"a\" 1 true 42 \"x\" \"y\" 2.5}}",
            "a-1-true-   42|x   |\"y\"|002.5",
        );
        check("{{\"a\" | printf \"%s%s\" \"b\"}}", "ba");
        check("{{if and (eq 1 1) (ne `a` \"b\") (lt 1 2) (ge 2.5 2.5) (not false)}}ok{{end}}", "ok");
        check(
            "{{eq \"a\" \"b\" \"a\"}} {{or \"\" \"x\"}} {{len \"abc\"}} {{slice \"abcd\" 1 3}} {{print 1 2 \"a\" \"b\"}} {{html \"<a>\"}}",
            "true x 3 bc 1 2ab &lt;a&gt;",
        );
        check(
            "{{range .}}{{range .Items}}{{index .Labels \"rack\"}}{{index .Labels \"none\"}};{{join .Labels \",\"}} {{end}}{{end}}",
            "r1;b=2,rack=r1 r1;b=2,rack=r1 ",
        );
        check("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}{{/* nothing */}}", "2");
        check("a {{- \" b \" -}} c", "a b c");
        check("{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" 5}}{{block \"u\" 6}}[{{.}}]{{end}}", "<5>[6]");
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (template, says) in [
            ("{{range .}}", "unexpected end"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{nosuch 1}}", "function \"nosuch\" not defined"),
            ("{{$x}}", "undefined variable \"$x\""),
            ("{{\"a}}", "unterminated"),
            ("{{range .}}{{.Colour}}{{end}}", "can't evaluate field Colour"),
            ("{{range .}}{{range .Items}}{{.Spec.Colour}}{{end}}{{end}}", "can't evaluate field Colour"),
            ("{{index . 5}}", "out of range"),
            ("{{template \"gone\"}}", "template \"gone\" not defined"),
            ("{{lt 1 \"a\"}}", "incompatible"),
            ("{{if}}{{end}}", "missing value"),
            ("{{config \"colour\"}}", "unhandled config type"),
        ] {
            let error = render(template, &found(), "").unwrap_err();
            assert!(error.contains(says), "{template}: {error}");
        }
        assert!(
            render("{{define \"t\"}}{{template \"t\"}}{{end}}{{template \"t\"}}", &found(), "")
                .unwrap_err()
                .contains("too deep")
        );
    }
}
