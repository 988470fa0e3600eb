//! Queries for MongoDB. Their meaning is defined in `query`.
//!
//! No path of a query leads into an array (`convert`), so MongoDB's operators compare what `query` compares: between
//! values of one type, numbers by value, texts bytewise.
//!
//! A sort differs in one point: MongoDB compares two objects by their fields, and here they are equal. All the same, it
//! puts objects (and so arrays) after texts and before `false`. So a page without an object or array at a path of the
//! sort is right as MongoDB sorts it, with an index. Any other page is read again by a pipeline that computes the keys
//! of the sort.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document as Bdoc, doc};

use super::super::Collection;
use super::super::query::{
    Bound, Direction, Filter, Predicate, Query, Scalar, Sort, Type, after_prefix, regex,
};
use super::convert::{ARRAY, BODY, ID, INTEGERS, PENDING, REVISION, TOKEN, VERSION};

/// The documents that match and are visible.
pub(super) fn visible(filter: &Filter) -> Bdoc {
    let mut condition = condition(filter);
    condition.insert(PENDING, Bson::Null);
    condition
}

/// The documents that match, visible or pending.
pub(super) fn condition(filter: &Filter) -> Bdoc {
    match filter {
        Filter::All => Bdoc::new(),
        Filter::Ids(ids) => doc! { ID: { "$in": ids.as_slice() } },
        Filter::After(id) => doc! { ID: { "$gt": id } },
        Filter::Field(path, predicate) => self::predicate(&stored_path(path), predicate),
        Filter::And(filters) if filters.is_empty() => Bdoc::new(),
        Filter::Or(filters) if filters.is_empty() => never(),
        Filter::And(filters) => doc! { "$and": all(filters) },
        Filter::Or(filters) => doc! { "$or": all(filters) },
        Filter::Not(filter) => doc! { "$nor": [condition(filter)] },
    }
}

fn all(filters: &[Filter]) -> Vec<Bdoc> {
    filters.iter().map(condition).collect()
}

/// No document.
fn never() -> Bdoc {
    doc! { ID: { "$in": [] } }
}

/// The path of a field in a stored document.
pub(super) fn stored_path(path: &str) -> String {
    format!("{BODY}.{path}")
}

fn predicate(path: &str, predicate: &Predicate) -> Bdoc {
    let operator = |comparison: &str, bound: Bound| match bound {
        Bound::Included => format!("${comparison}e"),
        Bound::Excluded => format!("${comparison}"),
    };
    match predicate {
        // Null is equal to a missing field in MongoDB too.
        Predicate::In(values) => doc! { path: { "$in": values.iter().map(operand).collect::<Vec<_>>() } },
        // No value is less or greater than null.
        Predicate::Below(Scalar::Null, Bound::Included) | Predicate::Above(Scalar::Null, Bound::Included) => {
            doc! { path: Bson::Null }
        }
        Predicate::Below(Scalar::Null, _) | Predicate::Above(Scalar::Null, _) => never(),
        Predicate::Below(value, bound) => doc! { path: { operator("lt", *bound): operand(value) } },
        Predicate::Above(value, bound) => doc! { path: { operator("gt", *bound): operand(value) } },
        Predicate::Exists => doc! { path: { "$exists": true } },
        Predicate::StartsWith(prefix) => {
            let mut range = doc! { "$gte": prefix };
            if let Some(end) = after_prefix(prefix) {
                range.insert("$lt", end);
            }
            doc! { path: range }
        }
        // MongoDB matches texts only; the stand-in of the tests needs to be told.
        Predicate::Contains(needle) => {
            doc! { "$and": [{ path: { "$type": "string" } }, { path: { "$regex": regex(needle) } }] }
        }
        Predicate::Has(element) => {
            doc! { format!("{path}.{ARRAY}"): { "$elemMatch": { "$eq": operand(element) } } }
        }
        Predicate::Type(types) if types.is_empty() => never(),
        Predicate::Type(types) => {
            doc! { "$or": types.iter().map(|of| of_type(path, *of)).collect::<Vec<_>>() }
        }
    }
}

