//! Pages of lists: a size, and a token that says where the next page begins.
//!
//! A token is opaque, at most 100 URL-safe characters, and bound to the list and its filter: one of another list is refused.

use super::status::invalid;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use tonic::Status;

/// Rows of a page when the caller says nothing.
const DEFAULT_ROWS: usize = 100;

/// Most bytes of the rows of a page: clients take messages of 4 MiB unless they are told otherwise. One row is on every page.
const PAGE_BYTES: usize = 3 << 20;

/// Most rows that are read at once for a page: rows can be long.
const READ_ROWS: usize = 100;

/// Bytes of the filter's digest in a token.
const BINDING_BYTES: usize = 8;

/// A page that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Most rows.
    pub(super) rows: usize,
    /// Key of the last row of the page before; empty for the first page.
    pub(super) after: Vec<u8>,
    binding: [u8; BINDING_BYTES],
}

impl Page {
    /// Reads what the caller asked for. `list` names the list, `filter` what it is filtered by.
    pub(super) fn new(size: i64, token: &str, list: &str, filter: &[&str]) -> Result<Self, Status> {
        let rows = match size {
            0 => DEFAULT_ROWS,
            1..=1000 => size as usize,
            _ => return Err(invalid("page_size", "must be from 0 to 1000")),
        };
        let binding = binding(list, filter);
        let after = if token.is_empty() { Vec::new() } else { decode(token, binding).ok_or_else(foreign)? };
        Ok(Self { rows, after, binding })
    }

    /// The key of the page before as an identifier of 16 bytes; `None` for the first page.
    pub(super) fn after_id(&self) -> Result<Option<[u8; 16]>, Status> {
        match self.after.as_slice() {
            [] => Ok(None),
            key => key.try_into().map(Some).map_err(|_| foreign()),
        }
    }

    /// Cuts one row more than asked for down to the page, and tells the next page's token: empty at the end.
    pub(super) fn cut<T>(&self, rows: &mut Vec<T>, key: impl Fn(&T) -> Vec<u8>) -> String {
        if rows.len() <= self.rows {
            return String::new();
        }
        rows.truncate(self.rows);
        rows.last().map(|row| self.token(&key(row))).unwrap_or_default()
    }

    /// Begins to fill the page with rows that are read in batches.
    pub(super) fn fill<M: Message>(&self) -> Result<Filling<'_, M>, Status> {
        Ok(Filling { page: self, rows: Vec::new(), bytes: 0, passed: 0, last: self.after_id()?, state: Filled::Partly })
    }

    /// Takes this page out of a whole list that is in order of its keys.
    pub(super) fn of<T>(&self, all: Vec<T>, key: impl Fn(&T) -> String) -> (Vec<T>, String) {
        // Names can be longer than a token, so their digest stands for them.
        let digest_of = |row: &T| digest::digest(&digest::SHA256, key(row).as_bytes()).as_ref()[..16].to_vec();
        let start = if self.after.is_empty() { 0 } else { all.iter().position(|row| digest_of(row) == self.after).map_or(all.len(), |at| at + 1) };
        let mut rows: Vec<T> = all.into_iter().skip(start).take(self.rows + 1).collect();
        let token = self.cut(&mut rows, digest_of);
        (rows, token)
    }

    fn token(&self, key: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode([&self.binding, key].concat())
    }
}

/// Whether a page takes more rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    Partly,
    /// There are no more rows.
    Ended,
    /// There are more rows than the page takes.
    Full,
}

/// A page that is being filled with rows that have identifiers of 16 bytes.
pub(super) struct Filling<'a, M> {
    page: &'a Page,
    rows: Vec<M>,
    bytes: usize,
    /// Rows that were looked at, those that are not shown too.
    passed: usize,
    last: Option<[u8; 16]>,
    state: Filled,
}

