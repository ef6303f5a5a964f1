//! Answers for people: tables, and lists of names with their values.

use super::print;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

/// A word with the colour of its meaning, in a cell.
///
/// The colour shows only where answers may be coloured; the word says the same without it.
pub(super) fn state(word: &str) -> Cell {
    let cell = Cell::new(word);
    match word.split(' ').next().unwrap_or_default() {
        "AVAILABLE" | "RUNNING" | "ALIVE" | "SUCCEEDED" | "VERIFIED" | "WALKED" | "LOADED" | "READY" | "KEEP" | "yes" => cell.fg(Color::Green),
        "ERROR" | "FAILED" | "DEAD" | "NOT" => cell.fg(Color::Red),
        "CREATING" | "DELETING" | "EXPIRE" | "DELETED" | "DEGRADED" | "QUEUED" | "CANCELLED" | "WARNING" | "no" => cell.fg(Color::Yellow),
        _ => cell,
    }
}

/// The name of a value of a wire enumeration, or a dash for the one that says nothing.
pub(super) fn known(name: &str) -> &str {
    if name.ends_with("_UNSPECIFIED") || name.ends_with("_UNKNOWN") { "-" } else { name }
}

/// A table with a line of titles.
pub(super) struct Grid(Table);

impl Grid {
    /// A table without rows.
    pub(super) fn new(titles: &[&str]) -> Self {
        let mut table = bare();
        table.set_header(titles.iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
        Self(table)
    }

    /// Adds a row. Text from outside is escaped by the caller.
    pub(super) fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.0.add_row(cells.into_iter().map(Into::into).collect::<Vec<Cell>>());
    }

    /// The text of the table.
    pub(super) fn text(self) -> String {
        finish(self.0, print::may_colour())
    }
}

/// Names with their values, one a line.
pub(super) struct Facts(Table);

impl Facts {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(bare())
    }

    /// Adds a value. Text from outside is escaped by the caller.
    pub(super) fn add(&mut self, name: &str, value: impl Into<Cell>) {
        self.0.add_row([Cell::new(name).add_attribute(Attribute::Bold), value.into()]);
    }

    /// Adds a value that is shown only when there is one.
    pub(super) fn add_some(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// The text of the list.
    pub(super) fn text(self) -> String {
        finish(self.0, print::may_colour())
    }
}

fn bare() -> Table {
    let mut table = Table::new();
    // Rows keep to one line each: a person can search them, and an identifier is never torn.
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn finish(mut table: Table, colour: bool) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.force_no_tty();
    if colour {
        table.enforce_styling();
        table.style_text_only();
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_text_without_borders() {
        let mut grid = Grid::new(&["ID", "STATE"]);
        grid.row([Cell::new("a-long-identifier"), state("ERROR")]);
        grid.row([Cell::new("b"), state("AVAILABLE")]);
        assert_eq!(finish(grid.0, false), "ID                 STATE\na-long-identifier  ERROR\nb                  AVAILABLE");
    }

    #[test]
    fn colours_only_where_wanted() {
        let mut facts = Facts::new();
        facts.add("State", state("ERROR (nothing is stored)"));
        facts.add_some("Purge", None);
        let plain = finish(facts.0.clone(), false);
        assert_eq!(plain, "State  ERROR (nothing is stored)");
        assert!(finish(facts.0, true).contains("\x1b["));
    }

    #[test]
    fn what_says_nothing_is_a_dash() {
        assert_eq!((known("LEVEL_UNSPECIFIED"), known("STATUS_UNKNOWN"), known("WALKED")), ("-", "-", "WALKED"));
    }
}
