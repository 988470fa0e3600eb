//! The examples, each tested in a file of its own name.

mod address_book; // example: address_book
pub mod blog; // example: blog
mod cached_record; // example: cached_record
mod client_flow; // example: client_flow
mod cors_demo; // example: cors_demo
mod dependency_pings; // example: dependency_pings
mod home_page; // example: home_page
mod locking; // example: locking
mod named_document; // example: named_document
mod resources; // example: resources
mod reverse_proxy; // example: reverse_proxy
mod sales_report; // example: sales_report
mod timekeeper; // example: timekeeper
mod todo_list; // example: todo_list
mod weather_report; // example: weather_report

mod fake_upstream; // example: client_flow, dependency_pings, weather_report
mod samples; // example: address_book, todo_list
