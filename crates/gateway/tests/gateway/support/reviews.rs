//! The subgraph behind HTTP: what people say about books.

use async_graphql::{EmptySubscription, Error, ErrorExtensions, ID, Interface, Object, Schema};

fn coded(message: &str, code: &str) -> Error {
    Error::new(message).extend_with(|_, extensions| extensions.set("code", code))
}

/// Anything with an id: the same interface as elsewhere, over the types that are known here.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "Opaque."))]
pub enum Node {
    Book(Book),
    Author(Author),
    Review(Review),
}

pub struct Review(ID);
/// An opinion.
#[Object]
impl Review {
    async fn id(&self) -> ID {
        self.0.clone()
    }
    async fn text(&self) -> Option<String> {
        Some(format!("Text {}", *self.0))
    }
    async fn stars(&self) -> i32 {
        4
    }
    async fn book(&self) -> Book {
        Book { id: ID::from("b1"), weight_grams: None }
    }
    async fn detail(&self) -> Option<Detail> {
        Some(Detail(self.0.clone()))
    }
}

pub struct Detail(ID);
#[Object]
impl Detail {
    async fn words(&self) -> Option<Result<i32, Error>> {
        Some(if *self.0 == "b2-r2" { Err(coded("uncountable", "FORBIDDEN")) } else { Ok(12) })
    }
}

pub struct Book {
    id: ID,
    weight_grams: Option<i32>,
}
#[Object]
impl Book {
    async fn id(&self) -> ID {
        self.id.clone()
    }
    #[graphql(external)]
    async fn weight_grams(&self) -> Option<i32> {
        self.weight_grams
    }
    async fn reviews(&self, #[graphql(default = 1)] min_stars: i32) -> Option<Vec<Review>> {
        let review = |index: i32| Review(ID::from(format!("{}-r{index}", *self.id)));
        Some(if min_stars > 4 { vec![] } else { vec![review(1), review(2)] })
    }
    /// Fails for `b2`.
    async fn rating(&self) -> Option<Result<f64, Error>> {
        Some(if *self.id == "b2" { Err(coded("no rating", "FORBIDDEN")) } else { Ok(4.5) })
    }
    /// Non-null, and fails for `b2`.
    async fn strict_rating(&self) -> Result<f64, Error> {
        if *self.id == "b2" { Err(coded("no strict rating", "NOT_FOUND")) } else { Ok(4.5) }
    }
    #[graphql(requires = "weightGrams")]
    async fn shipping_cost(&self) -> Option<i32> {
        self.weight_grams.map(|grams| grams * 2)
    }
}

pub struct Author(ID);
#[Object]
impl Author {
    async fn id(&self) -> ID {
        self.0.clone()
    }
    async fn bio(&self) -> Option<String> {
        Some(format!("Bio {}", *self.0))
    }
    async fn review_count(&self) -> i32 {
        3
    }
}

pub struct Query;
#[Object]
impl Query {
    async fn top_review(&self) -> Option<Review> {
        Some(Review(ID::from("r1")))
    }
    #[graphql(entity)]
    async fn find_book(&self, #[graphql(key)] id: ID, weight_grams: Option<i32>) -> Result<Book, Error> {
        if *id == "unknown" { Err(coded("unknown", "NOT_FOUND")) } else { Ok(Book { id, weight_grams }) }
    }
    #[graphql(entity)]
    async fn find_author(&self, id: ID) -> Author {
        Author(id)
    }
    #[graphql(entity)]
    async fn find_review(&self, id: ID) -> Review {
        Review(id)
    }
}

pub struct Mutation;
#[Object]
impl Mutation {
    async fn add_review(&self, book: ID) -> Option<Review> {
        Some(Review(ID::from(format!("{}-new", *book))))
    }
}

pub type Reviews = Schema<Query, Mutation, EmptySubscription>;

pub fn schema() -> Reviews {
    Schema::build(Query, Mutation, EmptySubscription).register_output_type::<Node>().enable_federation().finish()
}
