//! Tables: columns set apart by blanks, as calicoctl's tab writer does it, and boxes of `+-|`.

/// Least width of a column, with its padding.
const MIN_WIDTH: usize = 5;
/// Blanks behind the longest cell of a column.
const PADDING: usize = 3;

/// Headings and rows in columns; each line ends in the blanks of its last column, an empty line follows.
pub(crate) fn columns(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |i: usize| {
        let cells =
            rows.iter().filter_map(|row| row.get(i)).map(String::as_str).chain(headings.get(i).copied());
        cells.map(|cell| cell.chars().count() + PADDING).max().unwrap_or_default().max(MIN_WIDTH)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        for (cell, width) in cells.zip(&widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        out.push('\n');
    };
    line(&mut headings.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out.push('\n');
    out
}

/// A box around headings and rows; `right` names the columns that stand to the right. Headings of those stay to the left.
pub(crate) fn boxed(headings: &[&str], rows: &[Vec<String>], right: &[&str]) -> String {
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|row| row.get(i)).map(String::as_str);
        cells.chain(headings.get(i).copied()).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let bars: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    let rule = format!("+{}+\n", bars.join("+"));
    let line = |cells: &mut dyn Iterator<Item = (&str, bool)>| {
        let padded = cells.zip(&widths).map(|((cell, to_right), &width)| {
            if to_right { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") }
        });
        format!("|{}|\n", padded.collect::<Vec<_>>().join("|"))
    };
    let heading = line(&mut headings.iter().map(|heading| (*heading, false)));
    let sides: Vec<bool> = headings.iter().map(|heading| right.contains(heading)).collect();
    let body = rows.iter().map(|row| line(&mut row.iter().map(String::as_str).zip(sides.iter().copied())));
    let body = body.collect::<String>();
    format!("{rule}{heading}{rule}{body}{rule}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows =
            [vec!["pool-a".to_owned(), "10.44.0.0/16".to_owned()], vec!["x".to_owned(), String::new()]];
        assert_eq!(
            columns(&["NAME", "CIDR"], &rows),
            "NAME     CIDR           \npool-a   10.44.0.0/16   \nx                       \n\n"
        );
        assert_eq!(columns(&["N"], &[]), "N    \n\n");
        assert_eq!(columns(&["NAME"], &[vec!["é".to_owned()]]), "NAME   \né      \n\n");
    }

    #[test]
    fn boxes() {
        let rows = [vec!["IP Pool".to_owned(), "65536".to_owned()]];
        let want = "+----------+-----------+\n| GROUPING | IPS TOTAL |\n+----------+-----------+\n| IP Pool  |     65536 |\n+----------+-----------+\n";
        assert_eq!(boxed(&["GROUPING", "IPS TOTAL"], &rows, &["IPS TOTAL"]), want);
    }
}
