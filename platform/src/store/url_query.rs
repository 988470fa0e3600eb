//! The parameters after the `?` of a URL.

/// The URL without the parameters for whose name and value `is_left_out` is true, and the names of these.
pub(super) fn without(url: &str, is_left_out: impl Fn(&str, &str) -> bool) -> (String, Vec<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), Vec::new()) };
    let (mut kept, mut left_out) = (Vec::new(), Vec::new());
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if is_left_out(name, value) { left_out.push(name.to_owned()) } else { kept.push(pair) }
    }
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    (format!("{base}{query}"), left_out)
}
