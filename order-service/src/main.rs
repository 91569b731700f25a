//! Temporary: prints the SDL.
#![allow(clippy::print_stdout)]
fn main() {
    println!("{}", order_service::graphql::sdl());
}
