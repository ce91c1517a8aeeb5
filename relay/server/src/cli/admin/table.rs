//! Tables that fit the terminal: aligned columns, of which the least important are left out where there is no room.

use rustix::termios::tcgetwinsize;

/// The width where the output is no terminal.
const DEFAULT_WIDTH: usize = 120;

/// What stands for the rest of a text that is cut.
const CUT: char = '…';

/// A column of a table of `T`.
pub(super) struct Column<T> {
    pub(super) title: &'static str,
    pub(super) align: Align,
    /// The columns with the highest rank are left out first, those of rank 0 never.
    pub(super) rank: u8,
    pub(super) cell: fn(&T) -> String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// The columns of the terminal, or what `COLUMNS` says.
pub(super) fn width() -> usize {
    let of_variable = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|&columns| columns > 0);
    let of_terminal =
        || Some(usize::from(tcgetwinsize(std::io::stdout()).ok()?.ws_col)).filter(|&columns| columns > 0);
    of_variable().or_else(of_terminal).unwrap_or(DEFAULT_WIDTH)
}

/// Renders a table with a line of titles, in lines of at most `width` characters.
pub(super) fn render<T>(columns: &[Column<T>], rows: &[T], width: usize) -> String {
    let titles = columns.iter().map(|column| column.title.to_owned()).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|column| (column.cell)(row)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(titles).chain(cells).collect();
    let widest = |at: usize| lines.iter().map(|line| len(&line[at])).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..columns.len()).map(widest).collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let total = |shown: &[usize]| shown.iter().map(|&at| widths[at] + 2).sum::<usize>().saturating_sub(2);
    let least = |shown: &[usize]| {
        let may_go = shown.iter().copied().filter(|&at| columns[at].rank > 0);
        may_go.max_by_key(|&at| columns[at].rank)
    };
    while total(&shown) > width
        && let Some(least) = least(&shown)
    {
        shown.retain(|&at| at != least);
    }
    let above = total(&shown).saturating_sub(width);
    let texts = shown.iter().filter(|&&at| columns[at].align == Align::Left);
    if let Some(&widest) = texts.max_by_key(|&&at| widths[at]) {
        widths[widest] = widths[widest].saturating_sub(above).max(len(columns[widest].title));
    }
    let mut text = String::new();
    for line in lines {
        let cells: Vec<_> = shown.iter().map(|&at| pad(&line[at], widths[at], columns[at].align)).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn len(text: &str) -> usize {
    text.chars().count()
}

/// The text in exactly `width` characters.
fn pad(text: &str, width: usize, align: Align) -> String {
    if len(text) > width {
        return text.chars().take(width.saturating_sub(1)).chain([CUT]).collect();
    }
    match align {
        Align::Left => format!("{text:<width$}"),
        Align::Right => format!("{text:>width$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column<(&str, u64)>; 3] = [
        Column { title: "NAME", align: Align::Left, rank: 0, cell: |(name, _)| (*name).to_owned() },
        Column { title: "NUMBER", align: Align::Right, rank: 1, cell: |(_, number)| number.to_string() },
        Column { title: "TWICE", align: Align::Right, rank: 2, cell: |(_, number)| (2 * number).to_string() },
    ];

    #[test]
    fn columns_are_aligned_and_the_least_important_give_way() {
        let rows = [("a", 5), ("a longer name", 1234)];
        let all =
            "NAME           NUMBER  TWICE\na                   5     10\na longer name    1234   2468\n";
        assert_eq!(render(&COLUMNS, &rows, 28), all);
        let two = "NAME           NUMBER\na                   5\na longer name    1234\n";
        assert_eq!(render(&COLUMNS, &rows, 27), two);
        assert_eq!(render(&COLUMNS, &rows, 20), "NAME\na\na longer name\n");
        assert_eq!(render(&COLUMNS, &rows, 8), "NAME\na\na longe…\n");
        assert_eq!(render(&COLUMNS, &[], 80), "NAME  NUMBER  TWICE\n");
    }
}
