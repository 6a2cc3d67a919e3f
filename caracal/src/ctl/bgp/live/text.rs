//! Tables that fit the terminal, paragraphs, and times as people say them.

/// Where the output goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    /// `-o wide`.
    pub(super) wide: bool,
    /// Of the terminal; none when it is no terminal.
    pub(super) width: Option<usize>,
}

impl Screen {
    /// Standard output.
    pub(super) fn new(wide: bool) -> Self {
        let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
        Self { wide, width }
    }
}

/// A column: its heading, a shorter one for narrow terminals, and whether it holds numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) heading: &'static str,
    pub(super) short: &'static str,
    pub(super) number: bool,
}

/// A column of words.
pub(super) const fn words(heading: &'static str) -> Column {
    Column { heading, short: heading, number: false }
}

/// A column of numbers.
pub(super) const fn number(heading: &'static str, short: &'static str) -> Column {
    Column { heading, short, number: true }
}

/// Blanks between columns: as calicoctl has them, less where the terminal is narrow.
const GAPS: [(usize, bool); 4] = [(3, false), (2, false), (2, true), (1, true)];

/// A table without blanks at the ends of lines.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let widest = |i: usize, short: bool| {
        let heading = if short { columns[i].short } else { columns[i].heading };
        let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
        cells.chain([heading.chars().count()]).max().unwrap_or_default()
    };
    let widths = |short: bool| (0..columns.len()).map(|i| widest(i, short)).collect::<Vec<_>>();
    let fits = |(gap, short): &(usize, bool)| {
        let all: usize = widths(*short).iter().sum();
        width.is_none_or(|width| all + gap * columns.len().saturating_sub(1) <= width)
    };
    let (gap, short) = GAPS.into_iter().find(fits).unwrap_or(GAPS[GAPS.len() - 1]);
    let mut widths = widths(short);
    // What still does not fit is broken, if it is the text at the end.
    let mut last = usize::MAX;
    if let (Some(width), Some((end, others))) = (width, widths.split_last_mut())
        && columns.last().is_some_and(|c| !c.number)
    {
        let before = others.iter().sum::<usize>() + gap * others.len();
        if before + *end > width && before + LEAST_TEXT <= width {
            last = width - before;
            *end = last;
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let (mut line, mut first) = (String::new(), true);
        for ((cell, column), width) in cells.zip(columns).zip(&widths) {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            if !first {
                line.push_str(&" ".repeat(gap));
            }
            first = false;
            if column.number {
                line.push_str(&pad);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&pad);
            }
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let mut out = line(&mut columns.iter().map(|c| if short { c.short } else { c.heading }));
    for row in rows {
        let Some((text, others)) = row.split_last().filter(|_| row.len() == columns.len()) else {
            out.push_str(&line(&mut row.iter().map(String::as_str)));
            continue;
        };
        for (i, part) in broken(text, last).iter().enumerate() {
            let others = others.iter().map(|o| if i == 0 { o.as_str() } else { "" });
            out.push_str(&line(&mut others.chain([part.as_str()])));
        }
    }
    out
}

/// A last column is broken into lines no shorter than this.
const LEAST_TEXT: usize = 24;
/// Width of the first column of [`fact`].
const LABEL: usize = 13;

/// A label and what it says, broken at the terminal's width.
pub(super) fn fact(label: &str, text: &str, screen: &Screen) -> String {
    let width = screen.width.unwrap_or(usize::MAX).saturating_sub(LABEL).max(40);
    let mut out = String::new();
    for (i, line) in broken(text, width).iter().enumerate() {
        let label = if i == 0 { label } else { "" };
        out.push_str(format!("{label:<LABEL$}{line}").trim_end());
        out.push('\n');
    }
    out
}

/// A paragraph, its lines after the first further in.
pub(super) fn note(indent: usize, text: &str, screen: &Screen) -> String {
    let width = screen.width.unwrap_or(usize::MAX).saturating_sub(indent + 2).max(40);
    let mut out = String::new();
    for (i, line) in broken(text, width).iter().enumerate() {
        let indent = if i == 0 { indent } else { indent + 2 };
        out.extend(std::iter::repeat_n(' ', indent));
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Lines no longer than `width`, broken between words.
fn broken(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("invariant: there is a first line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A time of two units at most: `4d3h`, `5m7s`, `42s`.
pub(super) fn ago(ms: u64) -> String {
    let seconds = ms / 1000;
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, m) => format!("{m}m{s}s"),
        (0, h, m) => format!("{h}h{m}m"),
        (d, h, _) => format!("{d}d{h}h"),
    }
}

/// A wait, to the tenth of a second while it is short.
pub(super) fn wait(ms: u64) -> String {
    if ms < 60_000 { format!("{}.{} s", ms / 1000, ms / 100 % 10) } else { ago(ms) }
}

/// `1 peer`, `2 peers`.
pub(super) fn several(count: u64, of: &str) -> String {
    if count == 1 { format!("1 {of}") } else { format!("{count} {of}s") }
}

/// What there is, or a dash.
pub(super) fn or_dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// What an option holds, or a dash.
pub(super) fn maybe<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [words("NAME"), number("RECEIVED", "RECV"), words("STATE")];

    fn rows() -> Vec<Vec<String>> {
        vec![
            vec!["é-node".into(), "12".into(), "Established".into()],
            vec!["b".into(), "1000".into(), "Idle".into()],
        ]
    }

    #[test]
    fn a_table_becomes_narrower_before_it_breaks() {
        let wide = "NAME     RECEIVED   STATE\né-node         12   Established\nb            1000   Idle\n";
        assert_eq!(table(&COLUMNS, &rows(), None), wide);
        assert_eq!(table(&COLUMNS, &rows(), Some(31)), wide);
        assert_eq!(
            table(&COLUMNS, &rows(), Some(30)),
            "NAME    RECEIVED  STATE\né-node        12  Established\nb           1000  Idle\n"
        );
        let short = "NAME    RECV  STATE\né-node    12  Established\nb       1000  Idle\n";
        assert_eq!(table(&COLUMNS, &rows(), Some(28)), short);
        let least = "NAME   RECV STATE\né-node   12 Established\nb      1000 Idle\n";
        assert_eq!(table(&COLUMNS, &rows(), Some(24)), least);
        assert_eq!(table(&COLUMNS, &rows(), Some(5)), least, "it cannot do better");
    }

    #[test]
    fn a_long_text_at_the_end_is_broken() {
        let columns = [words("PREFIX"), words("WHY")];
        let rows = [
            vec!["10.0.0.0/8".to_owned(), "an import filter rejects it (no-docs rule 1)".to_owned()],
            vec!["::/0".to_owned(), "short".to_owned()],
        ];
        assert_eq!(
            table(&columns, &rows, Some(40)),
            "PREFIX     WHY\n10.0.0.0/8 an import filter rejects it\n           (no-docs rule 1)\n::/0       short\n"
        );
    }

    #[test]
    fn facts_are_broken_between_words() {
        let screen = Screen { wide: false, width: Some(53) };
        let text = "one two three four five six seven eight nine ten eleven";
        assert_eq!(
            fact("Cause", text, &screen),
            "Cause        one two three four five six seven eight\n             nine ten eleven\n"
        );
        assert_eq!(fact("Cause", "", &screen), "Cause\n");
    }

    #[test]
    fn times() {
        for (ms, said) in [
            (0, "0s"),
            (59_999, "59s"),
            (61_000, "1m1s"),
            (3_600_000, "1h0m"),
            (90_000_000, "1d1h"),
            (8_640_000_000, "100d0h"),
        ] {
            assert_eq!(ago(ms), said);
        }
        assert_eq!((wait(1250), wait(90_000)), ("1.2 s".to_owned(), "1m30s".to_owned()));
    }
}