impl<M: Message> Filling<'_, M> {
    /// After which row the next batch begins, and how many rows it has; `None` once the page is filled.
    pub(super) fn next(&self) -> Option<(Option<[u8; 16]>, usize)> {
        // One more than the page holds tells whether there is another page.
        (self.state == Filled::Partly).then(|| (self.last, (self.page.rows + 1 - self.passed).min(READ_ROWS)))
    }

    /// Takes a batch; `row` gives the identifier, and the message unless the row is not shown.
    pub(super) fn take<R>(&mut self, batch: &[R], asked: usize, row: impl Fn(&R) -> ([u8; 16], Option<M>)) {
        for (id, message) in batch.iter().map(row) {
            let length = message.as_ref().map_or(0, Message::encoded_len);
            if self.passed == self.page.rows || (!self.rows.is_empty() && self.bytes + length > PAGE_BYTES) {
                self.state = Filled::Full;
                return;
            }
            self.bytes += length;
            self.passed += 1;
            self.last = Some(id);
            self.rows.extend(message);
        }
        if batch.len() < asked {
            self.state = Filled::Ended;
        }
    }

    /// The rows with the token of the next page; it is empty at the end.
    pub(super) fn end(self) -> (Vec<M>, String) {
        let token = match (self.state, self.last) {
            (Filled::Full, Some(last)) => self.page.token(&last),
            (Filled::Full | Filled::Partly | Filled::Ended, _) => String::new(),
        };
        (self.rows, token)
    }
}

fn binding(list: &str, filter: &[&str]) -> [u8; BINDING_BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in std::iter::once(&list).chain(filter) {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let mut binding = [0; BINDING_BYTES];
    binding.copy_from_slice(&context.finish().as_ref()[..BINDING_BYTES]);
    binding
}

fn decode(token: &str, binding: [u8; BINDING_BYTES]) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let key = bytes.strip_prefix(&binding)?;
    (!key.is_empty()).then(|| key.to_vec())
}

fn foreign() -> Status {
    invalid("page_token", "is not a token of this list; use the next_page_token of the page before, with the same filter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_the_next_page_of_its_own_list_only() {
        let all: Vec<u32> = (0..5).collect();
        let page = |token: &str, filter: &str| Page::new(2, token, "numbers", &[filter]);
        let (rows, token) = page("", "a").unwrap().of(all.clone(), |n| n.to_string());
        assert_eq!(rows, [0, 1]);
        assert!(token.len() <= 100);
        let (rows, token) = page(&token, "a").unwrap().of(all.clone(), |n| n.to_string());
        assert_eq!(rows, [2, 3]);
        for foreign in [page(&token, "b"), Page::new(2, &token, "letters", &["a"]), page("nonsense!", "a"), page("AAAA", "a")] {
            assert_eq!(foreign.unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        let (rows, token) = page(&token, "a").unwrap().of(all, |n| n.to_string());
        assert_eq!((rows, token), (vec![4], String::new()));
    }

    /// Fills a page from texts of these lengths, in order; gives how many it has and whether there is another.
    fn filled(page: &Page, lengths: &[usize]) -> (usize, bool) {
        let rows: Vec<(u128, String)> = (1..).zip(lengths).map(|(id, length)| (id, "x".repeat(*length))).collect();
        let mut filling = page.fill::<String>().unwrap();
        while let Some((after, limit)) = filling.next() {
            assert!(limit <= READ_ROWS);
            let start = after.map_or(0, |after| u128::from_be_bytes(after) as usize);
            let batch: Vec<_> = rows[start..].iter().take(limit).collect();
            filling.take(&batch, limit, |(id, text)| (id.to_be_bytes(), (!text.is_empty()).then(|| text.clone())));
        }
        let (rows, token) = filling.end();
        (rows.len(), !token.is_empty())
    }

    #[test]
    fn a_page_ends_by_rows_or_by_bytes() {
        let page = |rows| Page::new(rows, "", "l", &[]).unwrap();
        for (rows, lengths, expected) in [
            (2, vec![], (0, false)),
            (2, vec![1, 1], (2, false)),
            (2, vec![1, 1, 1], (2, true)),
            (1000, vec![1; 1000], (1000, false)),
            (1000, vec![1; 1001], (1000, true)),
            // What is not shown counts as looked at.
            (2, vec![0, 1, 1], (1, true)),
            (1000, vec![1 << 20; 5], (2, true)),
            (1000, vec![4 << 20, 1], (1, true)),
            (1000, vec![1, 4 << 20], (1, true)),
            (1000, vec![4 << 20], (1, false)),
        ] {
            assert_eq!(filled(&page(rows), &lengths), expected, "{rows} of {} rows", lengths.len());
        }
    }

    #[test]
    fn sizes_have_a_range() {
        assert_eq!(Page::new(0, "", "l", &[]).unwrap().rows, 100);
        assert_eq!(Page::new(1000, "", "l", &[]).unwrap().rows, 1000);
        assert!(Page::new(1001, "", "l", &[]).is_err());
        assert!(Page::new(-1, "", "l", &[]).is_err());
    }
}