/// The documents with a value of this type. An array is stored as an object.
fn of_type(path: &str, of: Type) -> Bdoc {
    let array = format!("{path}.{ARRAY}");
    match of {
        Type::Null => doc! { path: Bson::Null },
        Type::Number => doc! { path: { "$type": ["int", "long", "double"] } },
        Type::Text => doc! { path: { "$type": "string" } },
        Type::Object => doc! { path: { "$type": "object" }, array: { "$exists": false } },
        Type::Array => doc! { array: { "$exists": true } },
        Type::Bool => doc! { path: { "$type": "bool" } },
    }
}

fn operand(scalar: &Scalar) -> Bson {
    match scalar {
        Scalar::Null => Bson::Null,
        Scalar::Bool(value) => Bson::Boolean(*value),
        Scalar::Int(value) => Bson::Int64(*value),
        Scalar::Float(value) => Bson::Double(*value),
        Scalar::Text(text) => Bson::String(text.clone()),
    }
}

fn direction(direction: Direction) -> i32 {
    if direction == Direction::Descending { -1 } else { 1 }
}

/// The paths of a sort, each once: a second time, all documents would be equal there.
fn paths(sort: &Sort) -> Vec<(&str, Direction)> {
    let mut paths: Vec<(&str, Direction)> = Vec::new();
    for (path, direction) in sort.fields() {
        if paths.iter().all(|(known, _)| known != path) {
            paths.push((path, *direction));
        }
    }
    paths
}

/// The order of MongoDB: right for documents without an object or array at a path of the sort.
pub(super) fn order(sort: &Sort) -> Bdoc {
    let mut order = Bdoc::new();
    for (path, to) in paths(sort) {
        order.insert(stored_path(path), direction(to));
    }
    order.insert(ID, 1);
    order
}

/// The documents that meet a condition, in the order that `query` defines, whatever they hold.
pub(super) fn pipeline(query: &Query, condition: Bdoc) -> Vec<Bdoc> {
    let (mut keys, mut order) = (Bdoc::new(), Bdoc::new());
    for (index, (path, to)) in paths(&query.sort).into_iter().enumerate() {
        let key = format!("key{index}");
        order.insert(&key, direction(to));
        keys.insert(key, sort_key(&stored_path(path)));
    }
    order.insert(ID, 1);
    let mut pipeline = vec![doc! { "$match": condition }];
    if !keys.is_empty() {
        pipeline.push(doc! { "$addFields": keys });
    }
    pipeline.push(doc! { "$sort": order });
    if query.page.offset > 0 {
        pipeline.push(doc! { "$skip": i64::try_from(query.page.offset).unwrap_or(i64::MAX) });
    }
    if let Some(limit) = query.page.limit {
        pipeline.push(doc! { "$limit": i64::try_from(limit).unwrap_or(i64::MAX) });
    }
    pipeline
}

/// What of a document MongoDB returns: the fields at these paths and at those of the sort, and all that is not the body.
pub(super) fn projection(paths: &[String], sort: &Sort) -> Bdoc {
    let mut projection = doc! { VERSION: 1, TOKEN: 1, REVISION: 1, INTEGERS: 1, PENDING: 1 };
    let sort = sort.fields().iter().map(|(path, _)| path);
    let all: Vec<&String> = paths.iter().chain(sort).collect();
    for path in &all {
        // MongoDB refuses a path inside of another one.
        let inside =
            |outer: &&String| path.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('.'));
        if !all.iter().any(inside) {
            projection.insert(stored_path(path), 1);
        }
    }
    projection
}

