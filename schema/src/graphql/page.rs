//! Keyset pagination in both directions, as in the GraphQL cursor connections specification.

use async_graphql::SimpleObject;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{ErrorCode, GraphqlError};

/// Largest page; more is BAD_USER_INPUT.
pub const MAX_PAGE_SIZE: usize = 100;
/// Page size when neither `first` nor `last` is given.
pub const DEFAULT_PAGE_SIZE: usize = 20;

/// Whether there is more before and after this page.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(shareable)]
pub struct PageInfo {
    /// Whether there is more after the last edge.
    pub has_next_page: bool,
    /// Whether there is more before the first edge.
    pub has_previous_page: bool,
    /// Cursor of the first edge; null on an empty page.
    pub start_cursor: Option<String>,
    /// Cursor of the last edge; null on an empty page.
    pub end_cursor: Option<String>,
}

/// The four arguments as a client sent them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PageRequest {
    /// So many from the start.
    pub first: Option<i32>,
    /// Only what comes after this cursor.
    pub after: Option<String>,
    /// So many from the end.
    pub last: Option<i32>,
    /// Only what comes before this cursor.
    pub before: Option<String>,
}

/// From which end a page is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `first`: from the start of the list.
    Forward,
    /// `last`: from the end of the list.
    Backward,
}

/// A checked request: what to read from storage. `K` is the key that the list is sorted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Window<K> {
    /// Only keys after this one in list order.
    pub after: Option<K>,
    /// Only keys before this one in list order.
    pub before: Option<K>,
    /// From which end.
    pub direction: Direction,
    /// How many to show, 0 to [`MAX_PAGE_SIZE`]. Read one more to know whether there is more.
    pub size: usize,
}

impl PageRequest {
    /// Checks the arguments. `decode` reads a cursor's key; `None` means that the cursor is not one of this list.
    pub fn window<K>(&self, decode: impl Fn(&str) -> Option<K>) -> Result<Window<K>, GraphqlError> {
        let bad = |message: String| GraphqlError::new(ErrorCode::BadUserInput, message);
        let size = |name: &str, size: i32| {
            usize::try_from(size)
                .ok()
                .filter(|size| *size <= MAX_PAGE_SIZE)
                .ok_or_else(|| bad(format!("`{name}` is {size}, allowed is 0 to {MAX_PAGE_SIZE}")))
        };
        let (direction, size) = match (self.first, self.last) {
            (Some(_), Some(_)) => return Err(bad("`first` and `last` cannot be used together".to_owned())),
            (Some(first), None) => (Direction::Forward, size("first", first)?),
            (None, Some(last)) => (Direction::Backward, size("last", last)?),
            (None, None) => (Direction::Forward, DEFAULT_PAGE_SIZE),
        };
        let key = |name: &str, cursor: &Option<String>| match cursor {
            None => Ok(None),
            Some(cursor) => decode(cursor).map(Some).ok_or_else(|| bad(format!("`{name}` is not a cursor of this list"))),
        };
        Ok(Window { after: key("after", &self.after)?, before: key("before", &self.before)?, direction, size })
    }
}

/// Rows of one page in list order with what is known about the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// In list order, whatever the direction.
    pub rows: Vec<T>,
    /// More after the last row.
    pub has_next: bool,
    /// More before the first row.
    pub has_previous: bool,
}

impl<T> Page<T> {
    /// `rows` as read from storage: in reading direction, up to one more than the window's size.
    ///
    /// The page that was not asked for is guessed from the cursor that was given, as the specification allows: something is there.
    pub fn new<K>(window: &Window<K>, mut rows: Vec<T>) -> Self {
        let more = rows.len() > window.size;
        rows.truncate(window.size);
        match window.direction {
            Direction::Forward => Self { rows, has_next: more, has_previous: window.after.is_some() },
            Direction::Backward => {
                rows.reverse();
                Self { rows, has_next: window.before.is_some(), has_previous: more }
            }
        }
    }

    /// The page's info with the cursors of its ends.
    pub fn info(&self, cursor: impl Fn(&T) -> String) -> PageInfo {
        PageInfo {
            has_next_page: self.has_next,
            has_previous_page: self.has_previous,
            start_cursor: self.rows.first().map(&cursor),
            end_cursor: self.rows.last().map(&cursor),
        }
    }
}

/// An opaque cursor that says which list it belongs to.
pub fn encode_cursor(list: &str, key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}:{key}"))
}

/// The key of a cursor made by [`encode_cursor`] for the same list.
pub fn decode_cursor(list: &str, cursor: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    text.strip_prefix(list)?.strip_prefix(':').map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(first: Option<i32>, last: Option<i32>) -> Result<Window<u8>, GraphqlError> {
        PageRequest { first, last, ..PageRequest::default() }.window(|cursor| cursor.parse().ok())
    }

    #[test]
    fn one_direction_and_a_bounded_size() {
        assert_eq!(window(None, None).map(|w| w.size), Ok(DEFAULT_PAGE_SIZE));
        assert_eq!(window(Some(100), None).map(|w| w.direction), Ok(Direction::Forward));
        assert_eq!(window(None, Some(0)).map(|w| w.direction), Ok(Direction::Backward));
        for (first, last) in [(Some(1), Some(1)), (Some(101), None), (Some(-1), None), (None, Some(101))] {
            assert_eq!(window(first, last).map_err(|error| error.code), Err(ErrorCode::BadUserInput));
        }
        let foreign = PageRequest { after: Some("x".to_owned()), ..PageRequest::default() };
        assert!(foreign.window(|cursor| cursor.parse::<u8>().ok()).is_err());
    }

    #[test]
    fn a_backward_page_is_shown_in_list_order() {
        let window = Window { after: None, before: Some(9), direction: Direction::Backward, size: 2 };
        let page = Page::new(&window, vec![8, 7, 6]);
        assert_eq!((page.rows, page.has_next, page.has_previous), (vec![7, 8], true, true));
    }

    #[test]
    fn a_cursor_belongs_to_one_list() {
        let cursor = encode_cursor("orders", "a:b");
        assert_eq!(decode_cursor("orders", &cursor).as_deref(), Some("a:b"));
        assert_eq!(decode_cursor("entries", &cursor), None);
        assert_eq!(decode_cursor("orders", "%"), None);
    }
}
