//! Who may call a handler, for `server routes`: read from the types of its arguments, so that it is what the compiler has
//! checked, and nobody writes it twice.

/// The callers that a handler of these arguments asks for: `User`, `User: Admin`. Nothing where it asks for none.
/// `arguments` is the name of the type of the arguments ([`std::any::type_name`]); it only serves to be shown.
pub(super) fn of(arguments: &str) -> Option<String> {
    let names = without_paths(arguments);
    for (wrapper, owner_only) in [("Mine<", true), ("Caller<", false)] {
        let Some(at) = names.find(wrapper) else { continue };
        let inner = first_level(&names[at + wrapper.len()..]);
        if owner_only {
            return inner.get(1).map(|user| format!("{user}: own documents"));
        }
        let is_optional = names[..at].ends_with("Option<");
        let rule = inner.get(1).filter(|rule| **rule != "Anyone");
        let user = inner.first()?;
        let who = rule.map_or_else(|| (*user).to_owned(), |rule| format!("{user}: {rule}"));
        return Some(if is_optional { format!("anyone, or {who}") } else { who });
    }
    None
}

/// The name of a type with the last segment of each path in it.
fn without_paths(name: &str) -> String {
    let mut short = String::with_capacity(name.len());
    let mut segment = 0;
    for c in name.chars() {
        match c {
            ':' => short.truncate(segment),
            c if c.is_alphanumeric() || c == '_' => short.push(c),
            c => {
                short.push(c);
                segment = short.len();
            }
        }
    }
    short
}

/// The types that stand within this level of brackets, up to its end.
fn first_level(text: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut found) = (0_u32, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' => depth += 1,
            '>' | ')' if depth > 0 => depth -= 1,
            '>' | ',' if depth == 0 => {
                found.push(text[begin..at].trim());
                begin = at + 1;
                if c == '>' {
                    return found;
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_read_from_the_types_of_arguments() {
        for (arguments, callers) in [
            ("(axum_core::extract::private::ViaParts,)", None),
            ("(m::ViaParts, p::Caller<a::b::User, p::Anyone>, p::Dao<a::Note>)", Some("User")),
            ("(m::ViaParts, p::Caller<a::User, a::Admin>)", Some("User: Admin")),
            ("(m::ViaParts, p::Caller<a::User, (a::Admin, p::Recent)>)", Some("User: (Admin, Recent)")),
            ("(m::ViaParts, core::option::Option<p::Caller<a::User, p::Anyone>>)", Some("anyone, or User")),
            ("(m::ViaParts, p::Mine<a::Note, a::User>, p::Path<String>)", Some("User: own documents")),
            ("p::extract::caller::Caller<a::User, p::extract::caller::Anyone>", Some("User")),
        ] {
            assert_eq!(of(arguments).as_deref(), callers, "{arguments}");
        }
    }
}
