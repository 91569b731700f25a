//! The subgraph in process: books, their authors, and whatever can go wrong with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_graphql::{
    Context, Enum, Error, ErrorExtensions, ID, InputObject, Interface, Object, Schema, SimpleObject, Subscription, Union, scalar,
};
use serde::{Deserialize, Serialize};
use tokio_stream::Stream;

#[derive(Serialize, Deserialize, Clone)]
pub struct Isbn(pub String);
scalar!(Isbn, "Isbn", "International Standard Book Number.", "https://www.isbn-international.org/");

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
pub enum Genre {
    Novel,
    Poetry,
    #[graphql(inaccessible)]
    Hidden,
}

/// Anything with an id.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "Opaque."))]
pub enum Node {
    Book(Book),
    Author(Author),
    Magazine(Magazine),
    Review(Review),
}

#[derive(Union)]
pub enum Item {
    Book(Book),
    Author(Author),
    Magazine(Magazine),
}

/// Reviews are kept elsewhere.
pub struct Review(ID);
#[Object(unresolvable = "id")]
impl Review {
    async fn id(&self) -> ID {
        self.0.clone()
    }
}

pub struct Magazine(ID);
#[Object]
impl Magazine {
    async fn id(&self) -> ID {
        self.0.clone()
    }
    async fn issue(&self) -> i32 {
        7
    }
}

#[derive(Clone)]
pub struct Author(ID);
#[Object]
impl Author {
    async fn id(&self) -> ID {
        self.0.clone()
    }
    async fn name(&self) -> String {
        format!("Author {}", *self.0)
    }
    async fn books(&self) -> Vec<Book> {
        if *self.0 == "a1" { vec![book("b1"), book("b3")] } else { vec![book("b2")] }
    }
    async fn favourite(&self) -> Option<Book> {
        (*self.0 == "a1").then(|| book("b2"))
    }
}

#[derive(Clone)]
pub struct Book(ID);

pub fn book(id: &str) -> Book {
    Book(ID::from(id))
}

fn coded(message: &str, code: &str) -> Error {
    Error::new(message).extend_with(|_, extensions| extensions.set("code", code))
}

/// A printed work.
#[Object]
impl Book {
    async fn id(&self) -> ID {
        self.0.clone()
    }
    /// What is on the cover.
    async fn title(&self) -> String {
        format!("Title {}", *self.0)
    }
    async fn isbn(&self) -> Option<Isbn> {
        (*self.0 != "b2").then(|| Isbn(format!("978-{}", *self.0)))
    }
    #[graphql(deprecation = "count words")]
    async fn pages(&self) -> Option<i32> {
        Some(100)
    }
    async fn genre(&self) -> Genre {
        match self.0.as_str() {
            "b2" => Genre::Poetry,
            "hidden" => Genre::Hidden,
            _ => Genre::Novel,
        }
    }
    async fn author(&self) -> Author {
        Author(ID::from(if *self.0 == "b2" { "a2" } else { "a1" }))
    }
    async fn weight_grams(&self) -> Option<i32> {
        (*self.0 != "b2").then_some(300)
    }
    #[graphql(inaccessible)]
    async fn secret(&self) -> &str {
        "secret"
    }
    async fn soft_fail(&self) -> Option<Result<String, Error>> {
        Some(Err(coded("soft", "FORBIDDEN")))
    }
    /// async-graphql leaves the key out when this fails.
    async fn dropped_key(&self) -> Result<Option<String>, Error> {
        Err(Error::new("dropped"))
    }
    async fn hard_fail(&self) -> Result<String, Error> {
        if *self.0 == "b2" { Err(coded("hard", "NOT_FOUND")) } else { Ok("fine".into()) }
    }
}

#[derive(InputObject)]
pub struct EchoInput {
    pub text: String,
    #[graphql(default = 7)]
    pub times: i32,
    pub tags: Option<Vec<String>>,
}

#[derive(SimpleObject)]
pub struct Echo {
    pub text: String,
    pub times: i32,
    pub tags: Option<Vec<String>>,
}

