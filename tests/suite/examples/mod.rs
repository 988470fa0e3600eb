//! The examples, each tested in a file of its own name.

mod address_book; // example: address_book
mod cached_record; // example: cached_record
mod cors_demo; // example: cors_demo
mod home_page; // example: home_page
mod named_document; // example: named_document
mod resources; // example: resources
mod todo_list; // example: todo_list

mod samples; // example: address_book, todo_list
