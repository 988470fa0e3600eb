//! What is declared once at the start: routes, their endpoints and layers, and the table that finds them.

mod callers;
pub(super) mod check;
pub(super) mod cors;
pub(super) mod endpoint;
pub(super) mod layer;
pub(super) mod limits;
pub(super) mod route;
pub(super) mod routes;
