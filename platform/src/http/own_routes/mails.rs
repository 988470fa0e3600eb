//! `GET /debug/mails`: the mails that are files, for a developer. Only with `--debug`.

use askama::Template;

use crate::error::Error;
use crate::http::extract::respond::Html;
use crate::http::request::context::Context;
use crate::http::routing::route::Route;
use crate::http::routing::routes::Routes;
use crate::http::settings::request_host::RequestHost;
use crate::mail::{Folder, Mail};

/// The HTML is in a frame that may do nothing: a link in it leads nowhere, one of the text does.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>Mails</title>
<h1>Mails, the newest first</h1>
{%- for mail in mails %}
<h2>{{ mail.subject }}</h2>
<p>To {{ mail.to }}
<pre>
{%- for word in mail.text.split_inclusive(char::is_whitespace) -%}
{% if word.starts_with("http") %}<a href="{{ word.trim_end() }}">{{ word }}</a>{% else %}{{ word }}{% endif -%}
{%- endfor -%}
</pre>
{%- if let Some(html) = mail.html %}
<iframe title="HTML" sandbox loading="lazy" srcdoc="{{ html }}" width="100%" height="400"></iframe>
{%- endif %}
{%- else %}
<p>None was sent yet.
{%- endfor %}
</html>"#
)]
struct Mails {
    mails: Vec<Mail>,
}

/// The page of a folder of mails.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(folder: Folder) -> Routes<S> {
    let page = async move |context: Context| {
        // A name of somebody else that leads to this machine (DNS rebinding) must not read the links in them.
        let host = context.info().host().map(RequestHost::name).unwrap_or_default();
        if !["localhost", "127.0.0.1", "[::1]"].contains(&host) {
            return Err(Error::forbidden("Not This Machine"));
        }
        folder.mails().map(|mails| Html(Mails { mails })).map_err(Error::internal)
    };
    Routes::new().route(Route::at("/debug/mails").get(page))
}
