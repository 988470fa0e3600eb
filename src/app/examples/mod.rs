//! DELETE: examples, each a slice that names no other slice. `make remove-examples` removes them all.

pub mod address_book; // example: address_book
pub mod cors_demo; // example: cors_demo
pub mod home_page; // example: home_page
pub mod resources; // example: resources
pub mod todo_list; // example: todo_list
