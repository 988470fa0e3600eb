//! DELETE: examples, each a slice that names no other slice. `make remove-examples` removes them all.

pub mod address_book; // example: address_book
pub mod blog; // example: blog
pub mod cached_record; // example: cached_record
pub mod client_flow; // example: client_flow
pub mod cors_demo; // example: cors_demo
pub mod dependency_pings; // example: dependency_pings
pub mod home_page; // example: home_page
pub mod locking; // example: locking
pub mod named_document; // example: named_document
pub mod resources; // example: resources
pub mod reverse_proxy; // example: reverse_proxy
pub mod sales_report; // example: sales_report
pub mod timekeeper; // example: timekeeper
pub mod todo_list; // example: todo_list
pub mod weather_report; // example: weather_report