/// How many of the visible documents that match have each value at a path.
pub(super) fn count_by(filter: &Filter, path: &str, limit: u64) -> Vec<Bdoc> {
    let scalars = Predicate::Type(vec![Type::Null, Type::Number, Type::Text, Type::Bool]);
    let condition = visible(&filter.clone().and(Filter::Field(path.to_owned(), scalars)));
    vec![
        doc! { "$match": condition },
        doc! { "$group": { ID: format!("${}", stored_path(path)), "count": { "$sum": 1_i64 } } },
        doc! { "$sort": { "count": -1, ID: 1 } },
        doc! { "$limit": i64::try_from(limit).unwrap_or(i64::MAX) },
    ]
}

/// What MongoDB sorts by in the place of a value: the value itself if it is a scalar, an empty object for an object,
/// and empty binary data for an array. In the order of types, binary data comes between arrays and booleans.
fn sort_key(path: &str) -> Bdoc {
    let value = format!("${path}");
    let (object, array) = (doc! { "$literal": {} }, doc! { "$literal": empty_binary() });
    let is_object = doc! {
        "$and": [{ "$gte": [&value, object.clone()] }, { "$lt": [&value, array.clone()] }]
    };
    doc! {
        "$cond": [
            { "$isArray": format!("{value}.{ARRAY}") },
            array,
            { "$cond": [is_object, object, { "$ifNull": [value, Bson::Null] }] },
        ]
    }
}

fn empty_binary() -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: Vec::new() }
}

/// The keys of the indexes of a collection.
///
/// Each path has two: in a descending sort, equal documents are in the ascending order of their ids, so MongoDB cannot
/// read the ascending index backwards. A filter uses either. The last one finds the parts of unfinished writes.
pub(super) fn indexes(collection: &Collection) -> Vec<(Bdoc, bool)> {
    let mut indexes = Vec::new();
    for path in collection.indexes() {
        for direction in [1, -1] {
            indexes.push((doc! { stored_path(path): direction, ID: 1 }, false));
        }
    }
    indexes.push((doc! { PENDING: 1 }, true));
    indexes
}

#[cfg(test)]
mod tests {
    use super::super::super::query::{Page, field};
    use super::*;

    #[test]
    fn a_filter_is_a_document_of_operators() {
        for (filter, expected) in [
            (Filter::all(), doc! {}),
            (field("a").eq(1), doc! { "body.a": { "$in": [1_i64] } }),
            (field("a.b").gte("x"), doc! { "body.a.b": { "$gte": "x" } }),
            (!field("a").lt(0.5), doc! { "$nor": [{ "body.a": { "$lt": 0.5 } }] }),
            (field("a").lte(None::<i64>), doc! { "body.a": Bson::Null }),
            (field("a").starts_with("ab"), doc! { "body.a": { "$gte": "ab", "$lt": "ac" } }),
            (Filter::After("x".to_owned()), doc! { "_id": { "$gt": "x" } }),
            (Filter::Or(vec![]), doc! { "_id": { "$in": [] } }),
        ] {
            assert_eq!(condition(&filter), expected, "{filter:?}");
        }
        let both = field("a").eq(true).and(Filter::id("x"));
        let expected = doc! {
            "$and": [{ "body.a": { "$in": [true] } }, { "_id": { "$in": ["x"] } }], "pending": Bson::Null
        };
        assert_eq!(visible(&both), expected);
    }

    #[test]
    fn a_sort_ends_with_the_id_and_has_each_path_once() {
        let sort = Sort::by("a", Direction::Descending).then("b.c", Direction::Ascending);
        assert_eq!(order(&sort), doc! { "body.a": -1, "body.b.c": 1, "_id": 1 });
        assert_eq!(
            order(&sort.then("a", Direction::Ascending)),
            doc! { "body.a": -1, "body.b.c": 1, "_id": 1 }
        );
        let query = Query { filter: Filter::All, sort: Sort::by_id(), page: Page::first(3) };
        let all = visible(&query.filter);
        let stages = [
            doc! { "$match": { "pending": Bson::Null } },
            doc! { "$sort": { "_id": 1 } },
            doc! { "$limit": 3_i64 },
        ];
        assert_eq!(pipeline(&query, all), stages);
    }
}
