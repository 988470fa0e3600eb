//! DELETE: examples, each a slice that names no other slice. `make remove-examples` removes them all.

pub mod address_book; // example: address_book
pub mod cached_record; // example: cached_record
pub mod cors_demo; // example: cors_demo
pub mod home_page; // example: home_page
pub mod named_document; // example: named_document
pub mod resources; // example: resources
pub mod todo_list; // example: todo_list