pub struct Query;
#[Object]
impl Query {
    async fn book(&self, id: ID) -> Option<Book> {
        (*id != "none").then_some(Book(id))
    }
    async fn books(&self, #[graphql(default = 2)] first: usize) -> Vec<Book> {
        (1..=first).map(|index| book(&format!("b{index}"))).collect()
    }
    async fn books_of(&self, ids: Vec<ID>) -> Vec<Book> {
        ids.into_iter().map(Book).collect()
    }
    async fn nothing(&self) -> Option<Book> {
        None
    }
    async fn shelves(&self) -> Vec<Vec<Option<Book>>> {
        vec![vec![Some(book("b1")), None], vec![], vec![Some(book("b2")), Some(book("b1"))]]
    }
    async fn node(&self, id: ID) -> Option<Node> {
        Some(match id.chars().next()? {
            'b' => Node::Book(Book(id)),
            'a' => Node::Author(Author(id)),
            'm' => Node::Magazine(Magazine(id)),
            'r' => Node::Review(Review(id)),
            _ => return None,
        })
    }
    async fn items(&self) -> Vec<Item> {
        vec![Item::Book(book("b1")), Item::Magazine(Magazine(ID::from("m1"))), Item::Author(Author(ID::from("a2")))]
    }
    async fn echo(&self, input: EchoInput) -> Echo {
        Echo { text: input.text, times: input.times, tags: input.tags }
    }
    async fn texts(&self, texts: Vec<String>) -> Vec<String> {
        texts
    }
    async fn genre(&self, genre: Genre) -> Genre {
        genre
    }
    async fn optional(&self, value: async_graphql::MaybeUndefined<i32>) -> String {
        format!("{value:?}")
    }
    async fn by_isbn(&self, isbn: Isbn) -> Option<Book> {
        Some(book(isbn.0.trim_start_matches("978-")))
    }
    async fn numbers(&self, float: f64) -> f64 {
        float
    }
    async fn caller(&self, ctx: &Context<'_>) -> Option<String> {
        ctx.data_opt::<CallerName>().map(|name| name.0.clone())
    }
    async fn strict(&self) -> Result<Book, Error> {
        Err(coded("strict", "NOT_FOUND"))
    }
    #[graphql(entity)]
    async fn find_book(&self, id: ID) -> Book {
        Book(id)
    }
    #[graphql(entity)]
    async fn find_author(&self, id: ID) -> Author {
        Author(id)
    }
    #[graphql(entity)]
    async fn find_magazine(&self, id: ID) -> Magazine {
        Magazine(id)
    }
}

#[derive(Clone)]
pub struct CallerName(pub String);

pub struct Mutation(pub Arc<AtomicUsize>);
#[Object]
impl Mutation {
    /// Answers how many mutations ran before it.
    async fn add_book(&self, #[graphql(default = "b9")] id: String) -> Option<Added> {
        Some(Added { book: book(&id), position: self.0.fetch_add(1, Ordering::SeqCst) })
    }
    async fn fail_book(&self) -> Option<Result<Book, Error>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Some(Err(coded("no room", "FORBIDDEN")))
    }
}

#[derive(SimpleObject)]
pub struct Added {
    pub book: Book,
    pub position: usize,
}

pub struct Events {
    /// Events that the source was asked for.
    pub asked: Arc<AtomicUsize>,
}
#[Subscription(name = "Subscription")]
impl Events {
    async fn book_added(&self, ids: Vec<ID>) -> impl Stream<Item = Book> + use<> {
        tokio_stream::iter(ids.into_iter().map(Book))
    }
    /// As fast as it is asked.
    async fn many(&self) -> impl Stream<Item = Book> + use<> {
        let asked = Arc::clone(&self.asked);
        tokio_stream::iter(std::iter::from_fn(move || {
            asked.fetch_add(1, Ordering::SeqCst);
            Some(book("b1"))
        }))
    }
    async fn breaks(&self) -> impl Stream<Item = Result<Book, Error>> + use<> {
        tokio_stream::iter(vec![Ok(book("b1")), Err(coded("too old", "CURSOR_EXPIRED")), Ok(book("b3"))])
    }
    async fn refuses(&self, id: ID) -> Result<Refusal, Error> {
        Err(coded(&format!("no {}", *id), "NOT_FOUND"))
    }
}
type Refusal = tokio_stream::Iter<std::vec::IntoIter<Book>>;

pub type Books = Schema<Query, Mutation, Events>;

pub fn schema(asked: Arc<AtomicUsize>) -> Books {
    Schema::build(Query, Mutation(Arc::default()), Events { asked })
        .enable_federation()
        .enable_subscription_in_federation()
        .finish()
}
