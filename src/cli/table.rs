//! Tables as kubectl prints them: capital heads, columns parted by spaces, no lines.

use comfy_table::{ContentArrangement, Table};

/// Prints rows under heads on standard output.
pub fn print(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> std::io::Result<()> {
    use std::io::Write;
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.iter().copied());
    for row in rows {
        table.add_row(row.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let text = table.to_string();
    let mut out = std::io::stdout().lock();
    text.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
}
